"""Rewrites the tables of docs/extend.md from the base classes that they describe: python docs/write_extend.py"""

import inspect
import re
import typing
from pathlib import Path
from typing import Any

import msgspec

from probrt.runtime import engines
from probrt.trainer import backbones, heads, posteriors, priors

PAGE = Path(__file__).parent / "extend.md"
# The classes whose members each section lists.
SECTIONS: dict[str, tuple[type, ...]] = {
    "head": (heads.Head,),
    "posterior": (posteriors.Posterior,),
    "prior": (priors.Prior,),
    "backbone": (backbones.Backbone,),
    "engine": (engines.Engine, engines.EngineModule, engines.Graph),
}
# The base class of each kind of head: the one right below Head.
_KIND_BASES = {cls.__mro__[cls.__mro__.index(heads.Head) - 1] for cls in heads.HEADS.built_in}


def write_page(text: str) -> str:
    """Returns the page with its tables written anew."""
    for section, bases in SECTIONS.items():
        start, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
        before, rest = text.split(start)
        tables = "\n\n".join(_write_table(base) for base in bases)
        text = f"{before}{start}\n\n{tables}\n\n{end}{rest.split(end)[1]}"
    return text


def public_members(base: type) -> list[str]:
    """Returns the names of a class's own public members, fields included, in the order of the source."""
    annotated = list(inspect.get_annotations(base))
    defined = [name for name, value in vars(base).items() if callable(value) or isinstance(value, property)]
    names = dict.fromkeys([*annotated, *defined])
    return [name for name in names if not name.startswith("_") or (name == "__call__" and base is engines.Graph)]


def _write_table(base: type) -> str:
    described = _describe_attributes(base)
    rows = [f"| `{base.__name__}` | | |", "| --- | --- | --- |"]
    for name in public_members(base):
        member = vars(base).get(name)
        text = described.get(name) or _describe_type(base, name)
        if member is not None and member.__doc__ and (callable(member) or isinstance(member, property)):
            text = inspect.getdoc(member).split("\n\n")[0]
        text = " ".join(text.split()).rstrip(".;").replace("|", "\\|")
        rows.append(f"| `{_write_name(name, member)}` | {_say_who_defines(base, name)} | {text} |")
    return "\n".join(rows)


def _write_name(name: str, member: Any) -> str:
    if not inspect.isfunction(member):
        return name
    arguments = [argument for argument in inspect.signature(member).parameters if argument != "self"]
    return f"{name}({', '.join(arguments)})"


def _describe_type(base: type, name: str) -> str:
    """Returns the type of an attribute, or of what a function returns, for a member that no docstring describes."""
    member = vars(base).get(name)
    hint = inspect.get_annotations(base).get(name, "")
    if inspect.isfunction(member):
        hint = inspect.signature(member).return_annotation
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    text = re.sub(r"^ClassVar\[(.*)\]$", r"\1", text)
    return f"`{text}`"


def _say_who_defines(base: type, name: str) -> str:
    """Whether a subclass must define a member, may, or leaves it to the users of the class."""
    hint = base.__annotations__.get(name)
    if hint is not None and "ClassVar" not in str(hint):
        return "field"
    if not issubclass(base, msgspec.Struct):
        return "must define" if base in (engines.EngineModule, engines.Graph) else "has"
    if not _is_missing(base, name):
        return "may define"
    defined_by_kind = base is heads.Head and not any(_is_missing(kind, name) for kind in _KIND_BASES)
    return "its kind defines" if defined_by_kind else "must define"


def _is_missing(cls: type, name: str) -> bool:
    """Whether a class leaves a member to its subclasses: a class attribute without a value, a method that raises."""
    member = inspect.getattr_static(cls, name, None)
    if member is None:
        return True
    function = member.fget if isinstance(member, property) else member
    return inspect.isfunction(function) and "raise TypeError(" in inspect.getsource(function)


def _describe_attributes(base: type) -> dict[str, str]:
    """Returns what a class's docstring says of its attributes: entries `name, name: text`."""
    described: dict[str, str] = {}
    names: list[str] = []
    known = set(typing.get_type_hints(base)) if base is not engines.Graph else set()
    for line in (inspect.getdoc(base) or "").splitlines():
        for part in re.split(r"(?<=[.;]) (?=[a-z_0-9, ]+: )", line.strip()):
            entry = re.match(r"([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)", part)
            if entry and set(entry[1].split(", ")) <= known:
                names = entry[1].split(", ")
                described |= dict.fromkeys(names, entry[2])
            elif not part:
                names = []
            else:
                described |= {name: f"{described[name]} {part}" for name in names}
    return described


if __name__ == "__main__":
    PAGE.write_text(write_page(PAGE.read_text()))
