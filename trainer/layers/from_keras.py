"""Makes deterministic Keras models Bayesian, by MOPED (Krishnan, Subedar and Tickoo 2020)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from probrt.trainer import layers
from probrt.trainer.keras_internals import flatten_layers, is_functional
from probrt.trainer.variational.posteriors import Posterior
from probrt.trainer.variational.posteriors.location_scale import NormalPosterior
from probrt.trainer.variational.priors import Prior
from probrt.trainer.variational.priors.families import MopedPrior
from probrt.trainer.variational.random_weight import RandomWeight

_WINDOW = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias")
_KINDS: dict[type, tuple[type, tuple[str, ...]]] = {
    keras.layers.Conv1D: (layers.Conv1D, ("filters", "groups", *_WINDOW)),
    keras.layers.Conv2D: (layers.Conv2D, ("filters", "groups", *_WINDOW)),
    keras.layers.Conv3D: (layers.Conv3D, ("filters", "groups", *_WINDOW)),
    keras.layers.Conv1DTranspose: (layers.Conv1DTranspose, ("filters", "output_padding", *_WINDOW)),
    keras.layers.Conv2DTranspose: (layers.Conv2DTranspose, ("filters", "output_padding", *_WINDOW)),
    keras.layers.Conv3DTranspose: (layers.Conv3DTranspose, ("filters", "output_padding", *_WINDOW)),
    keras.layers.DepthwiseConv2D: (layers.DepthwiseConv2D, ("depth_multiplier", *_WINDOW)),
    keras.layers.SeparableConv2D: (layers.SeparableConv2D, ("filters", "depth_multiplier", *_WINDOW)),
    keras.layers.Dense: (layers.Dense, ("units", "use_bias")),
}


def to_bayesian(
    model: keras.Model,
    *,
    pattern: str | None = None,
    last: int | None = None,
    delta: float = 0.1,
    posterior: Posterior = NormalPosterior(),
    prior: Prior = MopedPrior(),
    bias: bool = False,
    estimator: str = "auto",
) -> keras.Model:
    """Returns the same network with probabilistic layers, each kernel's posterior around its trained weight w.

    Posterior mean w and standard deviation delta |w|; prior Normal(w, 1) unless another is given.
    Regularizers and constraints of the layers are left out; the prior takes their place.

    model: Functional or Sequential, keras.applications included; nested models are followed.
    pattern: only layers whose name matches this regular expression. last: only the last k of them.
    bias: biases become random too. Raises ValueError where nothing can become Bayesian.
    """
    if not delta > 0:
        raise ValueError(f"delta is {delta}, must be above 0: the standard deviation is delta |w|")
    if not (isinstance(model, keras.Sequential) or is_functional(model)):
        raise ValueError(f"{model.name} is neither Functional nor Sequential; rebuild it as one of the two")
    candidates = [layer for layer in flatten_layers(model) if type(layer) in _KINDS]
    if not candidates:
        kinds = ", ".join(kind.__name__ for kind in _KINDS)
        raise ValueError(f"{model.name} has no layer that can become Bayesian ({kinds})")
    chosen = [layer for layer in candidates if pattern is None or re.search(pattern, layer.name)]
    if not chosen:
        raise ValueError(f"pattern {pattern!r} matches none of {', '.join(layer.name for layer in candidates)}")
    chosen = chosen[-last:] if last else chosen
    families = {
        "kernel_posterior": posterior,
        "kernel_prior": prior,
        "bias_posterior": posterior if bias else None,
        "bias_prior": prior if bias else None,
        "estimator": estimator,
    }
    chosen_ids = {id(layer) for layer in chosen}
    pairs: list[tuple[keras.Layer, keras.Layer]] = []

    def replace(layer: keras.Layer) -> keras.Layer:
        if id(layer) in chosen_ids:
            new = _make_probabilistic(layer, families)
        else:
            new = layer.__class__.from_config(layer.get_config())
        pairs.append((layer, new))
        return new

    bayesian = keras.models.clone_model(model, clone_function=replace, recursive=True)
    for old, new in pairs:
        if id(old) in chosen_ids:
            _transfer_weights(old, new, delta)
        elif old.weights:
            new.set_weights(old.get_weights())
    return bayesian


def _make_probabilistic(layer: keras.Layer, families: Mapping[str, Any]) -> keras.Layer:
    kind, options = _KINDS[type(layer)]
    config = layer.get_config()
    if config.get("data_format") == "channels_first":
        raise ValueError(f"{layer.name}: channels_first cannot become Bayesian; rebuild the model with channels_last")
    settings = {name: config[name] for name in options}
    extra = settings.get("output_padding")
    if isinstance(extra, list | tuple):
        if len(set(extra)) > 1:
            raise ValueError(f"{layer.name}: output_padding {extra} must be the same on all sides")
        settings["output_padding"] = extra[0]
    activation = keras.activations.deserialize(config["activation"])
    return kind(name=layer.name, activation=activation, dtype=layer.dtype_policy, **settings, **families)


def _transfer_weights(old: keras.Layer, new: keras.Layer, delta: float) -> None:
    if isinstance(old, keras.layers.SeparableConv2D):
        _set_weight(new.kernel, _flatten_depthwise(old.depthwise_kernel), delta)
        _set_weight(new.pointwise, np.asarray(old.pointwise_kernel), delta)
    elif isinstance(old, keras.layers.DepthwiseConv2D):
        _set_weight(new.kernel, _flatten_depthwise(old.kernel), delta)
    else:
        kernel = np.asarray(old.kernel)
        _set_weight(new.kernel, np.swapaxes(kernel, -1, -2) if "Transpose" in type(old).__name__ else kernel, delta)
    if new.bias is not None:
        _set_weight(new.bias, np.asarray(old.bias), delta)


def _set_weight(weight: RandomWeight | keras.Variable, trained: np.ndarray, delta: float) -> None:
    if not isinstance(weight, RandomWeight):
        weight.assign(trained)
        return
    # A weight of exactly 0 (a fresh bias) would have no spread at all.
    scale = np.maximum(delta * np.abs(trained), 1e-3 * delta)
    for name, value in weight.posterior.parameters_at(trained, scale).items():
        weight.parameters[name].assign(value)
    weight.anchor_prior(trained)


def _flatten_depthwise(kernel: keras.Variable) -> np.ndarray:
    """Reshapes [height, width, in, multiplier] to [height, width, 1, in * multiplier]."""
    values = np.asarray(kernel)
    return values.reshape(*values.shape[:2], 1, -1)
