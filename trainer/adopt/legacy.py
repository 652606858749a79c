"""Builds a legacy model from the user's code and loads its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from probrt.runtime.errors import ConfigError, DataError, one_line
from probrt.runtime.functions import load_function


def build_legacy_model(builder: str) -> Any:
    """Returns the tf_keras model that the function `module:function` builds.

    Searches the current folder for the module first. Raises ConfigError if there is no such function, or if it
    returns something else than a built Functional or Sequential model.
    """
    # TFP's layers need the legacy Keras, whatever `tf.keras` is in this process.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    try:
        build = load_function(builder, Path.cwd())
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{builder}: no such function ({one_line(error)}); name it as module:function") from None
    model = build()
    if not hasattr(model, "_nodes_by_depth"):
        raise ConfigError(
            f"{builder}: gives a {type(model).__name__}, not a built Functional or Sequential tf_keras model"
        )
    return model


def load_legacy_weights(legacy: Any, path: Path) -> None:
    """Loads a `save_weights` file into a legacy model; raises DataError if it does not fit or changes nothing."""
    before = [np.array(value) for value in legacy.get_weights()]
    try:
        legacy.load_weights(str(path))
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise DataError(f"{path}: these weights do not fit the model ({one_line(error)[:200]})") from None
    # Loading by name can succeed without changing any tensor.
    if before and all(np.array_equal(old, new) for old, new in zip(before, legacy.get_weights(), strict=True)):
        raise DataError(f"{path}: loading changed no weight; save them again with save_weights")
