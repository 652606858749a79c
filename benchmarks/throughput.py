"""Measures the images per second of `predict` and of its two parts, decoding and the model, in one run.

Usage: python benchmarks/throughput.py [BUNDLE] [--small N] [--large N]

The bound, 1 / (1/decode + 1/model), is the rate without any overlap of the parts. The ratio to it should be at least
0.9; it is above 1 where decoding and computing overlap. Small images are 28 x 28 PNGs. Large images are 12-megapixel
JPEGs, twenty different files that are read repeatedly. The benchmark writes rows like `predict`. It writes the maps of
per-position heads, several files per image, only for the third line.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from probrt.runtime.bundle.bundle import Bundle, find_default_bundle
from probrt.runtime.images.batches import ImageBatch, load_batches
from probrt.runtime.predict.draw_policy import FixedDraws
from probrt.runtime.predict.predictor import Predictor, load_predictor
from probrt.runtime.rows.coverage import choose_thresholds
from probrt.runtime.rows.journal import JournalWriter
from probrt.runtime.rows.maps import MapFolder
from probrt.runtime.rows.pipeline import RowMaker, Run, predict_files


def write_small_images(folder: Path, count: int) -> list[str]:
    """Writes PNGs of 28 x 28 random blobs and returns their paths."""
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(2)).save(folder / f"{i:06d}.png")
    return [str(path) for path in sorted(folder.iterdir())]


def write_large_images(folder: Path, count: int) -> list[str]:
    """Writes JPEGs of 4000 x 3000, at most twenty, and returns `count` paths, repeated where needed."""
    rng = np.random.default_rng(0)
    for i in range(min(count, 20)):
        coarse = Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
        coarse.resize((4000, 3000), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.jpg", quality=90)
    names = [str(path) for path in sorted(folder.iterdir())]
    return list(itertools.islice(itertools.cycle(names), count))


def measure_seconds(function: Callable[[], object]) -> float:
    """Calls the function once and returns its seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def decode_batches(predictor: Predictor, names: list[str]) -> Iterator[ImageBatch]:
    """Decodes batches as `predict` does."""
    batches = load_batches(iter(names), predictor.bundle.manifest.input, predictor.batch_size, predictor.threads)
    return (batch for batch in batches if isinstance(batch, ImageBatch))


def measure(predictor: Predictor, names: list[str], folder: Path, maps: MapFolder | None) -> dict[str, float]:
    """Measures the images per second of decoding alone, of the model alone, and of the whole run."""
    first = next(decode_batches(predictor, names))
    images = np.stack([image.pixels for image in first.images if image.pixels is not None])
    predictor.answer(images)
    rounds = max(3, min(30, len(names) // len(images)))
    model = measure_seconds(lambda: [predictor.answer(images) for _ in range(rounds)]) / (rounds * len(images))
    decode = measure_seconds(lambda: [len(batch.images) for batch in decode_batches(predictor, names)]) / len(names)

    def predict() -> None:
        bundle = predictor.bundle
        journal = JournalWriter(folder / "rows.jsonl")
        rows = RowMaker(
            bundle=bundle,
            plan=predictor.plan,
            thresholds=choose_thresholds(bundle.manifest),
            maps=maps,
        )
        predict_files(
            Run(
                names=iter(names),
                predictor=predictor,
                answering=FixedDraws(predictor),
                rows=rows,
                write=journal.write,
                on_rows=lambda _: None,
            )
        )
        journal.close()

    return {"decode": 1 / decode, "model": 1 / model, "predict": len(names) / measure_seconds(predict)}


def measure_kinds(predictor: Predictor, small: int, large: int) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Measures small images, large images and small images with maps; yields the kind, the number and the rates."""
    per_position = any(head.per_position for head in predictor.bundle.manifest.heads)
    for label, write_images, count, with_maps in (
        ("PNG 28 x 28", write_small_images, small, False),
        ("JPEG 4000 x 3000", write_large_images, large, False),
        ("PNG 28 x 28, maps", write_small_images, small if per_position else 0, True),
    ):
        if count:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "images"
                folder.mkdir()
                maps = MapFolder(Path(scratch) / "maps", "png") if with_maps else None
                yield label, count, measure(predictor, write_images(folder, count), Path(scratch), maps)


def find_bound(rate: dict[str, float]) -> float:
    """Returns the images per second without any overlap of decoding and computing."""
    return 1 / (1 / rate["decode"] + 1 / rate["model"])


def measure_overlap(bundle: Path, small: int, large: int) -> dict[str, float]:
    """Returns the rate of whole runs over that bound, by the kind of image, on the engine of `--engine auto`."""
    kinds = measure_kinds(load_predictor(Bundle.open(bundle)), small, large)
    return {label: rate["predict"] / find_bound(rate) for label, _, rate in kinds}


def main() -> None:
    """Measures small images, large images and small images with maps, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", nargs="?", help="default: the only model in artifacts/")
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--samples", type=int)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle or find_default_bundle())
    predictor = load_predictor(bundle, engine=options.engine, samples=options.samples)
    print(f"{bundle.label}: {predictor.plan.line}, batch {predictor.batch_size}, {predictor.threads} threads")
    print(f"{'images':24} {'decode/s':>9} {'model/s':>9} {'bound/s':>9} {'predict/s':>9} {'ratio':>6}")
    for label, count, rate in measure_kinds(predictor, options.small, options.large):
        bound = find_bound(rate)
        print(
            f"{f'{count} {label}':24} {rate['decode']:9.0f} {rate['model']:9.0f} {bound:9.0f} "
            f"{rate['predict']:9.0f} {rate['predict'] / bound:6.2f}"
        )


if __name__ == "__main__":
    main()
