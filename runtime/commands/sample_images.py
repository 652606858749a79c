"""Images for timing a bundle."""

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Manifest


def sample_images(manifest: Manifest, count: int) -> npt.NDArray[np.float32]:
    """Random images that a bundle takes, [count, *input.shape]; a side of any size is 64."""
    low, high = manifest.input.range or (0.0, 1.0)
    shape = [count, *(side or 64 for side in manifest.input.shape)]
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
