"""Builds and fits probabilistic multi-head conv models."""

import importlib
from types import ModuleType

if not __name__.startswith("probrt."):
    raise ImportError("import probrt.trainer, not trainer: the bare folder would be a second copy of every class")

_SHORTCUTS = {
    "posteriors": "probrt.trainer.variational.posteriors",
    "priors": "probrt.trainer.variational.priors",
}


def __getattr__(name: str) -> ModuleType:
    if name in _SHORTCUTS:
        return importlib.import_module(_SHORTCUTS[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
