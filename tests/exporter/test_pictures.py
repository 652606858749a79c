"""The graph that decodes pictures gives the pixels of `read_image`, or NaN in that row."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from damage import encode_image, halve_jpegs, make_grey_png, make_photo
from PIL import Image

from probrt.exporter.picture_forms import encode_forms
from probrt.exporter.pictures import decode_pictures
from probrt.runtime.bundle.manifest import Input
from probrt.runtime.images.decode import read_image

GREY = Input(shape=[24, 20, 1], colour="grey", resize="bilinear", range=(0, 255))
RGB = Input(shape=[24, 20, 3], colour="rgb", resize="bilinear", range=(0, 255))
FIXED = Input(shape=[96, 128, 3], colour="rgb", resize="none", range=(0, 255))
Decode = Callable[[list[bytes]], np.ndarray]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(GREY, id="grey", marks=pytest.mark.slow),
        pytest.param(RGB, id="rgb"),
        pytest.param(FIXED, id="fixed", marks=pytest.mark.slow),
    ],
)
def decoding(request: pytest.FixtureRequest) -> tuple[Input, Decode]:
    input = request.param
    signature = [tf.TensorSpec([None], tf.string)]
    graph = tf.function(lambda contents: decode_pictures(contents, input), input_signature=signature)
    return input, lambda files: graph(tf.constant(files, tf.string)).numpy()


def make_exif(orientation: int, order: str) -> bytes:
    """EXIF data with three entries, the orientation in the middle."""
    header = b"II*\0" if order == "<" else b"MM\0*"
    entries = [(0x100, 3, 1, 5), (0x112, 3, 1, orientation), (0x11A, 3, 1, 7)]
    body = b"".join(struct.pack(order + "HHIHH", *entry, 0) for entry in entries)
    return b"Exif\0\0" + header + struct.pack(order + "IH", 8, len(entries)) + body + bytes(4)


@pytest.mark.slow
def test_every_form_is_what_read_image_reads(decoding: tuple[Input, Decode]) -> None:
    input, decode = decoding
    photo = make_photo()
    files = encode_forms(np.asarray(photo)) + encode_forms(np.asarray(photo.convert("L"))[..., np.newaxis])
    files += [encode_image(photo, "JPEG", quality=quality, subsampling=i) for quality in (5, 95) for i in range(3)]
    files += [encode_image(photo, "JPEG", restart_marker_rows=1), encode_image(photo, "JPEG", restart_marker_blocks=3)]
    for orientation in range(1, 9):
        for order in "<>":
            upright = photo if orientation < 5 else photo.transpose(Image.Transpose.ROTATE_90)
            files.append(encode_image(upright, "JPEG", exif=make_exif(orientation, order)))
    decoded = decode(files)
    for file, pixels in zip(files, decoded, strict=True):
        assert np.abs(pixels - read_image(file, input)).max() <= (1 if input.resize == "bilinear" else 0)


def test_files_that_are_read_otherwise_are_nan_in_their_row(decoding: tuple[Input, Decode]) -> None:
    input, decode = decoding
    photo = make_photo()
    good = encode_image(photo)
    turned = Image.Exif()
    turned[0x112] = 6
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    cropped = photo.crop((0, 0, 5, 5))
    bad = [
        b"",
        b"\xff",
        b"no picture",
        good[:-9],
        encode_image(photo, "JPEG")[:-300],
        *(encode_image(photo, format) for format in ("GIF", "BMP", "WEBP", "TIFF", "PPM")),
        encode_image(photo.convert("CMYK"), "JPEG"),
        encode_image(deep),
        encode_image(photo, exif=turned),
        encode_image(photo.convert("1"), transparency=255),
        encode_image(photo, "JPEG", xmp=b'<x tiff:Orientation="6"/>'),
        encode_image(photo, "JPEG", exif=make_exif(6, "<")[:6] + b"what is this"),
        make_grey_png(40_000_000, 1, b""),
        make_grey_png(9_000, 9_000, b""),
    ]
    bad += [encode_image(cropped)] if input.resize == "none" else []
    decoded = decode([file for damaged in bad for file in (good, damaged)])
    for i, file in enumerate(bad):
        assert np.isnan(decoded[2 * i + 1]).all(), file[:40]
        np.testing.assert_array_equal(decoded[2 * i], decoded[0])
    assert np.isfinite(decoded[0]).all()


@pytest.mark.slow
def test_half_jpegs_are_nan(decoding: tuple[Input, Decode]) -> None:
    _, decode = decoding
    # Nothing in a graph sees the lack of a progressive picture's middle.
    halves = {name: data for name, data in halve_jpegs() if not ("progressive" in name and "without" in name)}
    for name, pixels in zip(halves, decode(list(halves.values())), strict=True):
        assert np.isnan(pixels).all(), name
