"""Extensions: posteriors, priors, heads and backbones that other packages, or the user's own code, define.

A config and a saved model name a class by its tag, such as "normal" or "unet". The class is a built-in one, one that
an installed package names in the entry-point group (`probrt.posteriors`, `probrt.priors`, `probrt.heads`,
`probrt.backbones`), or a subclass that this process defines. Entry points load on first use rather than on import,
because the packages behind them import probrt themselves.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from typing import Any, TypeVar, Union

import msgspec
from msgspec import Struct

from probrt.runtime.errors import ConfigError, MissingError, one_line

T = TypeVar("T")

GROUPS = ("probrt.backbones", "probrt.heads", "probrt.posteriors", "probrt.priors")

_POINTS: list[ExtensionPoint] = []


class UnknownTagError(ValueError):
    """A record names a class that is neither built in, nor installed, nor defined in this process."""

    def __init__(self, kind: str, tag: str, field: str, known: Mapping[str, type]) -> None:
        super().__init__(
            f"Invalid value {tag!r}; choose from {', '.join(known)}, or install the package that defines it "
            f"- at `$.{field}`"
        )
        self.kind, self.tag = kind, tag


class FieldType(type):
    """The type of a record's field that takes any class of an extension point; msgspec asks `point` to convert it."""

    point: ExtensionPoint

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, cls.point.base)


class ExtensionPoint:
    """One kind of class that others can add: a posterior, a prior, a head or a backbone.

    kind: the name in messages; the entry-point group is `probrt.<kind>s`. base: the class that all of them extend.
    built_in: probrt's own classes, in the order of messages and docs.
    field_type: the annotation of a record's field that takes any of the classes.
    """

    def __init__(self, kind: str, base: type[Struct], built_in: tuple[type[Struct], ...]) -> None:
        self.kind, self.base, self.built_in = kind, base, built_in
        self.group = f"probrt.{kind}s"
        self.field_type = FieldType(f"Any{kind.title()}", (), {"point": self})
        _POINTS.append(self)

    def classes(self) -> dict[str, type[Struct]]:
        """Returns every class by its tag: the built-in ones, the installed ones, those defined in this process."""
        classes = {tag_of(cls): cls for cls in self.built_in} | self._installed
        taken = set(classes)
        # The later of two definitions wins: a notebook's cell may run twice.
        return classes | {tag_of(cls): cls for cls in _foreign_subclasses(self.base) if tag_of(cls) not in taken}

    def explain_fault(self, cls: object) -> str | None:
        """Returns why a class cannot extend probrt here, as the end of a sentence; None if it can."""
        return self._explain_shape(cls) or _explain_tag(cls, self.classes())

    def convert(self, record: Any) -> Any:
        """Converts a record to the class that its tag names.

        Raises UnknownTagError if no class has the tag, msgspec.ValidationError if the record does not fit the class.
        """
        classes = self.classes()
        field = self.base.__struct_config__.tag_field or "type"
        tag = record.get(field) if isinstance(record, Mapping) else None
        if isinstance(tag, str) and tag not in classes:
            raise UnknownTagError(self.kind, tag, field, classes)
        return convert_record(record, union_of(classes.values()))

    @cached_property
    def _installed(self) -> dict[str, type[Struct]]:
        classes = {tag_of(cls): cls for cls in self.built_in}
        installed: dict[str, type[Struct]] = {}
        for where, cls in load_group(self.group):
            if fault := self._explain_shape(cls) or _explain_tag(cls, classes | installed):
                raise ConfigError(f"{where}: {fault}")
            installed[tag_of(cls)] = cls
        return installed

    def _explain_shape(self, cls: object) -> str | None:
        if not (isinstance(cls, type) and issubclass(cls, self.base) and cls is not self.base):
            return f"{_name(cls)} is not a subclass of {self.base.__name__}"
        if not cls.__struct_config__.frozen:
            return f"{cls.__name__} is not frozen: define it as `class {cls.__name__}(…, frozen=True, tag=…)`"
        return None


@cache
def load_group(group: str) -> tuple[tuple[str, Any], ...]:
    """Loads what installed packages name in an entry-point group: pairs of a name for messages and the object.

    Raises MissingError, which names the entry point and its distribution, for one that does not load.
    """
    loaded = []
    for point in importlib.metadata.entry_points(group=group):
        where = f"entry point {point.name} of {group} ({point.dist.name if point.dist else 'unknown distribution'})"
        try:
            loaded.append((where, point.load()))
        except Exception as error:  # another package's fault, named with its entry point
            raise MissingError(f"{where} does not load: {one_line(error)}") from None
    return tuple(loaded)


def load_installed() -> None:
    """Loads every entry point of every group, so that Keras knows the layers that the packages register."""
    for group in GROUPS:
        load_group(group)


def convert_record(record: Any, kind: type[T]) -> T:
    """Converts plain data to `kind` strictly, extensions included; msgspec.ValidationError says what is wrong where."""
    return msgspec.convert(record, kind, dec_hook=_convert_field)


def find_unknown_tag(error: BaseException | None) -> UnknownTagError | None:
    """Returns the unknown tag that caused an error, directly or not; None if another fault did."""
    while error is not None and not isinstance(error, UnknownTagError):
        error = error.__cause__ or error.__context__
    return error


def json_schema(kind: type) -> dict[str, Any]:
    """Returns the JSON Schema of a record, with the built-in classes alone: it depends on nothing that is installed."""
    unions = [union_of(point.built_in) for point in _POINTS]
    (schema, *_), definitions = _schema_components([kind, *unions])
    return {**schema, "$defs": definitions}


def tag_of(cls: type[Struct]) -> str:
    """Returns the tag that names a class in records."""
    return str(cls.__struct_config__.tag)


def union_of(classes: Any) -> Any:
    """Returns the union of some classes, for msgspec."""
    return Union[tuple(classes)]  # noqa: UP007  (the members are known at run time only)


def _convert_field(field_type: type, record: Any) -> Any:
    if not isinstance(field_type, FieldType):
        raise TypeError(f"no conversion to {field_type.__name__}")
    try:
        return field_type.point.convert(record)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error  # msgspec adds the path to a ValueError


def _schema_components(kinds: list[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    def schema_of_field(field_type: type) -> dict[str, Any]:
        if not isinstance(field_type, FieldType):
            raise NotImplementedError
        (schema,), _ = _schema_components([union_of(field_type.point.built_in)])
        return schema

    return msgspec.json.schema_components(kinds, schema_hook=schema_of_field, ref_template="#/$defs/{name}")


def _foreign_subclasses(base: type[Struct]) -> Iterator[type[Struct]]:
    """Yields the subclasses, at any depth, that are not probrt's own."""
    for cls in base.__subclasses__():
        if not cls.__module__.startswith("probrt."):
            yield cls
        yield from _foreign_subclasses(cls)


def _explain_tag(cls: Any, classes: Mapping[str, type]) -> str | None:
    other = classes.get(tag_of(cls), cls)
    if other is cls:
        return None
    return f"{cls.__name__} has the tag {tag_of(cls)!r} of {_name(other)}: give it a tag of its own"


def _name(value: object) -> str:
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else repr(value)
