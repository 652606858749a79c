"""Every rule of `images.decode` on real files, and damaged files, which must not get through."""

import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError
from probrt.runtime.images.decode import decode, read_bytes, read_image

GREY = Input(shape=[6, 8, 1], colour="grey", resize="bilinear", range=(0, 255))
RGB = Input(shape=[6, 8, 3], colour="rgb", resize="bilinear", range=(0, 255))
ANY = Input(shape=[None, None, 1], colour="grey", resize="none", range=(0, 255))
DEEP = Input(shape=[6, 8, 1], colour="grey", resize="bilinear", range=(0, 65535))
pixels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def encode_image(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP"])
def test_lossless_formats_give_their_pixels(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    values = read_image(encode_image(Image.fromarray(pixels), format, **options), GREY)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[..., 0], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_turns_upright(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    a = pixels
    stored = {
        1: a,
        2: a[:, ::-1],
        3: a[::-1, ::-1],
        4: a[::-1],
        5: a.T,
        6: a.T[::-1],
        7: a.T[::-1, ::-1],
        8: a.T[:, ::-1],
    }
    data = encode_image(Image.fromarray(np.ascontiguousarray(stored[orientation])), format, exif=exif)
    np.testing.assert_array_equal(read_image(data, ANY)[..., 0], a)


def test_alpha_is_composited_on_white() -> None:
    image = Image.new("RGBA", (8, 6), (100, 0, 50, 51))
    np.testing.assert_array_equal(read_image(encode_image(image), RGB)[0, 0], [224, 204, 214])
    assert read_image(encode_image(Image.new("LA", (8, 6), (9, 0))), GREY).min() == 255


def test_palettes_become_their_colours() -> None:
    image = Image.new("P", (8, 6), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    np.testing.assert_array_equal(read_image(encode_image(image), RGB)[2, 3], [10, 200, 30])
    transparent = read_image(encode_image(image, transparency=1), RGB)
    np.testing.assert_array_equal(transparent[2, 3], [255, 255, 255])


def test_cmyk_becomes_rgb_and_grey_is_its_luma() -> None:
    data = encode_image(Image.new("CMYK", (8, 6), (255, 0, 0, 0)), "TIFF")
    np.testing.assert_array_equal(read_image(data, RGB)[0, 0], [0, 255, 255])
    assert read_image(data, GREY)[0, 0, 0] == round(0.587 * 255 + 0.114 * 255)


def test_one_bit_is_black_and_white() -> None:
    assert set(np.unique(read_image(encode_image(Image.fromarray(pixels > 100)), GREY))) == {0, 255}


def test_sixteen_bits_are_scaled_to_the_range_of_the_model() -> None:
    deep = (pixels.astype(np.uint16) * 257) + 100
    data = encode_image(Image.fromarray(deep))
    np.testing.assert_array_equal(read_image(data, GREY)[..., 0], pixels)
    np.testing.assert_array_equal(read_image(data, DEEP)[..., 0], deep)
    np.testing.assert_array_equal(read_image(encode_image(Image.fromarray(pixels)), DEEP)[..., 0], pixels * 257.0)


def test_bilinear_stretches_antialiased_and_rounds_to_integers() -> None:
    big = np.random.default_rng(0).integers(0, 256, (60, 40), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(big).resize((8, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read_image(encode_image(Image.fromarray(big)), GREY)[..., 0], expected)
    shrunk = read_image(encode_image(Image.fromarray(big.astype(np.uint16) * 3)), DEEP)
    np.testing.assert_array_equal(shrunk, np.rint(shrunk))
    # Without antialiasing most of a checkerboard's average would be lost.
    board = np.indices((60, 80)).sum(0) % 2 * 255
    assert np.ptp(read_image(encode_image(Image.fromarray(board.astype(np.uint8))), GREY)) < 20


def test_no_resize_refuses_another_size() -> None:
    other_size = Input(shape=[6, 9, 1], colour="grey", resize="none", range=(0, 255))
    with pytest.raises(ImageError, match="8 x 6 pixels; the model takes 9 x 6"):
        read_image(encode_image(Image.fromarray(pixels)), other_size)


def test_arrays_are_raw_values_of_the_models_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels.astype(np.float64))
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", GREY)[..., 0], pixels)
    for array, reason in (
        (pixels[:5], r"shape \[5, 8, 1\]; the model takes \[6, 8, 1\]"),
        (pixels * 1.0 - 1, "values from -1 to"),
        (pixels * np.nan, "not finite"),
        (pixels.astype(complex), "complex"),
        (np.full((6, 8), "x"), "type"),
        (np.full((6, 8), None), "readable .npy"),
    ):
        np.save(tmp_path / "b.npy", array, allow_pickle=True)
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / "b.npy", GREY)


def test_bombs_are_refused_by_their_header() -> None:
    header = encode_image(Image.new("1", (8000, 6000)))
    with pytest.raises(ImageError, match="at most 40 megapixels"):
        read_image(header, GREY)


def test_animations_give_their_first_frame() -> None:
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    decoded = decode(encode_image(frames[0], "TIFF", save_all=True, append_images=frames[1:]), GREY)
    assert decoded.frames == 2
    np.testing.assert_array_equal(decoded.pixels[..., 0], pixels)


@pytest.mark.parametrize("data", [b"", b"x", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY\x01", b"<svg/>", b"GIF89a" + bytes(20)])
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"."):
        read_image(data, GREY)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"]), st.data())
def test_damaged_files_decode_whole_or_are_an_image_error(format: str, data: st.DataObject) -> None:
    damaged = bytearray(encode_image(Image.fromarray(pixels), format))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)))
    values, reason = None, ""
    try:
        values = read_image(bytes(damaged[:cut]), GREY)
    except ImageError as error:
        reason = str(error)
    if values is None:
        assert reason
        assert "\n" not in reason
    else:
        assert values.shape == (6, 8, 1)
        assert values.min() >= 0
        assert values.max() <= 255


def test_anything_but_a_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
    for name, reason in (
        ("pipe.png", "not a plain file"),
        ("socket.png", "not a plain file"),
        ("loop.png", "cannot be read"),
        ("gone.png", "cannot be read: No such file"),
        ("nul\0.png", "cannot be read"),
    ):
        with pytest.raises(ImageError, match=reason):
            read_bytes(str(tmp_path / name))


def test_volumes_are_canonical_depth_first() -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    input = Input(shape=[5, 4, 3, 1], colour="none", resize="none")
    plain = nibabel.Nifti1Image(voxels, np.eye(4))
    flipped = nibabel.Nifti1Image(np.ascontiguousarray(voxels[::-1]), np.diag([-1, 1, 1, 1.0]))
    import gzip

    for image in (plain, flipped):
        for data in (image.to_bytes(), gzip.compress(image.to_bytes())):
            np.testing.assert_array_equal(read_image(data, input)[..., 0], voxels.transpose(2, 1, 0))
    with pytest.raises(ImageError, match="cut off"):
        read_image(gzip.compress(plain.to_bytes())[:-20], input)
    with pytest.raises(ImageError, match="the model takes"):
        read_image(plain.to_bytes(), Input(shape=[5, 4, 4, 1], colour="none", resize="none"))
