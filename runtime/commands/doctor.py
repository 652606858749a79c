"""`probrt doctor`: which engines and devices are here, what is missing, and the command that installs it."""

import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated

import typer

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.commands.sample_images import sample_images
from probrt.runtime.engines import Engine, engines
from probrt.runtime.errors import ProbrtError, one_line
from probrt.runtime.predict.predictor import load_predictor

EXTRAS = (
    ("pyarrow", "parquet", "Parquet rows and lists"),
    ("nibabel", "volumes", "NIfTI volumes"),
    ("jinja2", "report", "`probrt report`"),
    ("tensorflow_probability", "train", "`probrt train`"),
    ("tf2onnx", "export", "`probrt export`"),
)


def doctor(
    bundle: Annotated[str, typer.Option(help="Also time one image on each engine with this bundle.")] = "",
) -> int:
    """List engines, versions and devices, what is missing and the command that installs it."""
    opened = Bundle.open(bundle) if bundle else None
    print(f"probrt {version('probrt')}, Python {platform.python_version()}, {platform.platform()}")
    for engine in engines():
        print(_describe(engine))
        if opened is not None and engine.installed:
            print(f"  {'':14}{_time(opened, engine)}")
    for line in _missing_extras():
        print(line)
    return 0


def _describe(engine: Engine) -> str:
    if not engine.installed:
        return f"  {engine.name:14}missing  {engine.install}"
    try:
        module = engine.load_module()
        devices = module.devices()
        halved = [device for device in devices if engine.has_bfloat16(device)]
        bfloat16 = f", bfloat16 on {', '.join(halved)}" if halved else ""
        return f"  {engine.name:14}{module.version():10} {', '.join(devices)} (reads {engine.format}){bfloat16}"
    except ProbrtError as error:
        return f"  {engine.name:14}broken   {error}"
    except Exception as error:  # whatever its library raises is what the person wants to see
        return f"  {engine.name:14}broken   {one_line(error)}; {engine.install}"


def _time(bundle: Bundle, engine: Engine) -> str:
    """The seconds from opening to the first answer, and the milliseconds of the next, for one image."""
    try:
        predictor = load_predictor(bundle, engine=engine.name)
        images = sample_images(bundle.manifest, 1)
        start = time.perf_counter()
        predictor(images)
        first = time.perf_counter()
        predictor(images)
        again = time.perf_counter() - first
    except ProbrtError as error:
        return str(error)
    return f"{predictor.plan.line}: first image {first - start:.2f} s, then {again * 1000:.1f} ms"


def _missing_extras() -> Iterator[str]:
    for module, extra, purpose in EXTRAS:
        if find_spec(module) is None:
            yield f"  {purpose} needs: {sys.executable} -m pip install 'probrt[{extra}]'"
