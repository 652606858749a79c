"""`probrt verify`: checks every byte of a bundle, and that its graphs run."""

from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.errors import BundleError, ProbrtError


def verify(
    bundle: Annotated[str, typer.Argument(help="A version folder, or a model folder (newest version).")],
    key: Annotated[Path | None, typer.Option(help="The public key (PEM) of the owner who signed the bundle.")] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Also compare what every file answers on every engine with the export's.")
    ] = False,
) -> int:
    """Check every byte of a bundle (manifest, listing, digests), what its graphs may do, and that each of them runs."""
    from probrt.runtime.bundle.signing import check_signature
    from probrt.runtime.bundle.vetting import vet
    from probrt.runtime.predict.trial import trust_files

    opened = Bundle.open(bundle)
    faults = []
    for file in opened.manifest.listed:
        try:
            if isinstance(file, FileRecord):
                vet(opened, file)
            else:
                opened.check(file)
        except ProbrtError as error:
            faults.append(str(error))
    if faults:
        raise BundleError("; ".join(faults))
    remark = ""
    if key is not None:
        check_signature(opened.path, key)
        trust_files(opened)
        remark = f", signed by the owner of {key}"
    else:
        remark = _try_every_graph(opened)
    if answers:
        remark += _compare_answers(opened)
    size = sum(file.bytes for file in opened.manifest.listed)
    print(f"{opened.label}: {len(opened.manifest.listed)} files, {size} bytes, all as exported{remark}")
    return 0


def _try_every_graph(bundle: Bundle) -> str:
    """Runs every graph once, apart, on the first engine that can; returns a remark on those that none here can."""
    from probrt.runtime.engines import BUILT_IN
    from probrt.runtime.predict.trial import Trial, list_graphs

    faults: list[str] = []
    graphs = {graph.label: graph for engine in BUILT_IN for graph in list_graphs(bundle, engine)}
    for engine in sorted(BUILT_IN, key=lambda engine: engine.start):
        if not engine.installed:
            continue
        chosen = [graph for graph in list_graphs(bundle, engine) if graphs.pop(graph.label, None)]
        with Trial(bundle, engine, chosen) as trial:
            faults += map(str, trial.find_faults())
    if faults:
        raise BundleError("; ".join(dict.fromkeys(faults)))
    untried = sorted({graph.name for graph in graphs.values()})
    return f"; not run, for no engine here reads them: {', '.join(untried)}" if untried else ""


def _compare_answers(bundle: Bundle) -> str:
    """Compares the answers of every file with those of the export; returns a remark on what was compared."""
    from probrt.runtime.predict.stored_answers import compare_answers

    comparison = compare_answers(bundle)
    if comparison.faults:
        raise BundleError("; ".join(comparison.faults))
    return f"; {comparison.calls} calls answer as at export ({', '.join(comparison.engines)})"
