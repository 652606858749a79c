"""Writes patches of a real T1 brain template with their tissue labels.

    python examples/brain/prepare.py [FOLDER]

FOLDER (default: data/ beside this file) receives metadata.csv and two folders, images/ and tissue/, with NIfTI
patches of 24 x 24 x 24 voxels of 1 mm. The volumes are the ICBM 152 nonlinear 2009 template and its maps of grey and
white matter (Fonov et al. 2011), which the package nilearn contains. A voxel is grey or white matter, whichever is
likelier, where one of the two maps is at least half. Elsewhere inside the head it is "other", mostly fluid; outside
the head it is "none".
The script cuts the volume into slabs of 24 voxels along the third axis and assigns each slab to one split. It adds
noise of 5 % of the range, because a template is smoother than a scan of one person.
"""

import csv
import gzip
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from packaged import read_package_files

SEED, SIDE, STEP, NOISE = 22, 24, 24, 12.0
_FOLDER = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_DIGESTS = {
    _FOLDER.format("t1"): "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    _FOLDER.format("gm"): "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
    _FOLDER.format("wm"): "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
}
# The split of each of the seven slabs of 24 voxels along the third axis.
SPLITS = ("train", "train", "test", "train", "validation", "test", "train")


def main(folder: Path) -> None:
    """Writes the data below `folder` and replaces what is there."""
    import nibabel

    contents = read_package_files("nilearn==0.14.1", _DIGESTS)
    volumes = [nibabel.Nifti1Image.from_bytes(gzip.decompress(contents[path])) for path in _DIGESTS]
    t1, grey, white = (np.asarray(volume.dataobj) for volume in volumes)
    tissue = np.where(t1 > 0, 1, 0)
    tissue[(np.maximum(grey, white) >= 128)] = 2
    tissue[(white >= 128) & (white > grey)] = 3
    random = np.random.default_rng(SEED)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "tissue"):
        (folder / name).mkdir(parents=True)
    patch_count = 0
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "tissue"])
        for slab, split in enumerate(SPLITS):
            for x in range(0, t1.shape[0] - SIDE + 1, STEP):
                for y in range(0, t1.shape[1] - SIDE + 1, STEP):
                    window = tuple(slice(start, start + SIDE) for start in (x, y, slab * SIDE))
                    if (t1[window] > 0).mean() < 0.25:
                        continue
                    noisy = t1[window] + random.normal(0, NOISE, (SIDE,) * 3) * (t1[window] > 0)
                    for subfolder, values in (("images", noisy.clip(0, 255).round()), ("tissue", tissue[window])):
                        image = nibabel.Nifti1Image(values.astype(np.uint8), volumes[0].affine)
                        nibabel.save(image, folder / subfolder / f"{patch_count:04d}.nii.gz")
                    table.writerow([f"images/{patch_count:04d}.nii.gz", split, f"tissue/{patch_count:04d}.nii.gz"])
                    patch_count += 1
    print(f"{folder}: {patch_count} patches")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
