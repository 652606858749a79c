"""Rewrites the tables of docs/layers.md by trying every combination: python docs/write_layers.py"""

from pathlib import Path

from probrt.trainer import layers
from probrt.trainer.layers.base import ProbabilisticLayer
from probrt.trainer.variational import posteriors, priors
from probrt.trainer.variational.estimators import ESTIMATORS, explain_refusal

PAGE = Path(__file__).parent / "layers.md"
START, END = "<!-- tables -->", "<!-- end of tables -->"
_YES, _NO = "yes", "-"
# Beta's default interval is Uniform's; the other priors have no required settings but `tfp`.
_PRIORS = {
    kind: kind("Gumbel", {"loc": 0.0, "scale": 1.0}) if kind is priors.Named else kind()
    for kind in priors.PRIORS.built_in
}


def write_tables() -> str:
    """Returns the tables, as Markdown."""
    return "\n\n".join([_write_layers(), _write_posteriors(), _write_priors()])


def write_page(text: str) -> str:
    """Returns the page with its tables written anew."""
    before, rest = text.split(START)
    return f"{before}{START}\n\n{write_tables()}\n\n{END}{rest.split(END)[1]}"


def _write_layers() -> str:
    rows = []
    for name in layers.__all__:
        kind = getattr(layers, name)
        answers = [_describe_estimator(kind, estimator) for estimator in ESTIMATORS]
        rows.append([f"`{name}`", *answers])
    return _write_table(["layer", *(f"`{name}`" for name in ESTIMATORS)], rows)


def _describe_estimator(kind: type[ProbabilisticLayer], estimator: str) -> str:
    once = _builds(kind, estimator, 1)
    return _YES if once and _builds(kind, estimator, 5) else "1x1 on a 1x1 map" if once else _NO


def _builds(kind: type[ProbabilisticLayer], estimator: str, side: int) -> bool:
    rank = getattr(kind, "rank", 0)
    if kind is layers.Dense:
        arguments, shape = (2,), (None, 3)
    else:
        arguments = (1,) if kind is layers.DepthwiseConv2D else (2, 1)
        shape = (None, *(side,) * rank, 3)
    try:
        kind(*arguments, estimator=estimator).build(shape)
    except ValueError:
        return False
    return True


def _write_posteriors() -> str:
    rows = []
    for kind in posteriors.POSTERIORS.built_in:
        family = kind()
        allowed = [_NO if explain_refusal(estimator, family) else _YES for estimator in ESTIMATORS]
        low, high = family.support
        where = "biases too" if not family.kernel_only else "kernels"
        rows.append(
            [f"`{_tag(kind)}`", f"({low:g}, {high:g})", *allowed, where, _YES if family.in_graph else "bank only"]
        )
    head = ["posterior", "weights in", *(f"`{name}`" for name in ESTIMATORS), "for", "`sampled` graphs"]
    return _write_table(head, rows)


def _write_priors() -> str:
    families = [kind() for kind in posteriors.POSTERIORS.built_in]
    rows = []
    for kind, prior in _PRIORS.items():
        rows.append([f"`{_tag(kind)}`", *(_YES if _fits(family, prior) else _NO for family in families)])
    return _write_table(["prior \\ posterior", *(f"`{_tag(type(family))}`" for family in families)], rows)


def _fits(family: posteriors.Posterior, prior: priors.Prior) -> bool:
    try:
        layers.Conv2D(2, 1, kernel_posterior=family, kernel_prior=prior)
    except ValueError:
        return False
    return True


def _tag(kind: type) -> str:
    return kind.__struct_config__.tag


def _write_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(write_page(PAGE.read_text()))
