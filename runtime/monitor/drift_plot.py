"""The plot of `probrt drift`: how each number was spread before and is now."""

import io
from collections.abc import Sequence

import numpy as np

from probrt.runtime.errors import MissingError
from probrt.runtime.monitor.drift import Comparison

MOST_PANELS = 12


def draw_drift(comparisons: Sequence[Comparison], level: float) -> bytes:
    """Returns a PNG with the cumulative shares of both sides, one panel per number, the most surprising first.

    Raises MissingError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError("--plot needs matplotlib: pip install matplotlib") from None
    shown = [comparison for comparison in comparisons if comparison.first.size][:MOST_PANELS]
    columns = min(3, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(4.0 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for index, comparison in enumerate(shown):
        axes = figure.add_subplot(rows, columns, index + 1)
        for values, name in ((comparison.first, "reference"), (comparison.second, "new")):
            ordered = np.sort(values)
            axes.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post", label=name)
        drifted = " (drifted)" if comparison.corrected <= level else ""
        axes.set_title(f"{comparison.name}{drifted}, p = {comparison.corrected:.2g}", fontsize=9)
        axes.set_ylim(0, 1.02)
        axes.set_ylabel("share up to a value", fontsize=8)
    if shown:
        figure.axes[0].legend(fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
