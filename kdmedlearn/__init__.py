"Knowledge distillation for medical images: learn it in Jupyter, use it with fastai."

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.metadata import PackageNotFoundError, version as _version

try:
    __version__ = _version("kdmedlearn")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

# fastai compiles two functions with torch.jit.script on import, which PyTorch now warns of; nobody
# here can change it.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)

# Names at the top, fetched when asked for: `import kdmedlearn.methods.response` stays plain
# PyTorch, without fastai.
_home = {
    "distill": "train.distillation",
    "DistillCallback": "train.distillation",
    "Teacher": "core.teacher",
    "Response": "methods.response",
    "HDKD": "methods.hdkd",
    "KDAS": "methods.kdas",
    "BernoulliKL": "methods.pixels",
    "PixelKL": "methods.pixels",
    "Method": "core.method",
    "Feature": "methods.feature",
    "Similarity": "methods.relation",
    "RKD": "methods.relation",
    "Ensemble": "methods.fusion",
    "RelationAttention": "methods.fusion",
    "GuidedStudent": "models.guided",
    "phantom": "data.phantom",
    "phantom_dls": "data.phantom",
    "image_dls": "data.images",
    "mask_dls": "data.masks",
    "kvasir_v2": "data.sets.endoscopy",
    "hyper_kvasir": "data.sets.endoscopy",
    "medmnist_dls": "data.sets.endoscopy",
    "compare": "evaluation.compare",
    "PseudoLabels": "methods.controls",
    "SoftMasks": "methods.soft_masks",
    "DKD": "methods.decoupled",
    "NKD": "methods.decoupled",
    "DIST": "methods.dist",
    "Standardised": "methods.standardised",
    "CWD": "methods.channels",
    "CWDFeature": "methods.channels",
    "PKD": "methods.pearson",
    "MGD": "methods.masked",
    "OFA": "methods.ofa",
    "SimKD": "methods.simkd",
    "reuse_classifier": "methods.simkd",
    "TfKD": "methods.controls",
    "cache_teacher": "train.cache",
    "with_unlabelled": "data.unlabelled",
    "fit_steps": "train.budget",
}
__all__ = [*_home]


def __getattr__(name):
    if name in _home:
        return getattr(import_module(f"{__name__}.{_home[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])


# --- code and files of version 0.1.0
# Modules it had, which are gone or have given names away -> where to look for these.
_moved = {
    "taps": "core.taps core.checks",
    "distillation": "train.distillation core.teacher core.outputs",
    "teachers": "train.teachers models.weights",
    "fusing": "train.fusing data.splits evaluation.calibration viz.figures viz.pictures",
    "recipes": "train.recipes data.augment",
    "multiscale": "train.callbacks",
    "tuning": "tuning.search tuning.runs core.method core.parameters",
    "methods.method": "core.method core.outputs core.parameters core.step",
    "methods.response": "core.parameters",
    "methods.feature": "core.outputs",
    "evaluation.runs": "experiments.experiment experiments.report data.loaders viz.figures",
    "evaluation.compare": "evaluation.classes evaluation.cost viz.figures",
    "data.polyps": "data.sets.polyps",
    "data.endoscopy": "data.sets.endoscopy",
    "data.images": "data.loaders data.splits data.augment data.tables data.files data.reading",
    "data.phantom": "data.phantom",
    "models.small": "models.registry",
    "models.unet": "models.registry",
}
_renamed = {
    "methods.method.Seen": "Outputs",
    "methods.response.check_T": "check_temperature",
    "evaluation.runs.train_pair": "train_arms",
    "tuning.knobs_of": "params_of",
    "tuning.with_knobs": "with_params",
    "data.phantom.ReadImage": "ReadShot",
}


def _former(old, name):
    "What version 0.1.0 had as `name` in its module `old`, from where it is now, with a warning."
    now = _renamed.get(f"{old}.{name}", name)
    homes = [] if name.startswith("_") else _moved[old].split()
    for home in homes if f"{old}.{name}" not in homes else ():
        module = import_module(f"{__name__}.{home}")
        if now in vars(module):
            was, new = f"{__name__}.{old}.{name}", f"{__name__}.{home}.{now}"
            warnings.warn(f"{was} is now {new}", DeprecationWarning, stacklevel=3)
            return vars(module)[now]
    raise AttributeError(f"module {__name__ + '.' + old!r} has no attribute {name!r}")


class _FormerLoader(SourceFileLoader):
    "Loads a module of `_moved`, or an empty one where it is gone; it finds its former names too."

    def exec_module(self, module):
        if self.path:
            super().exec_module(module)
        old = module.__name__.removeprefix(f"{__name__}.")
        module.__getattr__ = lambda name: _former(old, name)


class _FormerFinder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if not name.startswith(f"{__name__}.") or name.removeprefix(f"{__name__}.") not in _moved:
            return None
        spec = PathFinder.find_spec(name, path) or ModuleSpec(name, None)
        spec.loader = _FormerLoader(name, spec.origin)
        return spec


if not any(getattr(f, "__name__", "") == "_FormerFinder" for f in sys.meta_path):
    sys.meta_path.insert(0, _FormerFinder)
