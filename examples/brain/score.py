"""Prints how good a bundle of the brain example is on its test slabs.

    probrt export brain
    python examples/brain/score.py [BUNDLE]

Dice (Sørensen 1948) per tissue, the error rate over all voxels, and that among the tenth of them that the total
uncertainty calls least certain: a model that knows what it does not know errs mostly there.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from probrt.runtime.bundle.bundle import Bundle


def main(bundle: str, data: Path) -> None:
    """Scores a bundle on the test rows of the prepared data."""
    import nibabel

    with (data / "metadata.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    opened = Bundle.open(bundle)
    predictor = opened.predictor(samples=32)
    (labels,) = (head.labels for head in opened.manifest.heads)
    said, true, unsure = [], [], []
    for row in rows:
        image = np.asarray(nibabel.load(data / row["file_name"]).dataobj, np.float32)
        found = predictor(image[None, ..., None])["tissue"]
        said.append(found.mean[0].argmax(-1))
        unsure.append(found.total[0])
        true.append(np.asarray(nibabel.load(data / row["tissue"]).dataobj))
    said, true, unsure = (np.concatenate([one.ravel() for one in several]) for several in (said, true, unsure))
    table = Table("on the test slabs", "value", title=f"{opened.manifest.model.name}, {len(rows)} patches, 32 draws")
    for number, label in enumerate(labels):
        both = ((said == number) & (true == number)).sum()
        table.add_row(f"Dice, {label}", f"{2 * both / ((said == number).sum() + (true == number).sum()):.3f}")
    wrong = said != true
    least = unsure >= np.quantile(unsure, 0.9)
    table.add_row("error rate, all voxels", f"{wrong.mean():.3f}")
    table.add_row("error rate, least certain tenth", f"{wrong[least].mean():.3f}")
    table.add_row("error rate, the other nine tenths", f"{wrong[~least].mean():.3f}")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "artifacts/brain", Path(__file__).parent / "data")
