"""`probrt init`: from a folder to a config that trains as it is."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from probrt.runtime.files import write_atomic
from probrt.trainer import data
from probrt.trainer.config.config import load_config
from probrt.trainer.propose.draft import draft_config
from probrt.trainer.propose.write import format_config, show_draft, write_table


def propose_config(folder: Path, out: Path, minutes: float | None, console: Console) -> None:
    """Writes a config for a folder to `out`, with a table and masks beside it where it needs them; prints the choices.

    minutes: of training; a trial chooses the epochs. Reads all data as `train` will, and raises what `train` would.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with console.status(f"looking at {folder}"):
        draft = draft_config(folder, out)
        if draft.source.written:
            write_table(draft, out)
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.stem}-", suffix=".toml") as file:
            trial = Path(file.name)
            trial.write_text(format_config(draft), encoding="utf-8")
            config = load_config(trial)
            dataset = data.read_dataset(config, trial.parent)
    if minutes is not None:
        from probrt.trainer.propose.budget import fit_budget

        with console.status("timing a few steps of training"):
            draft = fit_budget(draft, config, dataset, minutes)
    write_atomic(out, format_config(draft).encode("utf-8"))
    show_draft(draft, console)
