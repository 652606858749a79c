"""The settings of a run of `probrt predict`, as its record keeps them and a resumed run compares them."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from probrt.runtime.bundle.manifest import NAME
from probrt.runtime.commands.predict_options import PredictOptions
from probrt.runtime.predict.predictor import Predictor


def describe_settings(options: PredictOptions, predictor: Predictor, tolerances: Mapping[str, float]) -> dict[str, Any]:
    """Returns everything besides the images that a row depends on, by name: values of JSON.

    Not the number of threads: engines give the same answers with any.
    """
    plan, bundle = predictor.plan, predictor.bundle
    posterior = bundle.manifest.posterior
    bundle_seed = posterior.seed if posterior else None
    return {
        "probrt": importlib.metadata.version("probrt"),
        "bundle": bundle.label,
        "manifest": hashlib.sha256((bundle.path / NAME).read_bytes()).hexdigest(),
        "engine": plan.engine.name,
        "engine version": plan.engine.load_module().version(),
        "device": plan.device,
        "variant": plan.variant,
        "precision": plan.precision,
        "draws": plan.samples,
        "seed": None if not plan.samples else bundle_seed if options.seed is None else options.seed,
        "tolerance": dict(tolerances),
        "batch size": predictor.batch_size,
        "maps": options.maps,
        "map folder": None if options.maps == "none" else str(options.map_folder),
        "overlay": options.overlay,
        "unknown": options.unknown,
        "max risk": options.max_risk,
        "coverage": options.coverage,
        "conformal": options.conformal,
    }
