"""The runtime's test bundle: three heads, a bank of 2 chunks of 4 draws, in every format; small and committed.

The files lie in tests/golden/format-1/shapes; `python tests/golden/write.py` writes them. A test that changes what a
bundle holds copies the folder and writes its manifest anew with `write_manifest`.
"""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from probrt.runtime.bundle import manifest as m
from probrt.runtime.bundle import manifest_file
from probrt.runtime.bundle.bundle import Bundle

GOLDEN = Path(__file__).parent / "golden" / "format-1"
SIDE, CHANNELS, CLASSES, CHUNK, BANK, SEED = 12, 4, 3, 4, 8, 7
LABELS = ["round", "flat", "tall"]


def graph_functions() -> dict[str, Any]:
    """TensorFlow functions of every graph; a draw's weights are a fixed function of (seed, index)."""
    import tensorflow as tf

    sizes = {"filter": (3, 3, 1, CHANNELS), "dense": (CHANNELS, CLASSES + 2), "ink": (1, 1, CHANNELS, 1)}
    rng = np.random.default_rng(0)
    means = {name: rng.normal(0, 0.7, size).astype(np.float32) for name, size in sizes.items()}

    def noise(name: str, seed: Any, index: Any) -> Any:
        count = math.prod(sizes[name])
        place = tf.range(1, count + 1, dtype=tf.float32) * (1.7 + 0.1 * len(name))
        phase = tf.cast(index, tf.float32) * 2.3 + tf.cast(seed, tf.float32) * 0.9
        return tf.reshape(tf.sin(place + phase), sizes[name]) * 1.2

    def weights(seed: Any, index: Any) -> dict[str, Any]:
        return {name: mean + 0.3 * noise(name, seed, index) for name, mean in means.items()}

    def evaluate(images: Any, w: dict[str, Any]) -> dict[str, Any]:
        features = tf.nn.relu(tf.nn.conv2d(images / 255.0, w["filter"], 1, "SAME"))
        out = tf.matmul(tf.reduce_mean(features, [1, 2]), w["dense"])
        p = tf.nn.softmax(3.0 * out[:, :CLASSES])
        ink = tf.clip_by_value(tf.sigmoid(tf.nn.conv2d(features, w["ink"], 1, "SAME") * 4.0 - 1.0), 1e-6, 1 - 1e-6)
        return {
            "shape.mean": p,
            "shape.aleatoric": -tf.reduce_sum(p * tf.math.log(p), -1),
            "slant.mean": out[:, CLASSES : CLASSES + 1],
            "slant.aleatoric": tf.exp(out[:, CLASSES + 1 :]) * 0.1,
            "ink.mean": ink,
            "ink.aleatoric": -ink * tf.math.log(ink) - (1 - ink) * tf.math.log(1 - ink),
        }

    def moments(answers: list[dict[str, Any]]) -> dict[str, Any]:
        mean = {name: tf.add_n([answer[name] for answer in answers]) / float(len(answers)) for name in answers[0]}
        slant = mean["slant.mean"]
        mean["slant.epistemic"] = tf.add_n([(answer["slant.mean"] - slant) ** 2 for answer in answers]) / float(
            len(answers)
        )
        mean["slant.total"] = mean["slant.aleatoric"] + mean["slant.epistemic"]
        p, q = mean["shape.mean"], mean["ink.mean"]
        mean["shape.total"] = -tf.reduce_sum(p * tf.math.log(p), -1)
        mean["ink.total"] = -q * tf.math.log(q) - (1 - q) * tf.math.log(1 - q)
        for head in ("shape", "ink"):
            mean[f"{head}.epistemic"] = mean[f"{head}.total"] - mean[f"{head}.aleatoric"]
        return mean

    def draws(start: int) -> Any:
        fixed = [
            {name: weight.numpy() for name, weight in weights(SEED, i).items()} for i in range(start, start + CHUNK)
        ]
        return lambda images: moments([evaluate(images, w) for w in fixed])

    def sampled(images: Any, seed: Any, start: Any) -> dict[str, Any]:
        return moments([evaluate(images, weights(seed[0], start[0] + i)) for i in range(CHUNK)])

    def sample(images: Any, num_samples: Any, seed: Any) -> dict[str, Any]:
        first = evaluate(images, weights(seed[0], 0))
        names, n = sorted(first), tf.cast(num_samples[0], tf.float32)

        def body(i: Any, sums: Any, square: Any) -> Any:
            now = evaluate(images, weights(seed[0], i))
            return i + 1, [s + now[k] for s, k in zip(sums, names, strict=True)], square + now["slant.mean"] ** 2

        start = (1, [first[k] for k in names], first["slant.mean"] ** 2)
        _, sums, square = tf.while_loop(lambda i, *_: i < num_samples[0], body, start, parallel_iterations=1)
        answer = moments([{k: s / n for k, s in zip(names, sums, strict=True)}])
        answer["slant.epistemic"] = square / n - answer["slant.mean"] ** 2
        answer["slant.total"] = answer["slant.aleatoric"] + answer["slant.epistemic"]
        return answer

    spec = tf.TensorSpec([None, SIDE, SIDE, 1], tf.float32, "images")
    specs = [tf.TensorSpec([1], tf.int32, name) for name in ("num_samples", "seed", "start")]
    return {
        "mean": (lambda images: evaluate(images, means), [spec]),
        "draws-00": (draws(0), [spec]),
        "draws-01": (draws(CHUNK), [spec]),
        "sampled": (sampled, [spec, specs[1], specs[2]]),
        "sample": (sample, [spec, specs[0], specs[1]]),
    }


def write_graphs(folder: Path, scratch: Path) -> None:
    """Every file of the bundle but its manifest."""
    import tensorflow as tf
    import tf2onnx

    functions = graph_functions()
    for name, (function, signature) in functions.items():
        if name == "sample":
            continue
        traced = tf.function(function, input_signature=signature)
        module = tf.Module()
        module.f = traced
        tf.saved_model.save(module, str(scratch / name), signatures={"serving_default": traced})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(scratch / name))
        (folder / f"{name}.tflite").write_bytes(converter.convert())
        tf2onnx.convert.from_function(
            traced, input_signature=signature, opset=18, output_path=str(folder / f"{name}.onnx")
        )
    module = tf.Module()
    module.sample = tf.function(functions["sample"][0], input_signature=functions["sample"][1])
    module.mean = tf.function(functions["mean"][0], input_signature=functions["mean"][1])
    tf.saved_model.save(module, str(folder), signatures={"sample": module.sample, "mean": module.mean})


def write_manifest(folder: Path, version: int = 1, **changes: Any) -> Bundle:
    """`probrt.json` for the files that lie in `folder`."""
    maps = {q: [SIDE, SIDE, 1] for q in ("mean", "total", "aleatoric", "epistemic")}
    heads = [
        m.HeadRecord(
            name="shape",
            likelihood="categorical",
            kind="class",
            combine="entropy",
            labels=LABELS,
            outputs={"mean": [CLASSES], "total": [], "aleatoric": [], "epistemic": []},
        ),
        m.HeadRecord(
            name="slant",
            likelihood="normal",
            kind="real",
            combine="variance",
            labels=["slant"],
            unit="rad",
            outputs={q: [1] for q in ("mean", "total", "aleatoric", "epistemic")},
        ),
        m.HeadRecord(
            name="ink",
            likelihood="bernoulli",
            kind="binary",
            combine="entropy",
            per_position=True,
            labels=["ink"],
            outputs=maps,
        ),
    ]
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != m.NAME):
        name = path.relative_to(folder).as_posix()
        format = {".tflite": "tflite", ".onnx": "onnx"}.get(path.suffix, "savedmodel")
        variant = name.partition(".")[0].partition("-")[0] if format != "savedmodel" else "sampled"
        first = int(name[6:8]) * CHUNK if variant == "draws" else 0
        draws = (first, CHUNK) if variant == "draws" or (variant == "sampled" and format != "savedmodel") else None
        data = path.read_bytes()
        files.append(
            m.FileRecord(
                path=name,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                format=format,
                variant=variant,
                draws=draws,
            )
        )
    conformal = [m.Conformal(coverage=0.9, method="lac", threshold=0.8)]
    fields: dict[str, Any] = {
        "probrt": "0.1.0",
        "model": m.ModelRecord(name="shapes", version=version),
        "input": m.Input(shape=[SIDE, SIDE, 1], colour="grey", resize="bilinear", range=(0, 255)),
        "heads": heads,
        "files": files,
        "posterior": m.PosteriorRecord(seed=SEED, order=list(range(BANK)), chunk=CHUNK, samples=BANK, max_samples=64),
        "calibration": [m.Calibration(head="shape", conformal=conformal)],
        "provenance": m.Provenance(training={}, export={}),
    }
    (folder / m.NAME).write_bytes(manifest_file.encode(m.Manifest(**{**fields, **changes})))
    return Bundle.open(folder)
