"""PNG files hold the pixels that they were made of, as Pillow reads them."""

import io

import numpy as np
import pytest
from PIL import Image

from probrt.runtime.images.png import encode_grey_png, encode_png


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_pixels_come_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    decoded = np.asarray(Image.open(io.BytesIO(encode_png(pixels))))
    np.testing.assert_array_equal(decoded, pixels.squeeze(-1) if shape[-1] == 1 else pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_values_of_either_depth_come_back(dtype: type[np.integer]) -> None:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 7), dtype=dtype, endpoint=True)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_grey_png(values)))), values)
