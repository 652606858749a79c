"""Functions named in text as `module:function`: of a command, of a user's backbone, of a model to adopt."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def load_function(name: str, folder: Path | None = None) -> Callable[..., Any]:
    """Imports the function that `module:function` names.

    folder: searched for the module before the installed ones.
    Raises ImportError if the module cannot be imported, AttributeError if it has no such function, ValueError if no
    module is named.
    """
    module, _, function = name.partition(":")
    with _search_first(folder) if folder else contextlib.nullcontext():
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return loaded


@contextlib.contextmanager
def _search_first(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
