"""Writes spoken vowels as sequences, with one speaker kept apart.

    python examples/sequence/prepare.py [FOLDER]

FOLDER (default: data/ beside this file) gets metadata.csv, sequences/ of eight speakers, and unknown/, the
utterances of a ninth, whom the model never hears. The data are Japanese Vowels (Kudo, Toyama and Shimbo 1999; UCI
repository, CC BY 4.0), as sktime ships them: 640 utterances of the vowels /ae/ by nine men, 12 coefficients of linear
prediction in 7 to 29 steps, here filled up with zeros to 29. The test set is the data's own; of its training set
every fifth utterance is for validation.
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from packaged import files

LENGTH, UNKNOWN = 29, "9"
_FOLDER = "sktime/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"
_DIGESTS = {
    _FOLDER.format("TRAIN"): "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
    _FOLDER.format("TEST"): "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
}


def sequences(text: str) -> list[tuple[np.ndarray, str]]:
    """The sequences [29, 12] and speakers of a file: dimensions between colons, the class last."""
    found = []
    for line in text.partition("@data")[2].strip().splitlines():
        *dimensions, speaker = line.strip().split(":")
        values = np.array([[float(value) for value in one.split(",")] for one in dimensions], np.float32).T
        found.append((np.pad(values, [(0, LENGTH - len(values)), (0, 0)]), speaker))
    return found


def main(folder: Path) -> None:
    """Writes everything below `folder`, replacing what is there."""
    found = files("sktime==1.2.0", _DIGESTS)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("sequences", "unknown"):
        (folder / name).mkdir(parents=True)
    number = 0
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "speaker"])
        for path in _DIGESTS:
            for position, (values, speaker) in enumerate(sequences(found[path].decode())):
                kind = "unknown" if speaker == UNKNOWN else "sequences"
                np.save(folder / kind / f"{number:04d}.npy", values)
                if speaker != UNKNOWN:
                    training = "validation" if position % 5 == 0 else "train"
                    split = training if "TRAIN" in path else "test"
                    table.writerow([f"sequences/{number:04d}.npy", split, speaker])
                number += 1
    print(f"{folder}: {number} utterances")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
