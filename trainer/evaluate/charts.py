"""Charts as inline SVG: no script, no network, and a title for screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDE, _HIGH, _EDGE = 300, 200, 34
COLOURS = ("#2b6cb0", "#c05621")


def draw_lines(title: str, across: str, up: str, series: Sequence[Sequence[tuple[float, float]]]) -> str:
    """Draws lines through points (x, y); x from 0 to 1, y from 0 to the largest value."""
    highest = max([y for points in series for _, y in points] + [1e-12])
    shapes = [
        f'<polyline fill="none" stroke="{COLOURS[index % 2]}" stroke-width="2" points="'
        + " ".join(f"{_EDGE + x * _WIDE:.1f},{_EDGE + _HIGH * (1 - y / highest):.1f}" for x, y in points)
        + '"/>'
        for index, points in enumerate(series)
    ]
    return _frame(title, across, up, "0", "1", f"{highest:.3g}", shapes)


def draw_bars(title: str, across: str, up: str, series: Sequence[Sequence[float]], ends: tuple[float, float]) -> str:
    """Draws bars of equal width between two ends; several series overlap, each scaled to its own sum."""
    shares = [[value / max(1e-12, sum(values)) for value in values] for values in series]
    highest = max([value for values in shares for value in values] + [1e-12])
    shapes = []
    for index, values in enumerate(shares):
        width = _WIDE / max(1, len(values))
        shapes += [
            f'<rect x="{_EDGE + place * width:.1f}" y="{_EDGE + _HIGH * (1 - value / highest):.1f}" '
            f'width="{width:.1f}" height="{_HIGH * value / highest:.1f}" '
            f'fill="{COLOURS[index % 2]}" fill-opacity="0.5"/>'
            for place, value in enumerate(values)
            if value
        ]
    return _frame(title, across, up, f"{ends[0]:.3g}", f"{ends[1]:.3g}", f"{highest:.2g}", shapes)


def draw_reliability(title: str, bins: Sequence[Sequence[float]]) -> str:
    """Draws frequency against confidence, a dot per bin whose area grows with the bin's share."""
    total = max(1.0, sum(count for count, _, _ in bins))
    shapes = [f'<line x1="{_EDGE}" y1="{_EDGE + _HIGH}" x2="{_EDGE + _WIDE}" y2="{_EDGE}" stroke="#999"/>']
    shapes += [
        f'<circle cx="{_EDGE + confident * _WIDE:.1f}" cy="{_EDGE + (1 - correct) * _HIGH:.1f}" '
        f'r="{3 + 12 * (count / total) ** 0.5:.1f}" fill="{COLOURS[0]}" fill-opacity="0.6">'
        f"<title>{count:.0f} at {confident:.3f}: {correct:.3f}</title></circle>"
        for count, confident, correct in bins
        if count
    ]
    return _frame(title, "confidence", "frequency", "0", "1", "1", shapes)


def _frame(title: str, across: str, up: str, low: str, high: str, top: str, shapes: Sequence[str]) -> str:
    bottom, right = _EDGE + _HIGH, _EDGE + _WIDE
    return (
        f'<svg role="img" viewBox="0 0 {right + 20} {bottom + 34}" width="{right + 20}"><title>{escape(title)}</title>'
        f'<text x="{_EDGE}" y="16" class="name">{escape(title)}</text>'
        f'<rect x="{_EDGE}" y="{_EDGE}" width="{_WIDE}" height="{_HIGH}" fill="none" stroke="#ccc"/>'
        f"{''.join(shapes)}"
        f'<text x="{_EDGE}" y="{bottom + 14}">{low}</text><text x="{right}" y="{bottom + 14}" text-anchor="end">{high}'
        f'</text><text x="{_EDGE + _WIDE / 2}" y="{bottom + 28}" text-anchor="middle">{escape(across)}</text>'
        f'<text x="{_EDGE - 4}" y="{_EDGE + 10}" text-anchor="end">{top}</text>'
        f'<text x="12" y="{_EDGE + _HIGH / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {_EDGE + _HIGH / 2})">{escape(up)}</text></svg>'
    )
