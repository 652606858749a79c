"""What draws are worth: in rows, and the cheapest plan of `--effective-samples`."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import EffectiveDraws
from probrt.runtime.engines import openvino
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.choose import PredictRequest, choose
from probrt.runtime.predict.effective import choose_effective, count_effective_draws


def worth(precision: str, draws: int, effective: float) -> EffectiveDraws:
    return EffectiveDraws(precision=precision, draws=draws, mean=(0.1, 0.2), spread=(0.1, 0.2), effective=effective)


RECORDS = [worth("float32", 4, 5.0), worth("float32", 8, 40.0), worth("bfloat16", 4, 4.9), worth("bfloat16", 8, 33.0)]


@pytest.fixture
def chosen(bundle: Bundle) -> Bundle:
    """The bundle as if its bank were chosen from many draws."""
    posterior = bundle.manifest.posterior
    assert posterior is not None
    order = [*reversed(posterior.order)]
    posterior = msgspec.structs.replace(posterior, order=order, effective=RECORDS)
    return dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, posterior=posterior))


def plan_line(bundle: Bundle, effective: float, precision: str | None = None, **options: object) -> tuple[str, int]:
    plan = choose_effective(bundle, PredictRequest(**options), effective, precision)
    return plan.precision, plan.samples


def test_the_cheapest_plan_that_is_worth_it(chosen: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_bfloat16", lambda device: True)
    assert plan_line(chosen, 4.5) == ("bfloat16", 4)
    assert plan_line(chosen, 4.95) == ("float32", 4)
    assert plan_line(chosen, 32) == ("bfloat16", 8)
    assert plan_line(chosen, 34) == ("float32", 8)
    assert plan_line(chosen, 32, "float32") == ("float32", 8)
    assert plan_line(chosen, 32, few=True) == ("float32", 8)
    assert plan_line(chosen, 32, engine="litert") == ("float32", 8)
    with pytest.raises(UsageError, match=r"--effective-samples 41: .* has no such draws \(at most 40 were measured\)"):
        plan_line(chosen, 41)
    with pytest.raises(UsageError, match="at most 33 were measured"):
        plan_line(chosen, 34, "bfloat16")


def test_a_processor_without_bfloat16_takes_float32(chosen: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_bfloat16", lambda device: False)
    assert plan_line(chosen, 32) == ("float32", 8)


def test_draws_of_another_seed_are_independent(chosen: Bundle) -> None:
    plan = choose_effective(chosen, PredictRequest(seed=3), 30.5, None)
    assert (plan.samples, plan.variant) == (32, "sampled")  # whole chunks of 4
    assert count_effective_draws(chosen.manifest, plan, 32) == 32.0
    with pytest.raises(UsageError, match="give --samples, or another --seed"):
        choose_effective(chosen, PredictRequest(seed=3), 65, None)


def test_draws_of_a_plain_bank_are_independent(bundle: Bundle) -> None:
    assert plan_line(bundle, 7.5) == ("float32", 8)
    assert count_effective_draws(bundle.manifest, choose(bundle, PredictRequest()), 8) == 8.0


def test_what_was_not_measured_is_not_known(chosen: Bundle) -> None:
    manifest = chosen.manifest
    plan = choose(chosen, PredictRequest(engine="litert"))
    assert [count_effective_draws(manifest, plan, draws) for draws in (0, 3, 4, 8, 16)] == [None, None, 5.0, 40.0, None]
    coarse = dataclasses.replace(plan, precision="float16")
    assert count_effective_draws(manifest, coarse, 8) is None
    assert count_effective_draws(manifest, choose(chosen, PredictRequest(variant="mean")), 0) is None


@pytest.mark.parametrize("request_options", [{"samples": 8}, {"variant": "mean"}])
def test_contradicting_options_are_refused(chosen: Bundle, request_options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="leave one of them out"):
        choose_effective(chosen, PredictRequest(**request_options), 32, None)


def test_rows_and_bench_carry_it(
    bundle: Bundle, chosen: Bundle, rewrite: Callable[..., Bundle], pictures: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import shutil

    folder = tmp_path / "shapes" / "1"
    shutil.copytree(bundle.path, folder)
    rewrite(folder, posterior=chosen.manifest.posterior)
    out = tmp_path / "p.jsonl"
    options = ["--bundle", str(folder), "--maps", "none", "--out", str(out), str(pictures)]
    assert cli.call(["predict", "--effective-samples", "32", "--precision", "float32", *options]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(row["draws"], row["effective_draws"], row["precision"]) for row in rows} == {(8, 40.0, "float32")}
    assert cli.call(["inspect", str(folder)]) == 0
    assert "worth    in float32: 4 like 5, 8 like 40 independent draws" in capsys.readouterr().out
    assert cli.call(["predict", "--effective-samples", "32", "--samples", "8", "--overwrite", *options]) == 2
    assert "--effective-samples 32: it chooses the number of --samples" in capsys.readouterr().err
