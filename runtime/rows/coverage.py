"""Which conformal threshold makes the set or the interval of each head."""

import math
from collections.abc import Mapping

from probrt.runtime.bundle.manifest import Conformal, Manifest
from probrt.runtime.calibration.conformal import list_coverages
from probrt.runtime.errors import BundleError, UsageError
from probrt.runtime.rows.kinds import KINDS

COVERAGE = 0.9


def choose_thresholds(
    manifest: Manifest, coverage: float | None = None, method: str | None = None
) -> dict[str, Conformal]:
    """The threshold of each head that has sets or intervals, by the head's name.

    coverage: what `--coverage` asks for. None means COVERAGE, or of a head that is not calibrated for it the first
    coverage that it is calibrated for. A real-valued head that is not calibrated takes the quantile of a normal.
    method: what `--conformal` asks for; the heads that do not have it take their first method, as all heads do by
    default.
    Raises UsageError for a coverage that a calibrated head lacks or a method that no head has, BundleError for a
    method that this version of probrt does not know.
    """
    wanted = COVERAGE if coverage is None else coverage
    if not 0 < wanted < 1:
        raise UsageError(f"--coverage {wanted:g}: a share, above 0 and below 1, e.g. 0.9")
    usual = {head.name: KINDS[head.kind].usual_conformal(wanted) for head in manifest.heads}
    thresholds = {name: conformal for name, conformal in usual.items() if conformal is not None}
    calibrated = {record.head: record.conformal for record in manifest.calibration if record.conformal}
    _check_methods(manifest, calibrated, method)
    for name, records in calibrated.items():
        of_method = [record for record in records if record.method == method] or records
        choices = [record for record in of_method if math.isclose(record.coverage, wanted)]
        if not choices and coverage is not None:
            known = ", ".join(f"{share:g}" for share in list_coverages(of_method))
            raise UsageError(f"--coverage {coverage:g}: {name} is calibrated for {known}; choose one of them")
        thresholds[name] = (choices or of_method)[0]
    if coverage is not None and not thresholds:
        raise UsageError(f"--coverage {coverage:g}: no head of the bundle is calibrated; leave it out")
    return thresholds


def _check_methods(manifest: Manifest, calibrated: Mapping[str, list[Conformal]], wanted: str | None) -> None:
    """Raises BundleError for a method that probrt does not know, UsageError if no head has the wanted one."""
    for name, records in calibrated.items():
        methods = KINDS[manifest.head(name).kind].conformal_methods
        unknown = next((record.method for record in records if record.method not in methods), None)
        if unknown is not None:
            raise BundleError(
                f"calibration of {name}: method {unknown!r} is unknown (known: {', '.join(methods)}); upgrade probrt"
            )
    known = sorted({record.method for records in calibrated.values() for record in records})
    if wanted is not None and wanted not in known:
        advice = f"choose from {', '.join(known)}" if known else "no head of the bundle is calibrated; leave it out"
        raise UsageError(f"--conformal {wanted}: {advice}")
