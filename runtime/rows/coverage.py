"""Which conformal threshold makes the set or the interval of each head."""

import math

from probrt.runtime.bundle.manifest import Conformal, Manifest
from probrt.runtime.errors import BundleError, UsageError
from probrt.runtime.rows.kinds import KINDS

COVERAGE = 0.9


def choose_thresholds(manifest: Manifest, coverage: float | None = None) -> dict[str, Conformal]:
    """The threshold of each head that has sets or intervals, by the head's name.

    coverage: what `--coverage` asks for. None means COVERAGE, or of a head that is not calibrated for it the first
    coverage that it is calibrated for. A real-valued head that is not calibrated takes the quantile of a normal.
    Raises UsageError for a coverage that a calibrated head lacks, BundleError for a method that this version of
    probrt does not know.
    """
    wanted = COVERAGE if coverage is None else coverage
    if not 0 < wanted < 1:
        raise UsageError(f"--coverage {wanted:g}: a share, above 0 and below 1, e.g. 0.9")
    usual = {head.name: KINDS[head.kind].usual_conformal(wanted) for head in manifest.heads}
    thresholds = {name: conformal for name, conformal in usual.items() if conformal is not None}
    for calibration in manifest.calibration:
        if not calibration.conformal:
            continue
        head = manifest.head(calibration.head)
        choices = [choice for choice in calibration.conformal if math.isclose(choice.coverage, wanted)]
        if not choices and coverage is not None:
            known = ", ".join(f"{choice.coverage:g}" for choice in calibration.conformal)
            raise UsageError(f"--coverage {coverage:g}: {head.name} is calibrated for {known}; choose one of them")
        choice = (choices or calibration.conformal)[0]
        methods = KINDS[head.kind].conformal_methods
        if choice.method not in methods:
            raise BundleError(
                f"calibration of {head.name}: method {choice.method!r} is unknown (known: {', '.join(methods)}); "
                "upgrade probrt"
            )
        thresholds[head.name] = choice
    if coverage is not None and not thresholds:
        raise UsageError(f"--coverage {coverage:g}: no head of the bundle is calibrated; leave it out")
    return thresholds
