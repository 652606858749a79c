"""Images per second of `predict`, against what its parts allow: decode-only and model-only in the same run.

Usage: python benchmarks/throughput.py [BUNDLE] [--small N] [--large N]

The bound is 1 / (1/decode + 1/model), what one would get with no overlap at all; the ratio to it should be
0.9 or more, and above 1 where decoding and computing overlap. Small: 28 x 28 PNGs. Large: 12-megapixel
JPEGs (twenty different files, read again and again). The rows are written as users get them; the maps of
per-position heads, several files per image, are left out of the first two lines and written in the third.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from probrt.runtime.bundle.bundle import Bundle, default_bundle
from probrt.runtime.images.loader import Batch, Loader
from probrt.runtime.predict.adaptive import Fixed
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.rows.head_rows import promises
from probrt.runtime.rows.maps import MapFolder
from probrt.runtime.rows.pipeline import RowMaker, run
from probrt.runtime.rows.writers import open_writer


def small_images(folder: Path, count: int) -> list[str]:
    """PNGs of 28 x 28 random blobs."""
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(2)).save(folder / f"{i:06d}.png")
    return [str(path) for path in sorted(folder.iterdir())]


def large_images(folder: Path, count: int) -> list[str]:
    """JPEGs of 4000 x 3000."""
    rng = np.random.default_rng(0)
    for i in range(min(count, 20)):
        coarse = Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
        coarse.resize((4000, 3000), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.jpg", quality=90)
    names = [str(path) for path in sorted(folder.iterdir())]
    return list(itertools.islice(itertools.cycle(names), count))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def batches(predictor: Predictor, names: list[str]) -> Iterator[Batch]:
    """Decoded batches, through the loader that `predict` uses."""
    loader = Loader(iter(names), predictor.bundle.manifest.input, predictor.batch_size, predictor.threads)
    done = 0
    for batch in loader:
        if isinstance(batch, Batch):
            done += len(batch.images)
            loader.done(done)
            yield batch


def measure(predictor: Predictor, names: list[str], folder: Path, maps: MapFolder | None) -> dict[str, float]:
    """Images per second of decoding alone, of the model alone, and of the whole run."""
    sample = next(batches(predictor, names))
    images = np.stack([image.pixels for image in sample.images if image.pixels is not None])
    predictor.answer(images)
    rounds = max(3, min(30, len(names) // len(images)))
    model = seconds(lambda: [predictor.answer(images) for _ in range(rounds)]) / (rounds * len(images))
    decode = seconds(lambda: [len(batch.images) for batch in batches(predictor, names)]) / len(names)

    def whole() -> None:
        writer = open_writer(str(folder / "rows.jsonl"), predictor.bundle.manifest, append=False)
        rows = RowMaker(predictor.bundle, predictor.plan.engine.name, maps, promises(predictor.bundle.manifest))
        run(iter(names), predictor, Fixed(predictor), rows, writer, lambda _: None)
        writer.close()

    return {"decode": 1 / decode, "model": 1 / model, "predict": len(names) / seconds(whole)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", nargs="?", help="default: the only model in artifacts/")
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--samples", type=int)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle or default_bundle())
    predictor = bundle.predictor(engine=given.engine, samples=given.samples)
    print(f"{bundle.label}: {predictor.plan.line}, batch {predictor.batch_size}, {predictor.threads} threads")
    print(f"{'images':24} {'decode/s':>9} {'model/s':>9} {'bound/s':>9} {'predict/s':>9} {'ratio':>6}")
    per_position = any(head.per_position for head in bundle.manifest.heads)
    for label, make, count, maps in (
        ("PNG 28 x 28", small_images, given.small, False),
        ("JPEG 4000 x 3000", large_images, given.large, False),
        ("PNG 28 x 28, maps", small_images, given.small if per_position else 0, True),
    ):
        if count:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "images"
                folder.mkdir()
                rate = measure(
                    predictor,
                    make(folder, count),
                    Path(scratch),
                    MapFolder(Path(scratch) / "maps", "png") if maps else None,
                )
            bound = 1 / (1 / rate["decode"] + 1 / rate["model"])
            print(
                f"{f'{count} {label}':24} {rate['decode']:9.0f} {rate['model']:9.0f} {bound:9.0f} "
                f"{rate['predict']:9.0f} {rate['predict'] / bound:6.2f}"
            )


if __name__ == "__main__":
    main()
