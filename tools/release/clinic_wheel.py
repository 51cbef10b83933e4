"""A small wheel with the clinic's side alone: it reads bundles and answers, without PyTorch.

    python tools/release/clinic_wheel.py [DIST]

Makes the distribution kdmedlearn-clinic, a package kdmedlearn_clinic, from modules of this library
that import nothing but numpy, Pillow and ONNX Runtime. It has a name of its own, so that both can
be installed side by side.
"""

import re, shutil, subprocess, sys, tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "kdmedlearn_clinic"
MODULES = ("clinic/bundle", "clinic/run", "clinic/predict", "data/files")
REQUIRES = ("numpy>=1.26", "pillow>=10", "onnxruntime>=1.20")
EXTRAS = {"dicom": ("pydicom>=3",), "openvino": ("openvino>=2025.0",)}

# import of a module of the library -> of the same one here; and what a message tells to install
CHANGES = [
    (r"from (\.\.\w+|\.|kdmedlearn\.\w+)\.?(bundle|run|predict|files) import", r"from .\2 import"),
    (r"kdmedlearn\[export\]", "kdmedlearn-clinic"),
    (r"kdmedlearn\[", "kdmedlearn-clinic["),
]


def settings():
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    return ini["DEFAULT"]


def changed(source: str) -> str:
    for pattern, ours in CHANGES:
        source = re.sub(pattern, ours, source)
    return source


def write_package(folder) -> Path:
    "The package as files below `folder`."
    home, version = Path(folder) / PACKAGE, settings()["version"]
    home.mkdir(parents=True)
    first = '"Students of kdmedlearn, asked without PyTorch. Not a medical device."\n\n'
    (home / "__init__.py").write_text(f'{first}__version__ = "{version}"\n', encoding="utf-8")
    main = "import sys\n\nfrom .predict import main\n\nsys.exit(main())\n"
    (home / "__main__.py").write_text(main, encoding="utf-8")
    for m in MODULES:
        source = (ROOT / "kdmedlearn" / f"{m}.py").read_text(encoding="utf-8")
        (home / f"{Path(m).name}.py").write_text(changed(source), encoding="utf-8")
    return home


def pyproject() -> str:
    cfg = settings()
    extras = "".join(f"{k} = {list(v)}\n" for k, v in EXTRAS.items())
    return f"""[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "kdmedlearn-clinic"
version = "{cfg["version"]}"
description = "Ask students of kdmedlearn about images, without PyTorch. Not a medical device."
readme = "README.md"
requires-python = ">={cfg["min_python"]}"
license = "Apache-2.0"
dependencies = {list(REQUIRES)}

[project.optional-dependencies]
{extras}
[project.scripts]
kdmedlearn-predict = "{PACKAGE}.predict:main"

[tool.setuptools]
packages = ["{PACKAGE}"]
"""


README = """# kdmedlearn-clinic

Reads a bundle that `kdmedlearn export` has made, checks it, and answers for images:

    kdmedlearn-predict BUNDLE IMAGES --out answers.csv

It needs Python, numpy, Pillow and ONNX Runtime. For teaching and research; not a medical device.
"""


def build(dist) -> Path:
    "The wheel in the folder `dist`."
    with tempfile.TemporaryDirectory() as d:
        write_package(d)
        (Path(d) / "pyproject.toml").write_text(pyproject(), encoding="utf-8")
        (Path(d) / "README.md").write_text(README, encoding="utf-8")
        shutil.copy(ROOT / "LICENSE", d)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, "-w", str(dist), d], check=True)
    return max(Path(dist).glob(f"{PACKAGE}-*.whl"), key=lambda p: p.stat().st_mtime)


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else "dist"
    print(__doc__ if where.startswith("-") else build(where))
