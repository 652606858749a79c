"""A small file cannot ask for much time or memory."""

import io
import multiprocessing
import struct
from collections.abc import Callable

import pytest
from damage import FREE, encode_image, make_bombs, make_large_bombs, make_photo, measure_peak
from PIL import Image

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError
from probrt.runtime.images.decode import decode, read_image


@pytest.mark.parametrize(("name", "data"), [pytest.param(*bomb, id=bomb[0]) for bomb in make_bombs()])
def test_bombs_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(ImageError):
        read_image(data, FREE)


@pytest.mark.stress
def test_bombs_cost_neither_time_nor_memory(measured: Callable[[str, str], None]) -> None:
    """Each in half a second and 20 MB; a process of its own holds nothing of what made them."""
    results = {}
    context = multiprocessing.get_context("spawn")
    for name, data in (*make_bombs(), *make_large_bombs()):
        assert len(data) < 5_000_000, name
        with context.Pool(1) as pool:
            results[name] = pool.apply(measure_refusal, (data,))
    slowest = max(seconds for _, seconds, _ in results.values())
    growth = max(growth for _, _, growth in results.values())
    measured(f"{len(results)} bombs under 5 MB", f"all refused, slowest {slowest:.2f} s, growth {growth:.1f} MB")
    assert all(reason for reason, _, _ in results.values())
    assert slowest < 0.5
    assert growth < 20


def measure_refusal(data: bytes) -> tuple[str, float, float]:
    """Returns why a file is refused, the seconds and the megabytes that it took; for a process of its own."""
    read_image(encode_image(make_photo()), FREE)
    reason = ""
    with measure_peak() as cost:
        try:
            read_image(data, FREE)
        except ImageError as error:
            reason = str(error)
    return reason, cost.seconds, cost.growth


def test_pages_are_not_counted() -> None:
    """The next page is enough to say that there are several; the chain of pages is a circle here."""
    stream = io.BytesIO()
    make_photo().save(stream, "TIFF", save_all=True, append_images=[make_photo()])
    data = bytearray(stream.getvalue())
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * entries)
    (entries,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * entries, first)
    assert decode(bytes(data), FREE).frames == 2


def test_everyday_metadata_are_no_bomb() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a" * 30_000
    exif[0x0112] = 6
    image = make_photo(10, 20)
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encode_image(image, format, exif=exif, icc_profile=bytes(300_000))
        assert read_image(data, FREE).shape == (20, 10, 3)


def test_a_picture_that_grows_beyond_measure_is_refused() -> None:
    """A model whose other side is free stretches a picture only along the fixed one."""
    tall = Input(shape=[100_000, None, 3], colour="rgb", resize="bilinear", range=(0, 255))
    with pytest.raises(ImageError, match="resized to 5000 x 100000 it is too large"):
        read_image(encode_image(Image.new("1", (5_000, 10))), tall)
