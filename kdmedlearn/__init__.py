"Knowledge distillation for medical images: learn it in Jupyter, use it with fastai."

import warnings
from importlib import import_module
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
}
__all__ = [*_home]


def __getattr__(name):
    if name in _home:
        return getattr(import_module(f"{__name__}.{_home[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
