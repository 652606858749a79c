"""The values of the options of `probrt predict`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of the command, as `predict` names them."""

    images: Sequence[str]
    bundle: str
    out: str
    samples: int | None
    effective_samples: float | None
    seed: int | None
    variant: str | None
    engine: str
    device: str
    precision: str | None
    maps: str
    overlay: bool
    recursive: bool
    batch_size: int | None
    threads: int | None
    tolerance: str
    continue_rows: str
    unknown: str | None
    max_risk: float | None
    coverage: float | None
    conformal: str | None
    isolate: bool
    ray: str
    workers: int | None
    shard_size: int | None
    overwrite: bool
    resume: bool
    quiet: bool

    @property
    def map_folder(self) -> Path:
        """Where the maps go: a folder beside the rows."""
        return Path("predictions.maps") if self.out == "-" else Path(self.out).with_suffix(".maps")
