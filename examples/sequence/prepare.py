"""Writes spoken vowels as sequences and keeps one speaker out of the training data.

    python examples/sequence/prepare.py [FOLDER]

FOLDER (default: data/ beside this file) receives metadata.csv, sequences/ with the utterances of eight speakers, and
unknown/ with those of a ninth speaker, on whom the model is not trained. The data are Japanese Vowels (Kudo, Toyama and
Shimbo 1999; UCI repository, CC BY 4.0), which the package sktime contains: 640 utterances of the vowels /ae/ by nine
men, with 12 coefficients of linear prediction in 7 to 29 steps. The script pads them with zeros to 29 steps. The test
split is the test set of the data; every fourth utterance of its training set is for validation: novelty needs 50.
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from packaged import read_package_files

LENGTH, UNKNOWN = 29, "9"
_FOLDER = "sktime/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"
_DIGESTS = {
    _FOLDER.format("TRAIN"): "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
    _FOLDER.format("TEST"): "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
}


def parse_sequences(text: str) -> list[tuple[np.ndarray, str]]:
    """Parses the sequences [29, 12] and speakers of a file. Colons separate the channels; the class comes last."""
    sequences = []
    for line in text.partition("@data")[2].strip().splitlines():
        *channels, speaker = line.strip().split(":")
        values = np.array([[float(value) for value in channel.split(",")] for channel in channels], np.float32).T
        sequences.append((np.pad(values, [(0, LENGTH - len(values)), (0, 0)]), speaker))
    return sequences


def main(folder: Path) -> None:
    """Writes the data below `folder` and replaces what is there."""
    contents = read_package_files("sktime==1.2.0", _DIGESTS)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("sequences", "unknown"):
        (folder / name).mkdir(parents=True)
    utterance_count = 0
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "speaker"])
        for path in _DIGESTS:
            for position, (values, speaker) in enumerate(parse_sequences(contents[path].decode())):
                subfolder = "unknown" if speaker == UNKNOWN else "sequences"
                np.save(folder / subfolder / f"{utterance_count:04d}.npy", values)
                if speaker != UNKNOWN:
                    training = "validation" if position % 4 == 0 else "train"
                    split = training if "TRAIN" in path else "test"
                    table.writerow([f"sequences/{utterance_count:04d}.npy", split, speaker])
                utterance_count += 1
    print(f"{folder}: {utterance_count} utterances")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
