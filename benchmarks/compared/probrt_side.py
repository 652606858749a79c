"""A side of the speed benchmarks: a bundle with one engine, or its SavedModel with TensorFlow's C++ loader.

    python probrt_side.py BUNDLE ENGINE PRECISION SECONDS

Engine `serving` is the C++ loader, in bfloat16 as TensorFlow Serving sets it: `serving` is its `serving_default`, and
`draws-N` its `sample`. The others answer `draws-N` (N draws of the bank), `mean` and, if the bundle has them,
`effective` (the cheapest draws in this precision that are worth 32 independent ones).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from compared.digits_network import DRAWS
from compared.sides import Step, serve


def load_steps(bundle_path: Path, engine: str, precision: str) -> dict[str, Step]:
    """Loads what the side can do."""
    if engine == "serving":
        sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
        from loader import SavedModelSession

        newest = max(bundle_path.iterdir(), key=lambda version: int(version.name))
        session = SavedModelSession(newest, bfloat16=precision == "bfloat16")

        def make_step(draws: int) -> Step:
            count = np.array([draws], np.int32)
            return lambda size: session("sample", {"images": make_images(size, [28, 28, 1]), "num_samples": count})

        serving = {"serving": lambda size: session("serving_default", {"images": make_images(size, [28, 28, 1])})}
        return serving | {f"draws-{draws}": make_step(draws) for draws in (1, 8, 16, 32, 128)}
    from probrt.runtime import Bundle, load_predictor
    from probrt.runtime.errors import ProbrtError
    from probrt.runtime.predict.choose import PredictRequest
    from probrt.runtime.predict.effective import choose_effective
    from probrt.runtime.predict.predictor import Predictor

    bundle = Bundle.open(bundle_path)
    shape = bundle.manifest.input.shape
    predictors = {
        f"draws-{count}": load_predictor(
            bundle, engine=engine, variant="draws", samples=count, precision=precision, batch_size=64
        )
        for count in (8, 16, DRAWS)
    }
    predictors["mean"] = load_predictor(bundle, engine=engine, variant="mean", precision=precision, batch_size=64)
    try:
        plan = choose_effective(bundle, PredictRequest(engine=engine, precision=precision), float(DRAWS), precision)
        predictors["effective"] = Predictor(bundle, plan, 64, None)
    except ProbrtError:
        pass  # no draws of this precision are worth as many
    return {
        name: lambda size, predictor=predictor: predictor(make_images(size, shape))
        for name, predictor in predictors.items()
    }


def make_images(size: int, shape: list[int]) -> np.ndarray:
    """Makes random pictures [size, *shape] of the values 0 to 255."""
    return np.random.default_rng(0).integers(0, 256, (size, *shape)).astype(np.float32)


if __name__ == "__main__":
    path, engine, precision, seconds = sys.argv[1:]
    serve(load_steps(Path(path), engine, precision), float(seconds))
