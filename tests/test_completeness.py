"""A public layer, posterior, prior, head, backbone or estimator without a conformance case fails here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cases import CASES

from probrt.trainer import backbones, heads, layers
from probrt.trainer.keras_internals import flatten_layers
from probrt.trainer.layers.append_one import AppendOne
from probrt.trainer.layers.base import ProbabilisticLayer
from probrt.trainer.layers.coordinates import Coordinates
from probrt.trainer.layers.dropout import ChannelDropout
from probrt.trainer.layers.resampling import MaxPool, UpTo
from probrt.trainer.variational import estimators, posteriors, priors

# One worker for all: the fixture of the module is made once.
pytestmark = pytest.mark.xdist_group("completeness")

# Backbones are known by what the case says it covers; all else is read off the built models.


@pytest.fixture(scope="module")
def used() -> set[object]:
    """Every type and estimator name that some case's model is made of."""
    used_types: set[object] = set()
    for case in CASES:
        model = case.model()
        used_types |= {type(head) for head in model.heads} | set(case.covers)
        for layer in flatten_layers(model.network):
            used_types.add(type(layer))
            if isinstance(layer, ProbabilisticLayer):
                used_types.add(layer.estimator)
        for weight in model.weights:
            used_types |= {type(weight.posterior), type(weight.prior)}
    return used_types


@pytest.mark.parametrize(
    ("kind", "public"),
    [
        (
            "layer",
            [
                *(getattr(layers, name) for name in layers.__all__),
                AppendOne,
                ChannelDropout,
                Coordinates,
                MaxPool,
                UpTo,
            ],
        ),
        ("posterior", posteriors.POSTERIORS.built_in),
        ("prior", priors.PRIORS.built_in),
        ("head", heads.HEADS.built_in),
        ("backbone", backbones.BACKBONES.built_in),
        ("estimator", list(estimators.ESTIMATORS)),
    ],
)
def test_every_public_name_has_a_case(used: set[object], kind: str, public: Sequence[object]) -> None:
    missing = [getattr(name, "__name__", name) for name in public if name not in used]
    assert not missing, f"no conformance case uses {kind} {', '.join(map(str, missing))}: add one to tests/cases.py"
