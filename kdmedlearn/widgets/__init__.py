"Widgets that teach and tune, for JupyterLab."

from importlib import import_module

# name -> module, or "module:name in it"
_home = {
    "Panel": "panel",
    "temperature": "soft_targets",
    "loss_weights": "weights",
    "tuning_bench": "bench",
    "relation_attention": "attention",
    "kdas_attention": "attention",
    "mbcsa_attention": "attention",
    "compare": "disagreement:compare_images",
    "film": "filming",
    "plane": "filming",
    "phantom_film": "filming",
    "wave_film": "filming",
    "live_students": "student",
    "student_page": "student",
    "question": "asking",
    "check": "exercise",
}
__all__ = [*_home]


def __getattr__(name):
    if name in _home:
        module, _, inner = _home[name].partition(":")
        return getattr(import_module(f"{__name__}.{module}"), inner or name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
