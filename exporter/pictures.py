"""Decodes PNG and JPEG in graph operations: to the pixels of `probrt predict`, or to NaN.

Graphs cannot catch an error, so everything that can be seen in the bytes is checked before a decoder gets them. A file
becomes NaN if it is another format, or of a form that the operations decode otherwise than Pillow does: more than 8
bits, CMYK, an orientation that cannot be found. Damage that shows only inside of the compressed data still fails.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.images.budgets import MAX_PIXELS, MAX_SIDE
from probrt.runtime.images.orientation import ORIENTATION_TAG

_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_TAIL = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG_HEAD = b"\xff\xd8\xff"
_JPEG_TAIL = b"\xff\xd9"
_MAX_SEGMENTS = 256
_MAX_SCANS = 25
_FILLER = bytes(np.random.default_rng(7).integers(1, 255, 64, np.uint8))  # no byte of it begins a marker
# RE2 takes a pattern for UTF-8; `\C` is a byte.
_TURNED_PNG = r"\C*(?:eXIf|Raw profile type exif|tiff:Orientation)\C*"
_TURNED_BY_XMP = r"\C*tiff:Orientation\C*"
_TRANSPARENT = r"\C*tRNS\C*IDAT\C*"
_PALETTE, _ALPHA = 3, 4  # colour types; those from 4 on have alpha
_MIXED_RGB_TO_GREY = (19595, 38470, 7471)  # of 65536: ITU-R 601


def decode_pictures(contents: tf.Tensor, input: Input) -> tf.Tensor:
    """Decodes files, string [batch], to raw values, float32 [batch, *input.shape]; NaN for what it cannot decode."""
    decode = functools.partial(decode_picture, input=input)
    return tf.map_fn(decode, contents, fn_output_signature=tf.TensorSpec(input.shape, tf.float32))


def decode_picture(content: tf.Tensor, input: Input) -> tf.Tensor:
    """Decodes one file, a string scalar, to float32 `input.shape`."""
    is_png = _starts(content, _PNG_HEAD) & _ends(content, _PNG_TAIL)
    is_jpeg = _starts(content, _JPEG_HEAD) & _ends(content, _JPEG_TAIL)
    nothing = functools.partial(tf.fill, input.shape, np.float32(np.nan))
    return tf.cond(
        is_png,
        lambda: _decode_png(content, input, nothing),
        lambda: tf.cond(is_jpeg, lambda: _decode_jpeg(content, input, nothing), nothing),
    )


def _decode_png(content: tf.Tensor, input: Input, nothing: functools.partial[tf.Tensor]) -> tf.Tensor:
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 16, 13), tf.uint8), tf.int32)
    width, height = _read_number(header, 0, 4), _read_number(header, 4, 4)
    depth, colours = header[8], header[9]
    transparent = tf.strings.regex_full_match(content, _TRANSPARENT)
    plain = (depth == 8) | ((depth < 8) & ((colours == _PALETTE) | ~transparent))
    readable = plain & _fits(height, width) & ~tf.strings.regex_full_match(content, _TURNED_PNG)
    opaque = ~transparent & (colours < _ALPHA)

    def decode() -> tf.Tensor:
        pixels = tf.cast(tf.io.decode_png(content, channels=4), tf.int32)
        alpha = tf.where(opaque, 255, pixels[..., 3:])  # the operation fills in less than 255 below 8 bits
        return _fit(_put_on_white(pixels[..., :3], alpha), input)

    return tf.cond(readable, decode, nothing)


def _decode_jpeg(content: tf.Tensor, input: Input, nothing: functools.partial[tf.Tensor]) -> tf.Tensor:
    values = tf.cast(tf.io.decode_raw(content, tf.uint8), tf.int32)
    header = _read_jpeg_header(values)
    scans = tf.reduce_sum(tf.cast((values[:-1] == 0xFF) & (values[1:] == 0xDA), tf.int32))
    orientation = _read_orientation(values, header.exif)
    by_xmp = (orientation == 0) & tf.strings.regex_full_match(content, _TURNED_BY_XMP)
    checks = (
        header.readable,
        _fits(header.height, header.width),
        scans <= _MAX_SCANS,
        orientation >= 0,
        ~by_xmp,
        _restarts_are_whole(values, header),
    )
    readable = tf.reduce_all(checks)

    def decode() -> tf.Tensor:
        pixels = _decode_jpeg_pixels(content)
        return tf.cond(
            _ends_early(content, pixels, header.progressive),
            nothing,
            lambda: _fit(_turn_upright(tf.cast(pixels, tf.int32), orientation), input),
        )

    return tf.cond(readable, decode, nothing)


def _decode_jpeg_pixels(content: tf.Tensor) -> tf.Tensor:
    # The accurate integer transform is Pillow's.
    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def _ends_early(content: tf.Tensor, pixels: tf.Tensor, progressive: tf.Tensor) -> tf.Tensor:
    """Whether the data of a JPEG end before its last block.

    The decoder gives blocks that the data lack one colour. Only a picture with such a last corner, or a progressive
    one, is decoded again, with some bytes before its end marker: blocks that the data lack change with them.
    """
    corner = pixels[-4:, -4:]
    suspect = progressive | tf.reduce_all(corner == corner[-1, -1])

    def decode_with_filler() -> tf.Tensor:
        data = tf.strings.substr(content, 0, tf.strings.length(content) - len(_JPEG_TAIL))
        return tf.reduce_any(pixels != _decode_jpeg_pixels(tf.strings.join([data, _FILLER + _JPEG_TAIL])))

    return tf.cond(suspect, decode_with_filler, lambda: tf.constant(False))


@dataclass(frozen=True)
class JpegHeader:
    """What the segments before the first scan say, as scalars.

    readable: whether the segments follow each other, with one frame of 8 bits that is grey or has three components.
    exif: where the data of the one EXIF segment begin; 0 if there is none.
    progressive: whether the frame is. scan: where the first scan begins.
    stretches: how many stretches between restart markers its one scan needs; 1 without such markers.
    """

    readable: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    exif: tf.Tensor
    progressive: tf.Tensor
    scan: tf.Tensor
    stretches: tf.Tensor


def _read_jpeg_header(values: tf.Tensor) -> JpegHeader:
    count = tf.size(values)
    padded = tf.pad(values, [[0, 32]])

    def is_segment(position: tf.Tensor, marker: tf.Tensor) -> tf.Tensor:
        standalone = (marker <= 0x01) | ((marker >= 0xD0) & (marker <= 0xD9)) | (marker == 0xFF)
        return (padded[position] == 0xFF) & ~standalone & (position + 4 <= count)

    def wants_more(step: tf.Tensor, position: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        marker = padded[position + 1]
        return (step < _MAX_SEGMENTS) & is_segment(position, marker) & (marker != 0xDA)

    def read_segment(
        step: tf.Tensor,
        position: tf.Tensor,
        frames: tf.Tensor,
        frame: tf.Tensor,
        exifs: tf.Tensor,
        exif: tf.Tensor,
        restart: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        marker, body = padded[position + 1], position + 4
        is_frame = (marker >= 0xC0) & (marker <= 0xCF) & (marker != 0xC4) & (marker != 0xC8) & (marker != 0xCC)
        is_exif = (marker == 0xE1) & tf.reduce_all(padded[body : body + 5] == list(b"Exif\0"))
        following = tf.minimum(position + 2 + tf.maximum(_read_number(padded, position + 2, 2), 2), count)
        return (
            step + 1,
            following,
            frames + tf.cast(is_frame, tf.int32),
            tf.where(is_frame, position, frame),
            exifs + tf.cast(is_exif, tf.int32),
            tf.where(is_exif, body + 6, exif),
            tf.where(marker == 0xDD, _read_number(padded, body, 2), restart),
        )

    zero = tf.constant(0)
    _, position, frames, frame, exifs, exif, restart = tf.while_loop(
        wants_more, read_segment, (zero, tf.constant(2), zero, zero, zero, zero, zero), parallel_iterations=1
    )
    marker, components = padded[frame + 1], padded[frame + 9]
    huffman = (marker >= 0xC0) & (marker <= 0xC2)
    sound = is_segment(position, padded[position + 1]) & (padded[position + 1] == 0xDA) & (frames == 1) & (exifs <= 1)
    readable = sound & huffman & (padded[frame + 4] == 8) & ((components == 1) | (components == 3))
    height, width = _read_number(padded, frame + 5, 2), _read_number(padded, frame + 7, 2)
    samplings = padded[frame + 11 : frame + 11 + 3 * components : 3]
    single = components == 1  # then each block is an MCU, whatever the sampling
    down = tf.where(single, 1, tf.reduce_max(samplings % 16))
    across = tf.where(single, 1, tf.reduce_max(samplings // 16))
    mcus = _divide_up(height, 8 * tf.maximum(down, 1)) * _divide_up(width, 8 * tf.maximum(across, 1))
    return JpegHeader(
        readable=readable,
        height=height,
        width=width,
        exif=exif,
        progressive=marker == 0xC2,
        scan=position,
        stretches=tf.where(restart > 0, _divide_up(mcus, tf.maximum(restart, 1)), 1),
    )


def _restarts_are_whole(values: tf.Tensor, header: JpegHeader) -> tf.Tensor:
    """Whether the restart markers of the one scan are in order and as many as the picture needs."""
    data = values[header.scan :]
    numbers = tf.boolean_mask(data[1:], data[:-1] == 0xFF) - 0xD0
    numbers = tf.boolean_mask(numbers, (numbers >= 0) & (numbers < 8))
    count = tf.size(numbers)
    return (count == header.stretches - 1) & tf.reduce_all(numbers == tf.range(count) % 8)


def _divide_up(dividend: tf.Tensor, divisor: tf.Tensor | int) -> tf.Tensor:
    return (dividend + divisor - 1) // divisor


def _read_orientation(values: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in EXIF data; 0 if there is none, and -1 if it cannot be found as Pillow finds it."""
    exif = tf.pad(values[start:], [[0, 32]])
    little = (exif[0] == ord("I")) & (exif[1] == ord("I"))
    big = (exif[0] == ord("M")) & (exif[1] == ord("M"))
    directory = _read_number(exif, 4, 4, little)
    inside = (directory >= 8) & (directory < 65_536) & (directory + 2 <= tf.size(values) - start)
    directory = tf.where(inside, directory, 0)
    entries = tf.where(inside, _read_number(exif, directory, 2, little), 0)
    entries = tf.minimum(entries, (tf.size(values) - start - directory - 2) // 12)
    table = tf.reshape(exif[directory + 2 : directory + 2 + 12 * entries], [-1, 12])
    tags = _read_number(tf.transpose(table), 0, 2, little)
    rows = tf.boolean_mask(table, tags == ORIENTATION_TAG)
    cells = tf.pad(tf.transpose(rows), [[0, 0], [0, 1]])[:, 0]  # zeros if there is no such entry
    kind, count, value = (_read_number(cells, *place, little) for place in ((2, 2), (4, 4), (8, 2)))
    known = (little | big) & inside & (exif[2 + tf.cast(big, tf.int32)] == 42)
    matches = tf.shape(rows)[0]
    sound = (matches == 0) | ((matches == 1) & (kind == 3) & (count == 1))
    return tf.where(start == 0, 0, tf.where(known & sound, value, -1))


def _turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    def is_any(*orientations: int) -> tf.Tensor:
        return tf.reduce_any(orientation == list(orientations))

    pixels = tf.cond(is_any(5, 6, 7, 8), lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    mirrored = tf.cond(is_any(2, 3, 6, 7), lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.cond(is_any(3, 4, 7, 8), lambda: tf.reverse(mirrored, [0]), lambda: mirrored)


def _put_on_white(colours: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Composites on white as Pillow does: in integers, rounded."""
    sums = 128 * (colours * alpha + 255 * (255 - alpha)) + 0x4000
    return (sums // 256 + sums) // 256 // 128


def _fit(pixels: tf.Tensor, input: Input) -> tf.Tensor:
    """Colours and resizes RGB pixels, int32, as Pillow does: one axis after the other, each rounded to integers."""
    height, width, channels = input.shape
    if channels == 1:
        pixels = (tf.reduce_sum(pixels * _MIXED_RGB_TO_GREY, -1, keepdims=True) + 0x8000) // 65536
    values = tf.cast(pixels, tf.float32)
    if input.resize == "none":
        right = tf.reduce_all(tf.shape(values)[:2] == [height, width])
        values = values[:height, :width]  # no branch: the optimizer takes a shape that one branch states for a fact
        missing = [[0, height - tf.shape(values)[0]], [0, width - tf.shape(values)[1]], [0, 0]]
        return tf.where(right, tf.ensure_shape(tf.pad(values, missing), input.shape), np.float32(np.nan))
    for sides in ([tf.shape(values)[0], width], [height, width]):
        resized = tf.image.resize(values, sides, antialias=True)
        values = tf.clip_by_value(tf.floor(resized + 0.5), 0.0, 255.0)
    return tf.ensure_shape(values, input.shape)


def _fits(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    largest = tf.maximum(height, width)
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    return (tf.minimum(height, width) > 0) & (largest <= MAX_SIDE) & (pixels <= MAX_PIXELS)


def _read_number(values: tf.Tensor, start: tf.Tensor | int, size: int, little: tf.Tensor | bool = False) -> tf.Tensor:
    """Reads an unsigned number of some bytes; of 4 bytes a negative one stands for 2^31 and more."""
    parts = values[start : start + size]
    return sum(
        tf.where(little, parts[i], parts[size - 1 - i]) * np.array(1 << 8 * i).astype(np.int32) for i in range(size)
    )


def _starts(content: tf.Tensor, head: bytes) -> tf.Tensor:
    longer = tf.strings.length(content) >= len(head)
    return longer & (tf.strings.substr(content, 0, tf.minimum(len(head), tf.strings.length(content))) == head)


def _ends(content: tf.Tensor, tail: bytes) -> tf.Tensor:
    length = tf.strings.length(content)
    size = tf.minimum(len(tail), length)
    return (length >= len(tail)) & (tf.strings.substr(content, length - size, size) == tail)
