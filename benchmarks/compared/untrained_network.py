"""Exports networks of the speed benchmarks with the weights they begin with: a graph takes as long with any weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compared.digits_network import CLASSES, DRAWS


def export_untrained_network(folder: Path, side: int, widths: Sequence[int], novelty: bool = False) -> Path:
    """Exports 32 draws of a network for pictures of this side, in TFLite and ONNX; returns the bundle."""
    import keras

    from probrt.exporter.export import export
    from probrt.exporter.plan import ExportRequest
    from probrt.runtime.bundle.manifest import Input
    from probrt.trainer import heads, layers, store
    from probrt.trainer.calibration.novelty import add_novelty
    from probrt.trainer.data import Examples
    from probrt.trainer.layers.split import HeadSplit
    from probrt.trainer.model import Model

    name = f"net-{side}-" + "-".join(map(str, widths)) + ("-novelty" if novelty else "")
    images = features = keras.Input((side, side, 1), name="images")
    for index, width in enumerate(widths):
        features = layers.Conv2D(width, 3, activation="relu", name=f"conv{index}")(features)
        features = keras.layers.MaxPooling2D(2)(features)
    head = heads.Categorical(name="digit", labels=[str(label) for label in range(CLASSES)])
    split = HeadSplit([(head.name, head.channels, 0)], name="heads")
    network = keras.Model(images, split(layers.Conv2D(split.channels, 1, name="final")(features)), name="network")
    model = Model(name, Input(shape=[side, side, 1], colour="none", resize="none", range=(-4.0, 4.0)), (head,), network)
    if novelty:
        training, calibration = (
            Examples(tuple(map(str, range(count))), make_pictures(count, side), {}) for count in (4000, 400)
        )
        model = add_novelty(model, training, calibration, seed=0)  # of 253 prototypes
    store.save_model(model, folder / f"model_{name}", images=make_pictures(64, side), provenance={})
    request = ExportRequest(draws=DRAWS, select=False, formats=("tflite", "onnx"), variants=("mean", "draws"))
    export(folder / f"model_{name}", folder, request)
    return folder / name


def make_pictures(count: int, side: int) -> np.ndarray:
    """Makes random pictures [count, side, side, 1]."""
    return np.random.default_rng(0).normal(size=(count, side, side, 1)).clip(-4, 4).astype(np.float32)
