"""An answer restored from a row goes on to what all draws at once give, to the seven digits of the row."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import HeadRecord, Manifest
from probrt.runtime.predict.choose import Plan, PredictRequest, choose
from probrt.runtime.predict.combine import ENTROPIES, combine_chunks
from probrt.runtime.rows.continuation import needs_draws, restore_answer
from probrt.runtime.rows.numbers import Row, to_numbers

CHUNK = 4


@pytest.fixture(scope="module")
def plan(bundle: Bundle) -> Plan:
    return choose(bundle, PredictRequest(engine="litert"))


@pytest.fixture(scope="module")
def manifest(bundle: Bundle) -> Manifest:
    """The bundle's, without its head per position."""
    return msgspec.structs.replace(bundle.manifest, heads=[h for h in bundle.manifest.heads if not h.per_position])


def make_outputs(head: HeadRecord, rng: np.random.Generator, spread: float) -> dict[str, np.ndarray]:
    """What a chunk of draws answers for one image."""
    if head.kind == "real":
        mean = rng.normal(50, spread, (CHUNK, 1, 1))
        values = {"mean": mean.mean(0), "aleatoric": rng.gamma(2, size=(1, 1)), "epistemic": mean.var(0)}
    else:
        p = rng.dirichlet(np.full(3, spread), (CHUNK, 1))
        values = {"mean": p.mean(0), "aleatoric": ENTROPIES["class"](p).mean(0), "epistemic": np.zeros(1)}
    return {f"{head.name}.{name}": value for name, value in values.items()}


@given(st.integers(0, 10**6), st.floats(0.05, 20))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_restored_answer_goes_on_as_the_answer_itself(
    manifest: Manifest, plan: Plan, seed: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    whole = {head.name: combine_chunks(head) for head in manifest.heads}
    first, second = ({h.name: make_outputs(h, rng, spread) for h in manifest.heads} for _ in range(2))
    row: dict[str, Any] = {"status": "ok", "draws": CHUNK, "precision": "float32", "heads": {}}
    for name, combiner in whole.items():
        combiner.add(first[name], CHUNK)
        row["heads"][name] = {key: to_numbers(value[0]) for key, value in combiner.combine().items()}
        combiner.add(second[name], CHUNK)
    restored = restore_answer(row, manifest, plan)
    assert restored is not None
    assert restored.draws == CHUNK
    restored.add(first[manifest.heads[0].name] | second[manifest.heads[0].name] | second[manifest.heads[1].name], CHUNK)
    for name, quantities in restored.combine().items():
        for key, value in whole[name].combine().items():
            np.testing.assert_allclose(quantities[key], value, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "change",
    [{"draws": 3}, {"draws": None}, {"precision": "int8"}, {"heads": {}}, {"heads": {"shape": {"mean": "a.png"}}}],
    ids=["other chunks", "the posterior mean", "another precision", "no heads", "files"],
)
def test_rows_that_lack_something_start_anew(manifest: Manifest, plan: Plan, change: Row) -> None:
    shape = {"mean": [0.5, 0.25, 0.25], "total": 1.0, "aleatoric": 0.9, "epistemic": 0.1}
    heads = {"shape": shape, "slant": {"mean": 1.0, "total": 1.0, "aleatoric": 0.5, "epistemic": 0.5}}
    row = {"draws": CHUNK, "precision": "float32", "heads": heads}
    assert restore_answer(row, manifest, plan) is not None
    assert restore_answer(row | change, manifest, plan) is None


def test_maps_start_anew(bundle: Bundle, plan: Plan) -> None:
    row = {"draws": CHUNK, "precision": "float32", "heads": {"shape": {"mean": [0.5, 0.25, 0.25]}}}
    assert restore_answer(row, bundle.manifest, plan) is None


def test_which_rows_need_draws(manifest: Manifest) -> None:
    row = {"draws": 5, "heads": {"slant": {"mean": 0.0, "epistemic": 0.04}}}  # standard error 0.1
    assert needs_draws(row, manifest, {"slant": 0.0999})
    assert not needs_draws(row, manifest, {"slant": 0.1001})
    assert not needs_draws(row, manifest, {})
    assert needs_draws(row | {"review": True}, manifest, {})
    assert needs_draws({"draws": None, "heads": {"slant": {"mean": 0.0}}}, manifest, {"slant": 9.0})
