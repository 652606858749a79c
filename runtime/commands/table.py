"""The table of commands: those of probrt, and those of other distributions by the entry-point group."""

import contextlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.errors import MissingError, one_line
from probrt.runtime.functions import load_function

GROUP = "probrt.commands"


@dataclass(frozen=True)
class Command:
    """A row of the table. `target` is `module:function`, imported only when the command runs."""

    name: str
    target: str
    summary: str

    @property
    def exists(self) -> bool:
        """Whether the module defines the function, as its source says without an import."""
        module, _, function = self.target.partition(":")
        try:
            spec = importlib.util.find_spec(module)
        except ImportError:
            return False
        if spec is None or spec.origin is None:
            return False
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return re.search(rf"^def {function}\(", Path(spec.origin).read_text("utf-8"), re.MULTILINE) is not None
        return True  # there is no readable source: the import will tell

    def load(self) -> Callable[..., Any]:
        """Imports the function; MissingError if its module cannot be imported here."""
        try:
            return load_function(self.target)
        except ImportError as error:
            raise MissingError(f"probrt {self.name} cannot run here: {one_line(error)}") from error


COMMANDS = (
    Command("init", "probrt.trainer.cli:init", "look at a folder of images and write a config for it"),
    Command("train", "probrt.trainer.cli:train", "train a probabilistic conv net on labelled images"),
    Command("evaluate", "probrt.trainer.cli:evaluate", "score a trained model on held-out images"),
    Command("calibrate", "probrt.runtime.commands.calibrate:calibrate", "renew calibration on images of your own"),
    Command("adopt", "probrt.trainer.cli:adopt", "make a finished Keras model Bayesian"),
    Command("export", "probrt.exporter.cli:export", "turn a trained model into a bundle"),
    Command("predict", "probrt.runtime.commands.predict:predict", "predict images with uncertainty, one row each"),
    Command("inspect", "probrt.runtime.commands.inspect:inspect", "print what a bundle holds"),
    Command("verify", "probrt.runtime.commands.verify:verify", "check every byte of a bundle"),
    Command("bench", "probrt.runtime.commands.bench:bench", "time the variants of a bundle on every engine"),
    Command("label", "probrt.runtime.commands.label:label", "choose the images to label next"),
    Command("drift", "probrt.runtime.commands.drift:drift", "tell whether new rows look like a reference"),
    Command("replay", "probrt.runtime.commands.replay:replay", "repeat rows on another engine and compare"),
    Command("report", "probrt.runtime.commands.report:report", "make one HTML page of predictions"),
    Command("completion", "probrt.runtime.commands.completion:completion", "print a script that completes in a shell"),
    Command("doctor", "probrt.runtime.commands.doctor:doctor", "list engines and devices, and what is missing"),
)


def list_commands() -> dict[str, Command]:
    """All commands that exist here, by name: the built-in ones first, then those of other distributions."""
    import importlib.metadata  # slow enough to notice, and the built-in commands do not need it

    commands = {command.name: command for command in COMMANDS if command.exists}
    for point in importlib.metadata.entry_points(group=GROUP):
        distribution = point.dist.name if point.dist else "a plug-in"
        commands.setdefault(point.name, Command(point.name, point.value, f"(from {distribution})"))
    return commands


def find_command(name: str) -> Command | None:
    """The command of a name; None if there is none. Looks at other distributions only if it has to."""
    command = next((command for command in COMMANDS if command.name == name), None)
    return command if command is not None and command.exists else list_commands().get(name)
