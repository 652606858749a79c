"""Draws the predictions of a bundle for some images: the image, and the mean and epistemic uncertainty of each map.

python examples/picture.py BUNDLE OUT.png IMAGE…
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from probrt.runtime import Bundle, load_predictor, read_image

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle


def main(bundle: str, out: str, files: list[str]) -> None:
    """Draws one row per image: of a volume its middle slice, of a class map the expected class number."""
    opened = Bundle.open(bundle)
    images = np.stack([read_image(Path(file).read_bytes(), opened.manifest.input) for file in files])
    prediction = load_predictor(opened)(images.astype(np.float32))
    maps = [head for head in opened.manifest.heads if head.per_position]
    _, axes = plt.subplots(
        len(files), 1 + 2 * len(maps), figsize=(2.1 * (1 + 2 * len(maps)), 2.5 * len(files)), squeeze=False
    )

    for row, image in zip(range(len(files)), images, strict=True):
        _show(axes[row, 0], image, _describe_heads(opened.manifest.heads, prediction, row), "gray")
        for head in opened.manifest.heads:
            if head.likelihood == "box":
                x_min, y_min, x_max, y_max = prediction[head.name].mean[row] * np.array(image.shape[1::-1] * 2)
                size = (x_max - x_min, y_max - y_min)
                axes[row, 0].add_patch(Rectangle((x_min - 0.5, y_min - 0.5), *size, fill=False, color="red"))
        for column, head in enumerate(maps):
            values = prediction[head.name]
            mean = values.mean[row]
            if mean.ndim > values.total[row].ndim:
                mean = (mean * np.arange(mean.shape[-1])).sum(-1, keepdims=True)
            _show(axes[row, 1 + 2 * column], mean, f"{head.name}, mean", "viridis")
            epistemic = values.epistemic[row]
            _show(axes[row, 2 + 2 * column], epistemic, "epistemic (nats)", "magma")
    plt.tight_layout(h_pad=2.0)
    plt.savefig(out, dpi=80)


def _show(axis: plt.Axes, values: np.ndarray, title: str, colours: str) -> None:
    if values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 3:
        values = values[:, :, values.shape[2] // 2].T[::-1]
    axis.imshow(values, cmap=colours)
    axis.set_title(title, fontsize=8)
    axis.axis("off")


def _describe_heads(heads: list, prediction: object, row: int) -> str:
    return "\n".join(filter(None, (_describe_head(head, prediction, row) for head in heads)))


def _describe_head(head: object, prediction: object, row: int) -> str:
    """Describes the answer of a class head in a few words; the text of other heads is empty."""
    if head.per_position or head.likelihood == "box":
        return ""
    mean = prediction[head.name].mean[row]
    best = int(mean.argmax())
    return f"{head.name} {head.labels[best]} ({mean[best]:.2f})" if head.kind != "real" else ""


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
