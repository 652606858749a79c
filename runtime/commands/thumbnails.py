"""Small pictures of images, arrays and volumes, as data URIs."""

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIDE = 72


def make_thumbnail(path: str) -> str:
    """A picture of at most SIDE pixels a side as a data URI; empty if it cannot be shown.

    An array or a volume is shown by its middle slice and first channel, from its own lowest to its highest value; one
    with values that are not finite cannot be shown.
    """
    from PIL import Image

    from probrt.runtime.images.decode import NUMPY_MAGIC, open_picture, read_bytes
    from probrt.runtime.images.volumes import is_volume

    try:
        data = read_bytes(path)
        if data.startswith(NUMPY_MAGIC) or is_volume(data):
            image = Image.fromarray(middle_slice(data))
        else:
            with open_picture(data)[0] as file:
                file.draft("RGB", (SIDE * 2, SIDE * 2))
                image = file.convert("RGBA" if file.mode in ("RGBA", "LA", "PA", "P") else "RGB")
        image.thumbnail((SIDE, SIDE))
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=70, method=2)
    except Exception:  # the row of an image that cannot be decoded has the reason; here it is only not shown
        return ""
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def middle_slice(data: bytes) -> "npt.NDArray[np.uint8]":
    """The middle slice of a .npy array or a NIfTI volume, [height, width]; a last side of at most 4 is channels.

    Raises ValueError for values that are not finite.
    """
    import numpy as np

    from probrt.runtime.images.volumes import is_volume, read_volume

    values = read_volume(data)[0] if is_volume(data) else np.load(io.BytesIO(data), allow_pickle=False)
    if values.ndim == 4 or (values.ndim == 3 and values.shape[-1] <= 4):
        values = values[..., 0]
    if values.ndim == 3:
        values = values[len(values) // 2]
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite")
    values = values - values.min()
    return np.asarray(np.rint(values * (255.0 / (float(values.max()) or 1.0))), np.uint8)
