"""What `probrt predict` prints while it works and when it ends."""

import time
from dataclasses import dataclass, field

from probrt.runtime.commands.predict_options import PredictOptions
from probrt.runtime.commands.progress import ProgressDisplay, Ranking, say
from probrt.runtime.images.inputs import SkippedFiles
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.pipeline import Tally


@dataclass
class RunDisplay:
    """What a run prints while it works and when it ends; level: the p-value up to which images are unknown."""

    options: PredictOptions
    level: float | None
    progress: ProgressDisplay
    rows: int
    ranking: Ranking = field(default_factory=Ranking)
    start: float = field(default_factory=time.monotonic)

    def add(self, rows: list[Row]) -> None:
        """Counts rows that have just been written; `rows` are all that are there."""
        self.rows += len(rows)
        self.ranking.add(rows)
        self.progress.advance(len(rows))

    def stop(self) -> None:
        """Ends the display of a run that did not finish."""
        self.progress.close()
        if self.options.out != "-" and not self.options.quiet and self.rows:
            say(f"stopped after {self.rows} rows; continue with --resume")

    def finish(self, tally: Tally, skipped: SkippedFiles) -> None:
        """Prints the summary of a run that finished."""
        self.progress.close()
        if self.options.quiet:
            return
        speed = f"{tally.rows / (time.monotonic() - self.start):.1f} images/s"
        unknown = "" if self.level is None else f" {tally.unknown} unknown (novelty p-value up to {self.level:.3g}),"
        review = "" if self.options.max_risk is None else f" {tally.review} for review,"
        say(f"{tally.rows} rows, {tally.errors} errors,{unknown}{review} {speed} -> {self.options.out}")
        if tally.several_frames:
            files = "1 file holds" if tally.several_frames == 1 else f"{tally.several_frames} files hold"
            say(f"{files} several frames or pages: the first was taken")
        if skipped.line:
            say(skipped.line)
        worst = self.ranking.worst()
        if len(worst) > 1:
            say(f"most uncertain by {self.ranking.by}:")
            for uncertainty, name in worst:
                say(f"  {uncertainty:.4g}  {name}")
