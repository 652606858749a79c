"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import json
from html import escape

import numpy as np
from PIL import Image

from probrt.runtime.images.png import encode_png
from probrt.trainer.data import Examples
from probrt.trainer.evaluate import charts
from probrt.trainer.evaluate.report import HeadReport, Report, Strangers, format_ends, format_level, format_share
from probrt.trainer.model import Model

_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1a202c;
background:#fff}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.15rem .7rem;border-bottom:1px solid #ddd;
text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}svg{margin:.4rem;font:11px system-ui}
svg .name{font-weight:600}figure{display:inline-block;margin:.4rem;width:8rem;vertical-align:top;font-size:12px;
overflow-wrap:anywhere}figure img{width:100%;image-rendering:pixelated;background:#eee}.note{color:#9c4221}"""

# Finds the threshold for any risk, from the points of the chart.
_SCRIPT = """document.querySelectorAll('[data-curve]').forEach(function(box){
var curve=JSON.parse(box.dataset.curve),input=box.querySelector('input'),output=box.querySelector('output');
function show(){var best=null;curve.forEach(function(p){if(p[1]<=+input.value&&(!best||p[0]>best[0]))best=p});
output.textContent=best?'let through up to '+best[2].toPrecision(4)+': '+(100*best[0]).toFixed(1)+' % of inputs, risk '
+best[1].toPrecision(3):'no threshold keeps to this risk: review all'}
input.addEventListener('input',show);show()});"""


def render_page(report: Report, examples: Examples, model: Model) -> str:
    """Renders the HTML of the page; examples and model are those of the report."""
    parts = [
        f"<h1>{escape(report.model)}</h1><p>{report.scored}, {report.draws} draws. "
        f"Data digest <code>{report.data_digest[:16]}</code>. "
        "Intervals are 95 % bootstrap intervals over examples.</p>"
    ]
    parts += [f'<p class="note">{escape(note)}</p>' for note in report.notes]
    parts += [_render_head(head, examples, model) for head in report.heads]
    if report.unknown is not None:
        parts.append(
            f"<p>Novelty calls {report.unknown:.1%} of the split unknown at a level of {format_level(report)}.</p>"
        )
    parts += [_render_strangers(strangers, format_level(report)) for strangers in report.strangers]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(report.model)}: evaluation</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}<script>{_SCRIPT}</script></body></html>\n"
    )


def _render_head(head: HeadReport, examples: Examples, model: Model) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{value:.4f}</td><td class="n">{format_ends(low, high)}</td></tr>'
        for name, (value, low, high) in head.scores.items()
    )
    drawings = []
    if head.reliability:
        drawings.append(charts.draw_reliability(f"{head.name}: reliability", head.reliability))
    points = [(coverage, risk) for coverage, risk, _ in head.risk]
    drawings.append(charts.draw_lines(f"{head.name}: risk and coverage", "coverage", head.loss, [points]))
    if head.pit:
        drawings.append(
            charts.draw_bars(f"{head.name}: PIT", "probability integral transform", "share", [head.pit], (0, 1))
        )
    curve = escape(json.dumps([[round(value, 7) for value in point] for point in head.risk]))
    highest = max([risk for _, risk, _ in head.risk] + [1e-9])
    start = min(0.01, highest) if head.loss == "error rate" else highest / 2
    review = "".join(
        f'<tr><td class="n">{risk}</td><td class="n">{"none" if point is None else f"{point[0]:.4g}"}</td>'
        f'<td class="n">{"0 %" if point is None else f"{point[1]:.1%}"}</td></tr>'
        for risk, point in head.review.items()
    )
    return (
        f"<h2>{escape(head.name)} <small>{escape(head.likelihood)}</small></h2>"
        f"<table><tr><th>score</th><th>value</th><th>95 % interval</th></tr>{rows}</table>"
        f"{_render_coverage(head)}<div>{''.join(drawings)}</div>{_render_classes(head)}"
        f"<h3>Review threshold</h3><p data-curve='{curve}'><label>{escape(head.loss)} at most <input type='number' "
        f"min='0' step='any' value='{start:.4g}'></label> <output></output></p>"
        f"<table><tr><th>{escape(head.loss)} at most</th><th>let through up to total</th><th>of inputs</th></tr>"
        f"{review}</table>{_render_gallery(head, examples, model)}"
    )


def _render_strangers(strangers: Strangers, level: str) -> str:
    """Renders how well each measure tells strangers: a table, and a histogram of each."""
    rows = "".join(
        f'<tr><td>{escape(row.measure)}</td><td class="n">{row.auroc[0]:.4f}</td>'
        f'<td class="n">{format_ends(*row.auroc[1:])}</td><td class="n">{row.aupr[0]:.4f}</td>'
        f'<td class="n">{row.fpr95[0]:.4f}</td></tr>'
        for row in strangers.separations
    )
    drawings = []
    for row in strangers.separations:
        ends = row.histogram["edges"][0], row.histogram["edges"][-1]
        sides = [row.histogram["inside"], row.histogram["outside"]]
        title = f"{row.measure}, the split blue, {strangers.name} brown"
        drawings.append(charts.draw_bars(title, row.measure, "share", sides, ends))
    unknown = "" if strangers.unknown is None else f", {strangers.unknown:.1%} unknown at a level of {level}"
    return (
        f"<h2>Strangers: {escape(strangers.name)}</h2><p>{strangers.images} images of another kind{unknown}.</p>"
        "<table><tr><th>told by</th><th>AUROC</th><th>95 % interval</th><th>AUPR</th><th>FPR at 95 %</th></tr>"
        f"{rows}</table><div>{''.join(drawings)}</div>"
    )


def _render_coverage(head: HeadReport) -> str:
    rows = "".join(
        f'<tr><td>{escape(row.method)}</td><td class="n">{row.wanted:.0%}</td><td class="n">{row.held[0]:.1%}</td>'
        f'<td class="n">{row.held[1]:.1%} to {row.held[2]:.1%}</td>'
        f'<td class="n">{"" if row.size is None else f"{row.size[0]:.4g}"}</td></tr>'
        for row in head.coverage
    )
    names = "<tr><th>method</th><th>wanted</th><th>held</th><th>95 % interval</th><th>size</th></tr>"
    return f"<h3>Coverage</h3><table>{names}{rows}</table>" if rows else ""


def _render_classes(head: HeadReport) -> str:
    """Renders the scores of each class, and beside them the confusion matrix; a darker cell is more."""
    if not head.classes:
        return ""
    header = "".join(f"<th>{escape(score.label)}</th>" for score in head.classes) if head.confusion else ""
    title = "<h3>Classes</h3>" + ("<p>On the right, examples of each class by predicted class.</p>" if header else "")
    rows = []
    for place, score in enumerate(head.classes):
        counts = head.confusion[place] if head.confusion else []
        cells = "".join(
            f'<td class="n" style="background:rgba(43,108,176,{count / max(1, sum(counts)):.2f})">{count}</td>'
            for count in counts
        )
        shares = "".join(
            f'<td class="n">{format_share(value)}</td>' for value in (score.precision, score.recall, score.f1)
        )
        rows.append(f'<tr><td>{escape(score.label)}</td><td class="n">{score.count}</td>{shares}{cells}</tr>')
    names = f"<tr><th>class</th><th>count</th><th>precision</th><th>recall</th><th>F1</th>{header}</tr>"
    return f"{title}<table>{names}{''.join(rows)}</table>"


def _render_gallery(head: HeadReport, examples: Examples, model: Model) -> str:
    if not head.wrong:
        return ""
    figures = []
    for mistake in head.wrong:
        picture = render_thumbnail(examples.images[mistake.row], model)
        image = f'<img alt="" src="{picture}">' if picture else ""
        text = f"<br>loss {mistake.loss:.3g}"
        if mistake.truth:
            text = f"<br>is {escape(mistake.truth)}<br>said {escape(mistake.said)}"
        figures.append(
            f"<figure>{image}<figcaption>{escape(mistake.file)}{text}<br>total {mistake.uncertainty:.3g}</figcaption>"
            "</figure>"
        )
    return f"<h3>Surest and wrong</h3>{''.join(figures)}"


def render_thumbnail(image: np.ndarray, model: Model) -> str:
    """Renders an input as a small PNG in a data URI; empty for an input that is no picture."""
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        return ""
    low, high = model.input.range or (float(image.min()), float(image.max()))
    values = np.clip((image.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1)
    picture = Image.fromarray(np.rint(values * 255).astype(np.uint8).squeeze(-1 if image.shape[-1] == 1 else ()))
    picture.thumbnail((128, 128))
    return "data:image/png;base64," + base64.b64encode(encode_png(np.asarray(picture))).decode()
