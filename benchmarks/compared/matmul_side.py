"""A side of the speed benchmarks: one large matrix product on OpenVINO, the most that a processor computes per second.

    python matmul_side.py PRECISION SECONDS

PRECISION: float32 or bfloat16. It answers `matmul`; SIDE x SIDE matrices take 2 SIDE³ operations.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

sys.path.insert(0, str(Path(__file__).parent.parent))
from compared.sides import Step, serve

SIDE = 2048


def load_steps(precision: str) -> dict[str, Step]:
    """Compiles the product."""
    values = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    left = ops.parameter([SIDE, SIDE], np.float32)
    graph = ov.Model([ops.matmul(left, ops.constant(values), False, False)], [left])
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    compiled = ov.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return {"matmul": lambda _: compiled(values)}


if __name__ == "__main__":
    serve(load_steps(sys.argv[1]), float(sys.argv[2]))
