# make demo | test | quick | bench | format | lab | docs | constraints | notebooks
# Everything runs in .venv, set up on first use with the exact versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test quick bench format lab docs notebooks readme constraints clean
.DEFAULT_GOAL := help

help:
	@echo "make demo         a student learns from a teacher on made-up endoscopy images; a table and a report"
	@echo "make test         all tests, every notebook included"
	@echo "make quick        the tests for the inner loop: no browser, no notebook, nothing slow"
	@echo "make bench        what a step of each method costs on this machine, against the least that it must do"
	@echo "make format       code as the project has it: ruff, long comments and docstrings wrapped"
	@echo "make lab          JupyterLab, opened on the course"
	@echo "make docs         the documentation site, in docs/_build/html"
	@echo "make notebooks    export the library, execute every notebook again, remake README.md"
	@echo "make constraints  newest versions of everything into constraints.txt (then: make test)"

$(READY): settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "kdmedlearn needs Python 3.11 or newer, this is %s; try: make PYTHON=python3.11" % sys.version.split()[0])'
	@echo "setting up .venv (once; some GB of PyTorch and its CUDA libraries)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@

# glibc keeps freed memory in the notebooks' and tests' processes, too.
KEEP := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000

demo: $(READY)
	$(BIN)/kdmedlearn demo

# Python keeps what it has compiled: a hundred processes would do it again.
# Three workers for two cores: one often waits, for a browser or a process.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(KEEP) $(BIN)/python -m pytest -n 3 --dist worksteal

test: $(READY)
	$(PYTEST) --durations=12 tests

quick: $(READY)
	$(PYTEST) -q -m "not browser and not notebook and not slow" tests

bench: $(READY)
	$(BIN)/kdmedlearn bench

format: $(READY)
	$(BIN)/python tools/format.py

lab: $(READY)
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/nbs/index.ipynb

docs: $(READY)
	$(BIN)/sphinx-build -n -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

notebooks: $(READY)
	$(BIN)/nbdev-export
	$(BIN)/python tools/notebooks.py run
	$(BIN)/python tools/notebooks.py readme

readme: $(READY)
	$(BIN)/python tools/notebooks.py readme

# A fresh environment with the newest versions that settings.ini allows; names and versions alone are kept.
constraints:
	rm -rf .venv-new && $(PYTHON) -m venv .venv-new
	.venv-new/bin/python -m pip install -q --disable-pip-version-check uv
	.venv-new/bin/uv pip install -q --python .venv-new/bin/python -e '.[dev]'
	.venv-new/bin/uv pip freeze --python .venv-new/bin/python --exclude-editable | sed 's/+.*//' | grep -E '^[A-Za-z0-9_.-]+==' | grep -v '^pip==' > constraints.txt
	rm -rf .venv-new

clean:
	rm -rf .venv build dist *.egg-info docs/_build docs/nbs docs/api runs
