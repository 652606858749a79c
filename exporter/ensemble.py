"""A deep ensemble (Lakshminarayanan et al. 2017): several trained models whose draws fill one bank.

Draw (seed, index) of the ensemble is draw (seed, index) of member `index % len(members)`. A member without random
weights has one draw: itself. `mean` averages the members' answers at their posterior means: mean, aleatoric and
further outputs. The spread between members is epistemic, and only draws show it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tensorflow as tf

from probrt.exporter.member_handlers import AverageHandler, MemberHandler
from probrt.runtime.bundle.manifest import Calibration, HeadRecord, Input, Record
from probrt.runtime.errors import UsageError
from probrt.trainer.heads import AnyHead, Moments
from probrt.trainer.heads.moments import combine_moments
from probrt.trainer.model import Model, map_draws
from probrt.trainer.novelty.score import Novelty
from probrt.trainer.variational.handlers import DrawHandler, Handler, active_handler, use_handler
from probrt.trainer.variational.random_weight import RandomWeight

MomentsByHead = dict[str, Moments]


@dataclass(frozen=True)
class Ensemble:
    """Several members behind the interface of one model (`Exportable`).

    The novelty is the first member's: it costs one pass, those of all members would cost one each.

    calibration: none. Temperature and scale act inside each member; conformal thresholds and risk curves were measured
    on each member alone and do not hold for the ensemble.
    """

    name: str
    members: tuple[Model, ...]

    calibration: tuple[Calibration, ...] = ()

    @property
    def input(self) -> Input:
        """The input that every member takes."""
        return self.members[0].input

    @property
    def heads(self) -> tuple[AnyHead, ...]:
        """The first member's heads; the others have the same names, labels and shapes."""
        return self.members[0].heads

    @property
    def weights(self) -> list[RandomWeight]:
        """The random weights of all members."""
        return [weight for member in self.members for weight in member.weights]

    @property
    def novelty(self) -> Novelty | None:
        """How the first member computes novelty."""
        return self.members[0].novelty

    @property
    def tuned(self) -> None:
        """None: the draws of an ensemble are as generated."""

    @property
    def max_draws(self) -> int | None:
        """One draw per member without random weights; else no bound (None)."""
        return None if self.weights else len(self.members)

    @property
    def draws_in_graph(self) -> bool:
        """False: a TFLite or ONNX graph would have to hold every member and choose among them."""
        return False

    def positions(self, head: AnyHead) -> list[int | None]:
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

    def moments_and_novelty(self, images: tf.Tensor) -> tuple[MomentsByHead, dict[str, tf.Tensor]]:
        """Returns each head's calibrated moments, averaged over members, and the first member's novelty."""
        first, *others = range(len(self.members))
        with use_handler(self._member_handler(first)):
            moments, novelty = self.members[first].moments_and_novelty(images)
        answers = [moments]
        for index in others:
            with use_handler(self._member_handler(index)):
                answers.append(self.members[index].moments(images))
        return _average(answers), novelty

    def novelty_from(self, features: list[list[tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Returns the first member's novelty from shared features; empty if it has none."""
        with use_handler(self._member_handler(0)):
            return self.members[0].novelty_from(features[0])

    def combine_draws(
        self, features: list[list[tf.Tensor]], handlers: Sequence[Handler]
    ) -> dict[str, dict[str, tf.Tensor]]:
        """Returns each head's quantities over the draws of some handlers; each member has its own calibration."""
        draws = map_draws(features, handlers, self.moments_from)
        return {head.name: combine_moments(head, [draw[head.name] for draw in draws]) for head in self.heads}

    def constant_mean_handler(self) -> Handler:
        """Returns a handler that averages the members at their posterior means, all weights constant."""
        return AverageHandler(tuple(member.constant_mean_handler() for member in self.members))

    def constant_draw_handler(self, seed: int, index: int) -> Handler:
        """Returns a handler that runs the member of draw (seed, index), all its weights constant."""
        member = index % len(self.members)
        return MemberHandler(member, self.members[member].constant_draw_handler(seed, index))

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

    def _member_handler(self, index: int) -> Handler:
        """Returns the handler of one member at the posterior mean, from the active one of all."""
        handler = active_handler()
        return handler.handlers[index] if isinstance(handler, AverageHandler) else handler

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
                branches = [functools.partial(evaluate_under, index, draw) for index in indices]
                member = tf.convert_to_tensor(draw.index, tf.int32) % len(self.members)
                moments: MomentsByHead = tf.switch_case(member, branches)
                return moments
            case handler:
                return _average([evaluate_under(index, handler) for index in indices])


def make_ensemble(
    name: str, folders: Sequence[Path], members: Sequence[Model], head_records: Sequence[Sequence[HeadRecord]]
) -> Ensemble:
    """Joins trained models to one ensemble; the first one's name is the default.

    folders, head_records: of each member, for messages and comparison. Raises UsageError, which names the first
    difference, if two members do not have the same input and heads.
    """
    resolved = [folder.resolve() for folder in folders]
    for position, folder in enumerate(folders):
        if resolved[position] in resolved[:position]:
            raise UsageError(f"{folder}: named twice; the members of an ensemble are different models")
    for folder, member, records in zip(folders[1:], members[1:], head_records[1:], strict=True):
        difference = _compare_records("input", members[0].input, member.input) or _compare_heads(
            head_records[0], records
        )
        if difference:
            raise UsageError(f"{folder}: no ensemble with {folders[0]}: {difference}")
    return Ensemble(name or members[0].name, tuple(members))


def _compare_heads(expected: Sequence[HeadRecord], records: Sequence[HeadRecord]) -> str:
    """Returns how the second heads differ from the first, or an empty string; their order does not matter."""
    names, expected_names = ([head.name for head in heads] for heads in (records, expected))
    if sorted(names) != sorted(expected_names):
        return f"its heads are {', '.join(names)}, not {', '.join(expected_names)}"
    by_name = {head.name: head for head in records}
    differences = (_compare_records(f"head {head.name}", head, by_name[head.name]) for head in expected)
    return next(filter(None, differences), "")


def _compare_records(what: str, expected: Record, record: Record) -> str:
    """Returns the first field in which two records differ, in words, or an empty string."""
    for field in msgspec.structs.fields(expected):
        value, expected_value = getattr(record, field.name), getattr(expected, field.name)
        if value != expected_value:
            return f"{what} has {field.name} {_to_text(value)}, not {_to_text(expected_value)}"
    return ""


def _to_text(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:117]}..."


def _average(answers: Sequence[MomentsByHead]) -> MomentsByHead:
    count = float(len(answers))
    average: MomentsByHead = tf.nest.map_structure(lambda *values: tf.add_n(values) / count, *answers)
    return average
