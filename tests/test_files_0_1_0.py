"""Files that version 0.1.0 wrote load, and give what it computed; code written for it still runs.

tests/files_0_1_0 was written by that version with small networks; values.json has its numbers.
"""

import importlib
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import kdmedlearn

FILES = Path(__file__).parent / "files_0_1_0"
VALUES = json.loads((FILES / "values.json").read_text(encoding="utf-8"))


def ramp(*shape, low=-1.0, high=1.0):
    "Numbers from `low` to `high`, in this shape."
    n = torch.Size(shape).numel()
    return torch.linspace(low, high, n).reshape(shape)


def same(found, name):
    torch.testing.assert_close(found, torch.tensor(VALUES[name]), rtol=1e-4, atol=1e-5)


def tiny_student():
    from kdmedlearn.models.small import SmallCNN

    return SmallCNN(8, 3, widths=(4, 4, 4, 4))


def tiny_dls():
    from kdmedlearn.data.phantom import phantom_dls

    return phantom_dls(n_train=32, n_valid=16, size=32, bs=8, device="cpu")


def test_weights():
    from kdmedlearn.models.weights import load_model

    model = load_model(FILES / "student.safetensors").eval()
    with torch.no_grad():
        same(model(ramp(2, 3, 32, 32)), "student")


def test_fusion():
    from kdmedlearn.train.fusing import load_fusion

    fusion = load_fusion(FILES / "fusion.safetensors")
    answers = [ramp(2, 8), ramp(2, 8, low=1.0, high=-1.0)]
    maps = [ramp(2, 4, 2, 2), ramp(2, 6, 2, 2)]
    with torch.no_grad():
        same(fusion(answers, maps).out, "fusion")


def test_exported_learner():
    from fastai.learner import load_learner

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai warns of pickle; we of names that have moved
        learn = load_learner(FILES / "learner.pkl")
    with torch.no_grad():
        same(learn.model.eval()(ramp(2, 3, 32, 32)), "learner")
    with learn.no_bar():
        label, *_ = learn.predict(np.zeros((32, 32, 3), np.uint8))
    assert label in learn.dls.vocab


def test_saved_learner(tmp_path):
    "The student's weights are those; adapters were not saved, so they begin anew and train on."
    from fastcore.foundation import L

    from kdmedlearn import distill, Feature, Response
    from kdmedlearn.train.teachers import phantom_teacher

    method = Response(T=3) + Feature()
    learn = distill(tiny_dls(), tiny_student(), phantom_teacher(), method, path=tmp_path)
    (tmp_path / "models").mkdir()
    shutil.copy(FILES / "learner.pth", tmp_path / "models")
    with pytest.warns(UserWarning, match="holds no adapters"):
        learn.load("learner")
    with torch.serialization.safe_globals([L]):
        saved = torch.load(FILES / "learner.pth", weights_only=True)["model"]
    for name, w in learn.model.state_dict().items():
        assert torch.equal(w, saved[name]), name
    adapter = learn.distill.step.adapters()[0]
    before, weight = adapter.detach().clone(), learn.model.head.weight.detach().clone()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
    assert not torch.equal(adapter, before) and not torch.equal(learn.model.head.weight, weight)


@pytest.fixture
def runs_folder(tmp_path):
    return Path(shutil.copytree(FILES / "search", tmp_path / "runs"))


def test_runs(runs_folder):
    from kdmedlearn.tuning.runs import best_of, Runs, table_of

    runs = Runs(runs_folder).all()
    assert [r["code"] for r in runs] == VALUES["runs"]
    assert runs[0]["params"] == {"T": 5.18, "alpha": 0.715} and "knobs" not in runs[0]
    assert best_of(runs)["run"] == 1 and len(table_of(runs)) == 1


def test_a_search_goes_on(runs_folder):
    from fastai.metrics import accuracy

    from kdmedlearn import Response
    from kdmedlearn.train.teachers import phantom_teacher
    from kdmedlearn.tuning.runs import runs_of_study
    from kdmedlearn.tuning.search import tune

    args = (tiny_dls(), tiny_student, phantom_teacher(), Response())
    kw = dict(trials=1, epochs=1, metrics=accuracy, folder=runs_folder, log=None)
    runs = tune(*args, **kw)
    assert [r["run"] for r in runs.all()] == [1, 2] and len(runs.study.trials) == 2
    assert all(set(r["params"]) == {"T", "alpha"} for r in runs.all())
    assert len(runs_of_study(runs.study)) == 2


# --- code
NAMES = {
    "taps": "taps layer layer_shapes last_map near_hint near_names tap_next n_hooks",
    "distillation": (
        "Teacher DistillCallback TermColumns distill as_teachers as_norm norm_of plain"
        " unwrapped parameter_counts"
    ),
    "teachers": (
        "teachers TeacherSet fit_teacher phantom_teacher save_model load_model load_teacher"
        " about_model"
    ),
    "fusing": (
        "Collected collect fit_fusion fused hold_out groups_of cross_collect fit_temperature"
        " save_fusion load_fusion attention_figure data_url"
    ),
    "recipes": (
        "Recipe hdkd_teacher_recipe hdkd_student_recipe kdas_recipe hdkd_augment Sharpen Blur"
    ),
    "multiscale": "MultiScale ClipValue ScaledBatches rescaled scaled_side check_scales",
    "tuning": (
        "Range Runs best_of table_of train_run tune ranges_of code_of wanted_ranges knobs_of"
        " with_knobs final score_of runs_of_study"
    ),
    "methods.method": "Method Sum Pass Seen as_method layer_pairs total_loss weight_at",
    "evaluation.runs": (
        "experiment history restart train_pair gain curves_figure new_run write_json write_report"
    ),
    "evaluation.compare": "predictions scores paired cost flops n_params compare_figure",
    "data.polyps": "kvasir_seg pranet write_phantom_polyps",
    "data.endoscopy": "kvasir_v2 hyper_kvasir medmnist_dls write_phantom_endoscopy",
    "data.images": (
        "SPLITS HIDDEN MODALITIES TEST_SEED visible some find_splits class_files list_images as_pil"
        " to_pixels is_grey find_channels read_all read_manifest file_groups cut add_groups"
        " in_range split_off norm_stats augmentations random_tfms TensorGrey ReadImage SetLoaders"
        " make_loaders it_fits fill_memory sample_pixels batch_tfms"
    ),
    "data.phantom": "ReadImage",
    "models.small": "create_model",
    "models.unet": "create_mask_model is_mask_model",
}


@pytest.mark.parametrize("old", NAMES)
def test_old_import_paths_work_and_warn(old):
    module = importlib.import_module(f"kdmedlearn.{old}")
    moved = [n for n in NAMES[old].split() if n not in vars(module)]
    assert moved
    for name in moved:
        with pytest.warns(DeprecationWarning, match=rf"kdmedlearn\.{old}\.{name} is now") as seen:
            found = getattr(module, name)
        where = str(seen[0].message).split()[-1]
        new, _, now = where.rpartition(".")
        assert getattr(sys.modules[new], now) is found and seen[0].filename == __file__


def test_what_was_never_there_is_an_error():
    import kdmedlearn.distillation

    with pytest.raises(
        AttributeError, match="module 'kdmedlearn.distillation' has no .* 'nothing'"
    ):
        kdmedlearn.distillation.nothing
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("kdmedlearn.nothing")


@pytest.mark.slow
def test_new_import_paths_do_not_warn():
    code = """
        import sys, warnings
        warnings.filterwarnings("error", message="kdmedlearn", category=DeprecationWarning)
        import kdmedlearn
        assert not {"torch", "fastai", "timm"} & set(sys.modules)
        from importlib import import_module
        for m in MODULES: import_module(m)
        for name in kdmedlearn.__all__: getattr(kdmedlearn, name)
        from kdmedlearn.tuning import runs, search
        assert runs.Runs and search.tune
    """
    root = Path(kdmedlearn.__file__).parents[1]
    files = [p.relative_to(root) for p in (root / "kdmedlearn").rglob("*.py")]
    modules = [".".join(p.with_suffix("").parts) for p in files if not p.stem.startswith("_")]
    code = "\n".join(line.strip() for line in code.splitlines())
    subprocess.run([sys.executable, "-c", code.replace("MODULES", repr(modules))], check=True)
