"""A deep ensemble (Lakshminarayanan et al. 2017): several trained models whose draws fill one bank.

Draw (seed, index) of the ensemble is draw (seed, index) of member index modulo the number of members. A member
without random weights has one draw, itself. `mean` averages what the members say at their posterior means: mean,
aleatoric and further outputs; how far the members lie apart is epistemic, and only draws show it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tensorflow as tf

from probrt.runtime.bundle.manifest import Calibration, Head, Input
from probrt.runtime.errors import UsageError
from probrt.trainer.heads import AnyHead, Moments, moments
from probrt.trainer.model import Model
from probrt.trainer.variational import weights

Said = dict[str, Moments]


@dataclass(frozen=True)
class One(weights.Reading):
    """One member under a reading of its own; what the others would say is not asked."""

    member: int
    reading: weights.Reading


@dataclass(frozen=True)
class Each(weights.Reading):
    """Every member under a reading of its own, their answers averaged."""

    readings: tuple[weights.Reading, ...]


@dataclass(frozen=True)
class Ensemble:
    """The members as one model: what the exporter asks of a Model, it answers.

    calibration: none. Temperature and scale act inside each member; conformal thresholds and risk curves were
    measured of the members one by one, and are not the ensemble's.
    """

    name: str
    members: tuple[Model, ...]

    calibration: tuple[Calibration, ...] = ()

    @property
    def input(self) -> Input:
        """What every member takes."""
        return self.members[0].input

    @property
    def heads(self) -> tuple[AnyHead, ...]:
        """The first member's: as to names, labels and shapes everyone's."""
        return self.members[0].heads

    @property
    def weights(self) -> list[weights.RandomWeight]:
        """The random weights of all members."""
        return [weight for member in self.members for weight in member.weights]

    def positions(self, head: AnyHead) -> list[int | None]:
        """The sides of a head's answers after the batch; none for a pooled head."""
        return self.members[0].positions(head)

    def shared(self, images: tf.Tensor) -> list[list[tf.Tensor]]:
        """Of each member what no random weight has a part in."""
        return [member.shared(images) for member in self.members]

    def moments(self, images: tf.Tensor) -> Said:
        """Each head's calibrated moments under the reading in force."""
        return self._said(lambda number: self.members[number].moments(images))

    def moments_after(self, shared: list[list[tf.Tensor]]) -> Said:
        """The same from what `shared` gives."""
        return self._said(lambda number: self.members[number].moments_after(shared[number]))

    def over(
        self, shared: list[list[tf.Tensor]], readings: Sequence[weights.Reading]
    ) -> dict[str, dict[str, tf.Tensor]]:
        """Each head's quantities over the draws of some readings; members have calibrations of their own."""
        drawn = []
        for one in readings:
            with weights.reading(one):
                drawn.append(self.moments_after(shared))
        return {head.name: moments.combined(head, [draw[head.name] for draw in drawn]) for head in self.heads}

    def constants(self, chosen: weights.Reading) -> weights.Reading:
        """`Mean` or `Draw` of a Python index, with every random weight that it needs computed now."""
        if isinstance(chosen, weights.Draw):
            number = chosen.index % len(self.members)
            return One(number, self.members[number].constants(chosen))
        return Each(tuple(member.constants(chosen) for member in self.members))

    def draw(self, seed: tf.Tensor, index: tf.Tensor) -> weights.Reading:
        """The reading of draw (seed, index), int32 scalars, whose member the graph finds."""
        return weights.Draw(seed, index)

    def draws(self, seed: tf.Tensor | int, indices: Sequence[int], count: int) -> list[weights.Reading]:
        """Readings of `count` draws (seed, indices[i]); each member's noise is made for all of its own at once."""
        found: dict[int, weights.Reading] = {}
        for number, member in enumerate(self.members):
            places = [place for place in range(count) if indices[place] % len(self.members) == number]
            if places:
                readings = member.draws(seed, [indices[place] for place in places], len(places))
                found |= {place: One(number, one) for place, one in zip(places, readings, strict=True)}
        return [found[place] for place in range(count)]

    def _said(self, ask: Callable[[int], Said]) -> Said:
        """What the member, or all of them, that the reading in force means say to `ask`."""

        def under(number: int, chosen: weights.Reading) -> Said:
            with weights.reading(chosen):
                return ask(number)

        numbers = range(len(self.members))
        match weights.current():
            case One(member, chosen):
                return under(member, chosen)
            case Each(readings):
                return _average([under(number, readings[number]) for number in numbers])
            case weights.Draw() as draw:
                branches = [lambda number=number: under(number, draw) for number in numbers]
                return tf.switch_case(tf.convert_to_tensor(draw.index, tf.int32) % len(self.members), branches)
            case chosen:
                return _average([under(number, chosen) for number in numbers])


def ensemble(
    name: str, folders: Sequence[Path], members: Sequence[Model], stated: Sequence[Sequence[Head]]
) -> Ensemble:
    """The members as one model; `stated` are each one's heads as the manifest would have them.

    Raises UsageError, which names the first difference, if two members do not answer the same question.
    """
    twice = next((one for number, one in enumerate(folders) if one.resolve() in _resolved(folders[:number])), None)
    if twice is not None:
        raise UsageError(f"{twice}: named twice; the members of an ensemble are different models")
    for folder, member, heads in zip(folders[1:], members[1:], stated[1:], strict=True):
        difference = _difference("input", members[0].input, member.input) or _between(stated[0], heads)
        if difference:
            raise UsageError(f"{folder}: no ensemble with {folders[0]}: {difference}")
    return Ensemble(name or members[0].name, tuple(members))


def _resolved(folders: Sequence[Path]) -> list[Path]:
    return [folder.resolve() for folder in folders]


def _between(ours: Sequence[Head], theirs: Sequence[Head]) -> str:
    """How the second heads differ from the first, or an empty string; their order does not matter."""
    names, others = ([head.name for head in heads] for heads in (ours, theirs))
    if sorted(names) != sorted(others):
        return f"its heads are {', '.join(others)}, not {', '.join(names)}"
    found = {head.name: head for head in theirs}
    return next(filter(None, (_difference(f"head {head.name}", head, found[head.name]) for head in ours)), "")


def _difference(what: str, ours: Any, theirs: Any) -> str:
    """The first field in which two records differ, in words, or an empty string."""
    for field in msgspec.structs.fields(ours):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if mine != other:
            return f"{what} has {field.name} {_short(other)}, not {_short(mine)}"
    return ""


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:117]}..."


def _average(answers: Sequence[Said]) -> Said:
    count = float(len(answers))
    return tf.nest.map_structure(lambda *values: tf.add_n(values) / count, *answers)
