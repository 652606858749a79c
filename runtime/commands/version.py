"""What `probrt --version` prints."""

import platform
from importlib.metadata import version

from probrt.runtime.engines import engines


def format_version() -> str:
    """Returns the version of probrt, then a line per engine with its version or how to install it; imports none."""
    lines = [
        f"  {engine.name:14}{engine.version if engine.installed else f'missing  {engine.install}'}"
        for engine in engines()
    ]
    return "\n".join([f"probrt {version('probrt')}, Python {platform.python_version()}", *lines])
