"""The SavedModel's signatures; the Monte Carlo sampling is inside them.

They are stateless: (seed, index) names every draw. A row depends only on itself: a bad row, one with a value that is
not finite or lies outside the input's range, answers NaN and does not affect the others.
"""

from __future__ import annotations

import tensorflow as tf

from probrt.exporter.batch_rows import clear_rows, ensure_sides, first_rows, good_rows, pad_empty, set_nan_rows
from probrt.exporter.exportable import Exportable
from probrt.exporter.graphs import GraphFunction, NamedTensors, compile_function, evaluate_mean, images_spec
from probrt.exporter.pictures import decode_pictures
from probrt.exporter.sampling import SamplingSignatures
from probrt.exporter.stored_draws import StoredDraws
from probrt.runtime.bundle.manifest import Input, PosteriorRecord
from probrt.trainer.variational.handlers import MeanHandler, use_handler


def make_signatures(
    model: Exportable, posterior: PosteriorRecord | None, stored: StoredDraws | None
) -> dict[str, GraphFunction]:
    """Makes the signatures by name; a model without random weights has one pass and no signature that samples.

    stored: the draws of `serving_default`; None to make them in the graph.
    """
    mean = make_mean_signature(model)
    if posterior is None:
        signatures = {"serving_default": make_mean_signature(model), "mean": mean}
        default = mean
    else:
        sampling = SamplingSignatures(model, posterior, stored)
        default = sampling.serving_default()
        signatures = {
            "serving_default": default,
            "sample": sampling.sample(),
            "draws": sampling.draws(),
            "mean": mean,
        }
    if is_encodable(model.input):
        signatures["encoded"] = make_encoded_signature(model, default)
    return signatures


def make_mean_signature(model: Exportable) -> GraphFunction:
    """Makes the signature of one pass at the posterior mean."""

    def mean(images: tf.Tensor) -> NamedTensors:
        rows, images = tf.shape(images)[0], pad_empty(ensure_sides(model, images))
        good = good_rows(images, model.input)
        with use_handler(MeanHandler()):
            outputs = evaluate_mean(model, clear_rows(images, good))
        return first_rows(set_nan_rows(outputs, good), rows)

    return compile_function(mean, [images_spec(model)])


def make_encoded_signature(model: Exportable, default: GraphFunction) -> GraphFunction:
    """Makes the signature that decodes and resizes PNG or JPEG bytes and calls `default`; unreadable ones are NaN."""

    def encoded(image_bytes: tf.Tensor) -> NamedTensors:
        return default(decode_pictures(image_bytes, model.input))

    return compile_function(encoded, [tf.TensorSpec([None], tf.string, name="image_bytes")])


def is_encodable(input: Input) -> bool:
    """Whether a graph can decode pictures of this input: fixed size, two dimensions, 8 bits."""
    return len(input.shape) == 3 and None not in input.shape and input.colour != "none" and input.range == (0, 255)
