"""Writes YAML, in the part of it that every parser reads alike: blocks, with numbers and texts as JSON has them.

No library among the dependencies writes YAML; this little of it is no reason for one more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
# Words that YAML 1.1 takes for something else than a text.
_RESERVED = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"}


def format_yaml(value: Any, indent: int = 0) -> str:
    """Returns a mapping or a list as lines of YAML: texts, numbers, booleans, None, lists, mappings of texts.

    Keys keep their order.
    """
    margin = " " * indent
    if isinstance(value, Mapping) and value:
        return "".join(f"{margin}{_format_scalar(key)}:{_format_below(item, indent)}" for key, item in value.items())
    if isinstance(value, (list, tuple)) and value:
        return "".join(f"{margin}-{_format_item(item, indent)}" for item in value)
    return f"{margin}{_format_scalar(value)}\n"


def _format_below(value: Any, indent: int) -> str:
    if isinstance(value, Mapping) and value:
        return "\n" + format_yaml(value, indent + 2)
    if isinstance(value, (list, tuple)) and value:
        return "\n" + format_yaml(value, indent)
    return f" {_format_scalar(value)}\n"


def _format_item(value: Any, indent: int) -> str:
    if isinstance(value, (Mapping, list, tuple)) and value:
        return " " + format_yaml(value, indent + 2)[indent + 2 :]
    return f" {_format_scalar(value)}\n"


def _format_scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)
