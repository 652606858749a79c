"""Classes of the user's own, defined in this process: layers, configs and saved models take them; faults are named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec import ValidationError

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError, DataError, MissingError
from probrt.trainer import backbones, extensions, heads, layers, store
from probrt.trainer.backbones import Backbone, Stage, WeightSettings
from probrt.trainer.build import build_model
from probrt.trainer.config.config import load_config
from probrt.trainer.heads import HEADS
from probrt.trainer.variational.posteriors import POSTERIORS, Posterior
from probrt.trainer.variational.posteriors.location_scale import NormalPosterior
from probrt.trainer.variational.priors import PRIORS, Prior
from probrt.trainer.variational.priors.families import NormalPrior


class WidePosterior(NormalPosterior, frozen=True, tag="wide"):
    """Normal, with another initial scale."""

    initial_scale: float = 0.3


class TightPrior(NormalPrior, frozen=True, tag="tight"):
    """Normal(0, 0.1)."""

    scale: float = 0.1


class SignedHead(heads.Normal, frozen=True, kw_only=True, tag="signed"):
    """A normal head under a name of its own."""


class OneConv(Backbone, frozen=True, tag="one_conv"):
    """A single convolution."""

    width: int = 4

    def stages(self, images: Any, weights: WeightSettings) -> dict[str, Stage]:
        return {"only": Stage(weights.conv(2, self.width, 3, "only", "relu")(images))}


class Tagless(NormalPosterior, frozen=True):
    """Has the tag of its parent."""


class Thawed(Posterior, frozen=False, tag="thawed"):
    """Can change."""


INPUT = Input(shape=[6, 6, 1], colour="grey", resize="none", range=(0.0, 1.0))


def test_a_saved_model_of_own_classes_comes_back(tmp_path: Path) -> None:
    own = heads.Own(weights=WeightSettings(posterior=WidePosterior(0.2), prior=TightPrior()))
    model = build_model(
        "mine",
        INPUT,
        [SignedHead(name="slant"), SignedHead(name="tilt", own=own)],
        backbone=OneConv(),
        weights=WeightSettings(posterior=WidePosterior(), prior=TightPrior()),
    )
    store.save_model(model, tmp_path, images=np.zeros((1, 6, 6, 1), np.float32), provenance={})
    loaded, card = store.load_model(tmp_path)
    assert card.heads == list(model.heads)
    assert [type(weight.posterior) for weight in loaded.weights] == [WidePosterior] * len(model.weights)
    assert {type(weight.prior) for weight in loaded.weights} == {TightPrior}


def test_a_config_takes_own_classes(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'name = "mine"\nbackbone = {name = "one_conv", width = 3}\n[data]\nfolder = "."\n'
        '[input]\nshape = [6, 6, 1]\ncolour = "grey"\nresize = "none"\n'
        '[weights]\nposterior = {name = "wide"}\nprior = {name = "tight"}\n'
        '[[heads]]\nname = "slant"\nlikelihood = "signed"\n'
    )
    loaded = load_config(path)
    assert loaded.backbone == OneConv(3)
    assert loaded.weights.posterior == WidePosterior()
    assert loaded.heads == [SignedHead(name="slant")]
    path.write_text(path.read_text().replace("width", "with"))
    with pytest.raises(ConfigError, match=r"backbone\.with: unknown key; known here: name, width"):
        load_config(path)


def test_a_model_of_a_class_that_is_not_here_names_it(tmp_path: Path) -> None:
    backbone = backbones.ConvStack(widths=(4,))
    model = build_model("mine", INPUT, [heads.Normal(name="slant")], backbone=backbone, weights=WeightSettings())
    store.save_model(model, tmp_path, images=np.zeros((1, 6, 6, 1), np.float32), provenance={})
    for name, old, new in (
        ("model.json", '"likelihood": "normal"', '"likelihood": "odd"'),
        ("architecture.json", '"kernel_posterior": {\n      "name": "normal"', '"kernel_posterior": {"name": "odd"'),
    ):
        text = (tmp_path / name).read_text()
        changed = " ".join(text.split()).replace(" ".join(old.split()), new)
        assert changed != " ".join(text.split())
        (tmp_path / name).write_text(changed)
        with pytest.raises(DataError, match=r"nothing here defines the (head|posterior) 'odd'; install the package"):
            store.load_model(tmp_path)
        (tmp_path / name).write_text(text)


@pytest.mark.parametrize(
    ("posterior", "fault"),
    [
        (Tagless(), r"Tagless has the tag 'normal' of .*NormalPosterior: give it a tag of its own"),
        (Thawed(), "Thawed is not frozen: define it as `class Thawed"),
        (NormalPrior(), "NormalPrior is not a subclass of Posterior"),
    ],
)
def test_a_class_that_cannot_be_saved_is_refused(posterior: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=f"dense: kernel_posterior: .*{fault}"):
        layers.Dense(2, kernel_posterior=posterior, name="dense")


def test_build_model_refuses_a_head_without_a_tag_of_its_own() -> None:
    class Other(heads.Normal, frozen=True, kw_only=True):
        pass

    with pytest.raises(ConfigError, match=r"heads: slant: Other has the tag 'normal'"):
        build_model("mine", INPUT, [Other(name="slant")], backbone=backbones.ConvStack(), weights=WeightSettings())


def _installed(monkeypatch: pytest.MonkeyPatch, value: object) -> extensions.ExtensionPoint:
    """A fresh extension point of priors with one entry point, whose `load` returns or raises `value`."""

    def load() -> object:
        if isinstance(value, Exception):
            raise value
        return value

    entry = SimpleNamespace(name="theirs", load=load, dist=SimpleNamespace(name="their-package"))
    monkeypatch.setattr(extensions.importlib.metadata, "entry_points", lambda group: [entry])
    monkeypatch.setattr(extensions, "_POINTS", [])
    extensions.load_group.cache_clear()
    return extensions.ExtensionPoint("prior", Prior, PRIORS.built_in)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (ImportError("no module x"), MissingError, r" does not load: .*no module x"),
        (NormalPosterior, ConfigError, r": .*NormalPosterior is not a subclass of Prior"),
        (3, ConfigError, r": 3 is not a subclass of Prior"),
        (type("Same", (NormalPrior,), {"__module__": "theirs"}), ConfigError, r": Same has the tag 'normal' of "),
    ],
)
def test_a_faulty_entry_point_is_named(
    monkeypatch: pytest.MonkeyPatch, value: object, kind: type[Exception], message: str
) -> None:
    point = _installed(monkeypatch, value)
    try:
        with pytest.raises(kind, match=r"entry point theirs of probrt.priors \(their-package\)" + message):
            point.convert({"name": "normal"})
    finally:
        extensions.load_group.cache_clear()


def test_an_installed_class_is_known_by_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    point = _installed(monkeypatch, TightPrior)
    assert point.convert({"name": "tight", "scale": 0.2}) == TightPrior(scale=0.2)
    assert list(point.classes())[: len(PRIORS.built_in) + 1][-1] == "tight"
    extensions.load_group.cache_clear()


def test_loading_a_model_loads_every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(extensions, "load_group", lambda group: loaded.append(group) or ())
    extensions.load_installed()
    assert set(loaded) == {f"probrt.{kind}" for kind in ("heads", "posteriors", "priors", "backbones")}


def test_records_stay_strict() -> None:
    with pytest.raises(ValidationError, match=r"unknown field `k`"):
        POSTERIORS.convert({"name": "wide", "k": 1})
    with pytest.raises(extensions.UnknownTagError, match="Invalid value 'odd'; choose from categorical, "):
        HEADS.convert({"likelihood": "odd", "name": "slant"})
