"""A picture of which a part is missing is an error row, never a prediction; a whole one keeps its pixels."""

import io

import numpy as np
import pytest
from damage import (
    FREE,
    encode_image,
    halve_jpegs,
    join_png,
    make_adam7_rows,
    make_grey_png,
    make_photo,
    patch_tiff,
    split_png,
)
from PIL import Image

from probrt.runtime.errors import ImageError
from probrt.runtime.images.decode import read_image

JPEG_FORMS = [
    {},
    {"quality": 5},
    {"quality": 100, "subsampling": 0},
    {"subsampling": 1},
    {"progressive": True},
    {"progressive": True, "subsampling": 0, "quality": 30},
    {"optimize": True},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 1},
    {"restart_marker_blocks": 5, "progressive": True},
]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEG_FORMS)
@pytest.mark.parametrize("sides", [(96, 128), (1, 1), (17, 9), (250, 31)])
def test_whole_jpegs_keep_the_pixels_of_libjpeg(options: dict[str, int], mode: str, sides: tuple[int, int]) -> None:
    data = encode_image(make_photo(*sides).convert(mode), "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(read_image(data, FREE), expected)
    np.testing.assert_array_equal(read_image(data + b"stray bytes", FREE), expected)
    # Fill bytes may stand before any marker.
    np.testing.assert_array_equal(read_image(data[:-2] + b"\xff\xff\xff\xd9", FREE), expected)


@pytest.mark.parametrize(("name", "data"), [pytest.param(*half, id=half[0]) for half in halve_jpegs()])
def test_half_jpegs_are_refused(name: str, data: bytes) -> None:
    Image.open(io.BytesIO(data)).load()  # Pillow answers
    with pytest.raises(ImageError, match="a part of the picture is missing"):
        read_image(data, FREE)


def test_a_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    data = encode_image(make_photo(), "JPEG", progressive=True)
    for _ in range(5):
        data = data[: data.rindex(b"\xff\xda")]
        last_table = data.rindex(b"\xff\xc4")
        if last_table > data.rindex(b"\xff\xda"):
            data = data[:last_table]
        with pytest.raises(ImageError, match="a part of the picture is missing"):
            read_image(data + b"\xff\xd9", FREE)


@pytest.mark.parametrize("rows", [0, 1, 5, 11])
def test_pngs_whose_pixels_end_early_are_refused(rows: int) -> None:
    pixels = np.asarray(make_photo(12, 12).convert("L"))
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    np.testing.assert_array_equal(read_image(make_grey_png(12, 12, lines), FREE)[..., 0], pixels)
    with pytest.raises(ImageError, match=r"missing|truncated"):
        read_image(make_grey_png(12, 12, lines[: 13 * rows]), FREE)
    turned = make_adam7_rows(pixels)
    np.testing.assert_array_equal(read_image(make_grey_png(12, 12, turned, interlaced=True), FREE)[..., 0], pixels)
    with pytest.raises(ImageError, match=r"missing|truncated"):
        read_image(make_grey_png(12, 12, turned[: 13 * rows], interlaced=True), FREE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_black_pngs_are_whole(mode: str) -> None:
    assert read_image(encode_image(Image.new(mode, (12, 5))), FREE).shape == (5, 12, 3)
    chunks = split_png(encode_image(Image.new(mode, (12, 5))))
    header = next(body for kind, body in chunks if kind == b"IHDR")
    taller = header[:4] + (50).to_bytes(4, "big") + header[8:]
    with pytest.raises(ImageError, match=r"missing|truncated"):
        read_image(join_png([(kind, taller if kind == b"IHDR" else body) for kind, body in chunks]), FREE)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiffs_of_halved_strips_are_refused(compression: str | None) -> None:
    options = {} if compression is None else {"compression": compression}
    data = encode_image(make_photo(), "TIFF", **options)
    read_image(data, FREE)
    with pytest.raises(ImageError):
        read_image(patch_tiff(data, 279, 0.5), FREE)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(ImageError):
            read_image(data[: int(share * len(data))], FREE)


@pytest.mark.parametrize("format", ["BMP", "GIF", "WEBP", "PPM", "PNG"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_files_cut_short_are_refused(format: str, share: float) -> None:
    data = encode_image(make_photo(), format)
    cut = data[: int(share * len(data))]
    for end in (b"", b"\0;", join_png([(b"IEND", b"")])[8:]):
        with pytest.raises(ImageError):
            read_image(cut + end, FREE)
