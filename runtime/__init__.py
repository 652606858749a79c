"""Predicts with a probrt bundle: needs NumPy and an engine, and TensorFlow only for its own engine.

The public names load their modules at their first use, so that the command line starts quickly.
"""

import importlib
from typing import TYPE_CHECKING, Any

if not __name__.startswith("probrt."):
    raise ImportError("import probrt.runtime, not runtime: the bare folder would be a second copy of every class")

if TYPE_CHECKING:
    from probrt.runtime.bundle.bundle import Bundle
    from probrt.runtime.engines.table import Engine
    from probrt.runtime.images.decode import read_image
    from probrt.runtime.predict.answer import Answer, Prediction
    from probrt.runtime.predict.predictor import load_predictor

__all__ = ["Answer", "Bundle", "Engine", "Prediction", "load_predictor", "read_image"]

_MODULES = {
    "Answer": "predict.answer",
    "Bundle": "bundle.bundle",
    "Engine": "engines.table",
    "Prediction": "predict.answer",
    "load_predictor": "predict.predictor",
    "read_image": "images.decode",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
