"""Writes the pages that the code determines: python docs/write_reference.py

docs/commands.md has every command with its options, docs/configuration.md every key of a training config,
docs/bundle.md every key of a bundle's manifest, and docs/api.md the Python names for use in programs.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer
from msgspec import inspect as schemas

from probrt.runtime.bundle.manifest import Manifest
from probrt.runtime.commands.table import COMMANDS
from probrt.trainer.config.config import Config
from probrt.trainer.config.explain import literals, records_of
from probrt.trainer.config.template import default_of, read_meanings

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/write_reference.py from the code. -->\n"
# The public names by module, in the order of their use.
API: dict[str, tuple[str, ...]] = {
    "probrt.runtime": ("Bundle", "load_predictor", "Prediction", "Answer", "read_image", "Engine"),
    "probrt.runtime.predict.predictor": ("Predictor",),
    "probrt.runtime.predict.combine": ("Combiner",),
    "probrt.trainer.keras_model": ("BayesianModel", "HeadLoss"),
    "probrt.trainer.config.config": ("load_config",),
    "probrt.trainer.build": ("build_model",),
    "probrt.trainer.model": ("Model",),
    "probrt.trainer.fit.loop": ("fit_model", "FitRun", "EpochReport"),
    "probrt.trainer.calibration.calibrate": ("calibrate_model",),
    "probrt.trainer.calibration.novelty": ("add_novelty",),
    "probrt.trainer.store": ("save_model", "load_model"),
    "probrt.trainer.evaluate.evaluate": ("evaluate_model",),
    "probrt.trainer.variational.handlers": ("use_handler", "MeanHandler", "DrawHandler"),
    "probrt.exporter.export": ("export", "ExportResult"),
    "probrt.exporter.plan": ("ExportRequest",),
}


def write_commands() -> str:
    """Returns the page of commands."""
    lines = [
        f"# Commands\n\n{NOTE}",
        "`probrt --version` names the engines, `probrt COMMAND --help` prints what is here, and `--debug` behind a",
        "command prints the traceback of a fault. Exit codes: 0 all is well, 1 finished with error rows or",
        "differences, 2 refused, 3 a fault of storage or of probrt, 130 and 143 after SIGINT and SIGTERM.\n",
    ]
    for command in COMMANDS:
        if command.exists:
            lines += [f"## probrt {command.name}\n", *_describe_command(command.load(), command.name)]
    return "\n".join(lines).rstrip() + "\n"


def _describe_command(function: Any, name: str) -> Iterator[str]:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(function)
    parameters = [parameter for parameter in typer.main.get_command(app).params if parameter.name != "help"]
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    words = " ".join(_name_argument(argument) for argument in arguments)
    yield f"{inspect.getdoc(function)}\n"
    yield f"    probrt {name} {words} [OPTIONS]\n"
    if arguments:
        yield from ("| argument | |", "|---|---|")
        yield from (f"| `{_name_argument(argument)}` | {_clean(argument.help)} |" for argument in arguments)
        yield ""
    options = [parameter for parameter in parameters if parameter.param_type_name == "option"]
    if options:
        yield from ("| option | default | |", "|---|---|---|")
        for option in options:
            names = " ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
            yield f"| {names} | {_format_default(option)} | {_clean(option.help)} |"
        yield ""


def _name_argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return f"{name}…" if argument.nargs == -1 and not name.endswith("…") else name


def _format_default(option: Any) -> str:
    if option.default is None or option.default == "" or callable(option.default):
        return ""
    if isinstance(option.default, bool):
        return "on" if option.default and option.secondary_opts else ""
    return f"`{option.default}`"


def write_configuration() -> str:
    """Returns the page of the config's keys."""
    lines = [
        f"# Configuration\n\n{NOTE}",
        "A training config is TOML. `probrt init FOLDER` writes one, `probrt train CONFIG --print-config` prints one",
        "with all its keys, and with [config.schema.json](config.schema.json) editors check it. What heads and",
        "backbones do is in [models.md](models.md), the random weights in [layers.md](layers.md), the fit in",
        "[train.md](train.md).\n",
    ]
    lines += _describe_records(schemas.type_info(Config), "", "The file")
    return "\n".join(lines).rstrip() + "\n"


def write_bundle() -> str:
    """Returns the page of the bundle format."""
    lines = [
        f"# Bundle format\n\n{NOTE}",
        "A bundle is a folder `artifacts/<model>/<version>/`, the version being a whole number. TensorFlow Serving",
        "takes `artifacts/<model>` as its base path.\n",
        "| file | what |",
        "|---|---|",
        *(f"| {file} | {what} |" for file, what in _FILES.items()),
        "\nA name is `<variant>[-NN][.fp16|.dynamic|.int8].<tflite|onnx>`. Any other file in the folder, a link, a",
        "path that leaves it and a file whose digest differs are refused. [without_probrt.md](without_probrt.md) runs",
        "each file by itself.\n",
        "The manifest, `probrt.json`, is JSON of at most 1 MB with the keys below;",
        "[manifest.schema.json](manifest.schema.json) is its schema. `format` is read before the rest, so that an",
        "older probrt can name the version that it needs. Unknown keys are refused. Outputs are named",
        "`<head>.<quantity>`; a quantity that a variant cannot know is absent, never zero.\n",
    ]
    lines += _describe_records(schemas.type_info(Manifest), "", "`probrt.json`", is_toml=False)
    return "\n".join(lines).rstrip() + "\n"


# What lies in a bundle.
_FILES = {
    "`probrt.json`": "the manifest",
    "`saved_model.pb`, `variables/`, `assets.extra/`": "the SavedModel with its signatures ([serving.md](serving.md))",
    "`mean.tflite`, `mean.onnx`": "one pass at the posterior mean: no epistemic part",
    "`draws-NN.tflite`, `draws-NN.onnx`": "a chunk of the bank, 8 draws each",
    "`sampled.tflite`, `sampled.onnx`": "8 draws that the graph makes from `seed` and `start`",
    "`sbom.cdx.json`": "a CycloneDX bill of materials of the export",
    "`answers.json`": "what each file answered to a few generated images at export",
    "`probrt.sig`": "the signature, if it is signed",
}


def _describe_records(schema: schemas.Type, path: str, title: str, is_toml: bool = True) -> list[str]:
    """Returns a section for each record that a type may be, then those of their fields."""
    lines: list[str] = []
    nested: dict[str, schemas.Type] = {}
    records = list(records_of(schema))
    for record in records:
        tag = f"{record.tag_field} = {record.tag!r}".replace("'", '"') if record.tag_field else ""
        heading = " ".join(filter(None, [title, f"`{tag}`" if tag else ""]))
        lines += [f"{'##' if len(records) == 1 else '###'} {heading}\n"]
        if path and record.cls.__doc__:
            lines += [_clean(record.cls.__doc__.split("\n\n")[0]) + "\n"]
        meanings, rows = read_meanings(record), []
        for field in record.fields:
            if _item_records(field.type):
                nested[field.encode_name] = field.type
            rows.append(_describe_field(field, meanings.get(field.encode_name, "")))
        if rows:
            lines += ["| key | default | meaning |", "|---|---|---|", *rows, ""]
    for key, kind in nested.items():
        whole = f"{path}{key}"
        item = kind.item_type if isinstance(kind, schemas.ListType | schemas.VarTupleType) else kind
        is_list = item is not kind
        if (
            path
            and key in ("weights", "posterior", "prior", "bias_posterior", "bias_prior")
            and whole in _SEEN_ELSEWHERE
        ):
            continue
        name = (f"`[[{whole}]]`" if is_list else f"`[{whole}]`") if is_toml else f"`{whole}`{', a list' * is_list}"
        if len(_item_records(kind)) > 1:
            lines += [f"## {name}\n"]
        lines += _describe_records(item, f"{whole}.", name, is_toml)
    return lines


# Records that are described under another path: a head's own layers have those of the whole model.
_SEEN_ELSEWHERE = {
    *(f"heads.own.{key}" for key in ("weights",)),
    *(f"weights.{key}" for key in ("bias_posterior", "bias_prior")),
}


def _item_records(kind: schemas.Type) -> list[schemas.StructType]:
    item = kind.item_type if isinstance(kind, schemas.ListType | schemas.VarTupleType) else kind
    return list(records_of(item))


def _describe_field(field: schemas.Field, meaning: str) -> str:
    default = default_of(field)
    shown = "required" if field.required else "" if default is None else f"`{_format_value(default)}`"
    words = literals(field.type)
    choices = f"one of {', '.join(words)}. " if words else ""
    return f"| `{field.encode_name}` | {shown} | {_clean(choices + meaning)} |"


def _format_value(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else "{…}" if isinstance(value, dict) else "[…]"


def write_api() -> str:
    """Returns the page of Python names."""
    lines = [
        f"# Python API\n\n{NOTE}",
        "These names are for programs. What the packages hold besides is in [architecture.md](architecture.md), and",
        "the classes to derive from in [extend.md](extend.md). Shapes are those of [glossary.md](glossary.md).\n",
    ]
    for module_name, names in API.items():
        lines.append(f"## {module_name}\n")
        module = importlib.import_module(module_name)
        for name in names:
            lines += _describe_name(getattr(module, name), name)
    return "\n".join(lines).rstrip() + "\n"


def _describe_name(value: Any, name: str) -> Iterable[str]:
    yield f"### {name}\n"
    yield f"```text\n{name}{_format_signature(value)}\n```\n"
    yield _format_docstring(value)
    if not inspect.isclass(value):
        return
    members = {key: member for key, member in vars(value).items() if not key.startswith("_") or key == "__call__"}
    rows = []
    for key, member in members.items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if isinstance(member, property) and member.__doc__:
            rows.append(f"| `.{key}` | {_clean(inspect.getdoc(member).split(chr(10) * 2)[0])} |")
        elif inspect.isfunction(function) and function.__doc__:
            call = "" if key == "__call__" else f".{key}"
            rows.append(f"| `{call}{_format_parameters(function)}` | {_clean(inspect.getdoc(function))} |")
    if rows:
        yield from ("| member | |", "|---|---|", *rows, "")


def _format_signature(value: Any) -> str:
    signature = inspect.signature(value)
    parts = [_format_parameter(parameter) for parameter in signature.parameters.values()]
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        parts.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returned = signature.return_annotation
    result = "" if inspect.isclass(value) or returned is signature.empty else f" -> {_format_type(returned)}"
    text = f"({', '.join(parts)}){result}"
    return text if len(text) < 90 else "(\n    " + ",\n    ".join(parts) + f",\n){result}"


def _format_parameter(parameter: inspect.Parameter) -> str:
    kind = "" if parameter.annotation is parameter.empty else f": {_format_type(parameter.annotation)}"
    default = parameter.default
    if default is parameter.empty:
        return f"{parameter.name}{kind}"
    plain = default is None or isinstance(default, str | int | float | tuple | Path)
    return f"{parameter.name}{kind} = {repr(default) if plain else '…'}"


def _format_type(annotation: Any) -> str:
    """Returns a type as the source writes it, without the modules of its classes."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text).replace("'", "")


def _format_parameters(function: Any) -> str:
    names = [
        f"*{name}" if parameter.kind is parameter.VAR_POSITIONAL else name
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "cls")
    ]
    return f"({', '.join(names)})"


def _format_docstring(value: Any) -> str:
    return (inspect.getdoc(value) or "").replace("<", "&lt;") + "\n"


def _clean(text: str | None) -> str:
    """Returns a text as one line of a table."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


PAGES = {
    "commands.md": write_commands,
    "configuration.md": write_configuration,
    "bundle.md": write_bundle,
    "api.md": write_api,
}

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for page, write in PAGES.items():
        (folder / page).write_text(write(), encoding="utf-8")
