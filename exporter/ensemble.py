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

from probrt.runtime.bundle.manifest import Calibration, HeadRecord, Input
from probrt.runtime.errors import UsageError
from probrt.trainer.heads import Head, Moments
from probrt.trainer.heads.moments import combine_moments
from probrt.trainer.model import Model, map_draws
from probrt.trainer.variational.handlers import DrawHandler, Handler, active_handler, use_handler
from probrt.trainer.variational.random_weight import RandomWeight

MomentsByHead = dict[str, Moments]


@dataclass(frozen=True)
class MemberHandler(Handler):
    """Runs one member under a handler of its own; the other members do not run."""

    member: int
    handler: Handler


@dataclass(frozen=True)
class AverageHandler(Handler):
    """Runs every member under a handler of its own and averages their moments."""

    handlers: tuple[Handler, ...]


@dataclass(frozen=True)
class Ensemble:
    """Several members behind the interface of one model (`Exportable`).

    calibration: none. Temperature and scale act inside each member; conformal thresholds and risk curves were
    measured of the members one by one, and are not the ensemble's.
    """

    name: str
    members: tuple[Model, ...]

    calibration: tuple[Calibration, ...] = ()

    @property
    def input(self) -> Input:
        """The input that every member takes."""
        return self.members[0].input

    @property
    def heads(self) -> tuple[Head, ...]:
        """The first member's heads; the others have the same names, labels and shapes."""
        return self.members[0].heads

    @property
    def weights(self) -> list[RandomWeight]:
        """The random weights of all members."""
        return [weight for member in self.members for weight in member.weights]

    def positions(self, head: Head) -> list[int | None]:
        """Returns the sides of a head's answers after the batch; none for a pooled head."""
        return self.members[0].positions(head)

    def shared_features(self, images: tf.Tensor) -> list[list[tf.Tensor]]:
        """Computes each member's deterministic features."""
        return [member.shared_features(images) for member in self.members]

    def moments(self, images: tf.Tensor) -> MomentsByHead:
        """Returns each head's calibrated moments under the active handler, from the whole networks."""
        return self._evaluate(lambda index: self.members[index].moments(images))

    def moments_from(self, features: list[list[tf.Tensor]]) -> MomentsByHead:
        """Returns each head's calibrated moments under the active handler, from shared features."""
        return self._evaluate(lambda index: self.members[index].moments_from(features[index]))

    def combine_draws(self, images: tf.Tensor, handlers: Sequence[Handler]) -> dict[str, dict[str, tf.Tensor]]:
        """Returns each head's quantities over the draws of some handlers; each member has its own calibration."""
        draws = map_draws(self, images, handlers, self.moments_from)
        return {head.name: combine_moments(head, [draw[head.name] for draw in draws]) for head in self.heads}

    def constant_handler(self, handler: Handler) -> Handler:
        """Returns a handler of every weight's value under `MeanHandler`, or `DrawHandler` of a Python index."""
        if isinstance(handler, DrawHandler):
            index = handler.index % len(self.members)
            return MemberHandler(index, self.members[index].constant_handler(handler))
        return AverageHandler(tuple(member.constant_handler(handler) for member in self.members))

    def draw_handler(self, seed: tf.Tensor, index: tf.Tensor) -> Handler:
        """Returns the handler of draw (seed, index), int32 scalars; the graph finds the member."""
        return DrawHandler(seed, index)

    def draw_handlers(self, seed: tf.Tensor | int, indices: Sequence[int], count: int) -> list[Handler]:
        """Returns handlers of `count` draws (seed, indices[i]); makes each member's noise for all its draws at once."""
        handlers: dict[int, Handler] = {}
        for index, member in enumerate(self.members):
            places = [place for place in range(count) if indices[place] % len(self.members) == index]
            if places:
                own = member.draw_handlers(seed, [indices[place] for place in places], len(places))
                handlers |= {place: MemberHandler(index, handler) for place, handler in zip(places, own, strict=True)}
        return [handlers[place] for place in range(count)]

    def _evaluate(self, fn: Callable[[int], MomentsByHead]) -> MomentsByHead:
        """Evaluates `fn` on the active member, or averages it over all members."""

        def evaluate_under(index: int, handler: Handler) -> MomentsByHead:
            with use_handler(handler):
                return fn(index)

        indices = range(len(self.members))
        match active_handler():
            case MemberHandler(index, handler):
                return evaluate_under(index, handler)
            case AverageHandler(handlers):
                return _average([evaluate_under(index, handlers[index]) for index in indices])
            case DrawHandler() as draw:
                branches = [lambda index=index: evaluate_under(index, draw) for index in indices]
                return tf.switch_case(tf.convert_to_tensor(draw.index, tf.int32) % len(self.members), branches)
            case handler:
                return _average([evaluate_under(index, handler) for index in indices])


def ensemble(
    name: str, folders: Sequence[Path], members: Sequence[Model], stated: Sequence[Sequence[HeadRecord]]
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


def _between(ours: Sequence[HeadRecord], theirs: Sequence[HeadRecord]) -> str:
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


def _average(answers: Sequence[MomentsByHead]) -> MomentsByHead:
    count = float(len(answers))
    return tf.nest.map_structure(lambda *values: tf.add_n(values) / count, *answers)
