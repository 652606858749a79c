"""How many independent draws an answer is worth, and the cheapest plan that is worth so many."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Manifest, PosteriorRecord, RunPrecision
from probrt.runtime.errors import MissingError, UsageError
from probrt.runtime.predict.choose import PRECISIONS, Plan, PredictRequest, choose

# What a draw costs, in draws of float32 (docs/performance.md). Half-precision files are computed in float32.
COSTS: Final[dict[RunPrecision, float]] = {
    "float32": 1.0,
    "float16": 1.0,
    "dynamic": 1.0,
    "int8": 0.45,
    "bfloat16": 0.55,
}


def count_effective_draws(manifest: Manifest, plan: Plan, draws: int) -> float | None:
    """Returns how many independent float32 draws the first `draws` draws of a plan are worth.

    None where that was not measured: for the posterior mean, parts of a chunk, more draws than the bank has, and
    coarser precisions without a record. Draws of another seed than the bundle's, and of a bank in plain order, are
    independent.
    """
    posterior = manifest.posterior
    if not draws or posterior is None:
        return None
    seed = plan.calls[0].draws.seed if plan.calls[0].draws else posterior.seed
    if seed == posterior.seed:
        for record in posterior.effective:
            if (record.precision, record.draws) == (plan.precision, draws):
                return record.effective
    if plan.precision == "float32" and _are_independent(posterior, seed):
        return float(draws)
    return None


def choose_effective(bundle: Bundle, request: PredictRequest, effective: float, precision: str | None) -> Plan:
    """Returns the cheapest plan whose draws are worth `effective` independent ones.

    request: the rest of what the user asks for. precision: the one to use; None leaves the choice open.
    Raises UsageError if the bundle has no such draws, and what `choose` raises if nothing here can make them.
    """
    posterior = bundle.manifest.posterior
    if request.samples is not None or request.variant == "mean" or posterior is None:
        what = "the posterior mean has no draws" if request.samples is None else "it chooses the number of --samples"
        raise UsageError(f"--effective-samples {effective:g}: {what}; leave one of them out")
    candidates = _list_candidates(posterior, request, effective, precision)
    if not candidates:
        known = [record.effective for record in posterior.effective if precision in (None, record.precision)]
        most = f"at most {max(known):g} were measured" if known else "their worth was not measured"
        raise UsageError(
            f"--effective-samples {effective:g}: {bundle.label} has no such draws ({most}); "
            "give --samples, or another --seed, whose draws are independent"
        )
    first_fault: UsageError | MissingError | None = None
    for name, draws in candidates:
        try:
            return choose(bundle, replace(request, samples=draws, precision=name))
        except (UsageError, MissingError) as error:
            first_fault = first_fault or error
    assert first_fault is not None
    raise first_fault


def _list_candidates(
    posterior: PosteriorRecord, request: PredictRequest, effective: float, precision: str | None
) -> Sequence[tuple[RunPrecision, int]]:
    """Returns precisions and numbers of draws that are worth enough, the cheapest first.

    For few images float32 comes first, because every engine has it: a start takes longer than they do.
    """
    seed = posterior.seed if request.seed is None else request.seed
    candidates: list[tuple[RunPrecision, int]] = []
    for name in PRECISIONS:
        if precision not in (None, name):
            continue
        enough = [
            record.draws
            for record in posterior.effective
            if record.precision == name and record.effective >= effective and seed == posterior.seed
        ]
        if enough:
            candidates.append((name, min(enough)))
        elif name == "float32" and _are_independent(posterior, seed):
            draws = -(-int(-(-effective // 1)) // posterior.chunk) * posterior.chunk
            if draws <= posterior.max_samples:
                candidates.append((name, draws))
    return sorted(
        candidates,
        key=lambda candidate: (request.few and candidate[0] != "float32", candidate[1] * COSTS[candidate[0]]),
    )


def _are_independent(posterior: PosteriorRecord, seed: int) -> bool:
    return seed != posterior.seed or posterior.order == sorted(posterior.order)
