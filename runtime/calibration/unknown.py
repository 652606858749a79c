"""The level at which novelty calls an image unknown, where nobody states one."""

# At most this share of images like the calibration images is called unknown.
LEVEL = 0.01


def smallest_p_value(images: int) -> float:
    """Returns the p-value of an image more novel than all calibration images; images: how many these are."""
    return 1.0 / (images + 1)


def usual_level(images: int) -> float:
    """Returns LEVEL, or the smallest p-value if that is larger: at a smaller level no image could be unknown."""
    return max(LEVEL, smallest_p_value(images))
