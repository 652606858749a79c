"""Scores a bundle of the brain example on its test slabs.

    probrt export brain
    python examples/brain/score.py [BUNDLE]

Prints Dice (Sørensen 1948) per tissue, the error rate over all voxels, and the error rate among the tenth of the voxels
with the largest total uncertainty. Most errors of a well-calibrated model lie in that tenth.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from probrt.runtime import Bundle, load_predictor


def main(bundle: str, data: Path) -> None:
    """Prints the scores of a bundle on the test rows of the prepared data."""
    import nibabel

    with (data / "metadata.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    opened = Bundle.open(bundle)
    predictor = load_predictor(opened, samples=32)
    (labels,) = (head.labels for head in opened.manifest.heads)
    predicted, true, uncertainty = [], [], []
    for row in rows:
        image = np.asarray(nibabel.load(data / row["file_name"]).dataobj, np.float32)
        prediction = predictor(image[None, ..., None])["tissue"]
        predicted.append(prediction.mean[0].argmax(-1))
        uncertainty.append(prediction.total[0])
        true.append(np.asarray(nibabel.load(data / row["tissue"]).dataobj))
    predicted, true, uncertainty = (
        np.concatenate([patch.ravel() for patch in patches]) for patches in (predicted, true, uncertainty)
    )
    table = Table("on the test slabs", "value", title=f"{opened.manifest.model.name}, {len(rows)} patches, 32 draws")
    for index, label in enumerate(labels):
        in_prediction, in_truth = predicted == index, true == index
        dice = 2 * (in_prediction & in_truth).sum() / (in_prediction.sum() + in_truth.sum())
        table.add_row(f"Dice, {label}", f"{dice:.3f}")
    wrong = predicted != true
    least_certain = uncertainty >= np.quantile(uncertainty, 0.9)
    table.add_row("error rate, all voxels", f"{wrong.mean():.3f}")
    table.add_row("error rate, least certain tenth", f"{wrong[least_certain].mean():.3f}")
    table.add_row("error rate, the other nine tenths", f"{wrong[~least_certain].mean():.3f}")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "artifacts/brain", Path(__file__).parent / "data")
