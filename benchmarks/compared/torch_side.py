"""A side of the speed benchmarks: the layers of bayesian-torch, in an environment of its own.

    python torch_side.py CLASS SECONDS

CLASS: of bayesian_torch.layers, such as Conv2dFlipout. It answers `draws-32`, a call per draw.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bayesian_torch.layers
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from compared.digits_network import CLASSES, DRAWS, WIDTHS
from compared.sides import Step, serve


def load_steps(layer: str) -> dict[str, Step]:
    """Builds the network."""
    kind = getattr(bayesian_torch.layers, layer)
    inputs = (1, *WIDTHS[:-1])
    convs = [kind(old, new, 3, padding=1) for old, new in zip(inputs, WIDTHS, strict=True)]
    final = kind(WIDTHS[-1], CLASSES, 1)
    images = torch.randn(64, 1, 28, 28)

    def draw(batch: torch.Tensor) -> torch.Tensor:
        features = batch
        for conv in convs:
            features = torch.max_pool2d(torch.relu(conv(features, return_kl=False)), 2)
        pooled = features.mean((2, 3), keepdim=True)
        return torch.softmax(final(pooled, return_kl=False).flatten(1), 1)

    def step(size: int) -> list[torch.Tensor]:
        with torch.no_grad():
            draws = torch.stack([draw(images[:size]) for _ in range(DRAWS)])
            mean = draws.mean(0)
            total = -(mean * (mean + 1e-30).log()).sum(-1)
            aleatoric = -(draws * (draws + 1e-30).log()).sum(-1).mean(0)
            return [mean, total, aleatoric, total - aleatoric]

    return {f"draws-{DRAWS}": step}


if __name__ == "__main__":
    serve(load_steps(sys.argv[1]), float(sys.argv[2]))
