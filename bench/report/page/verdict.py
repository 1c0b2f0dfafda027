"""The verdict: what to ship, why not the others, and how large the noise is."""

from __future__ import annotations

from bench.judge.company import company_text
from bench.judge.interval import bounds_text, ratio_text
from bench.judge.summary import Row, Summary
from bench.report.page.cells import metric_of
from bench.report.page.parts import Section, code, lines, marked, mb, ms, number
from exporter.int8.select import points


def verdict_section(summary: Summary) -> Section:
    """Say what to ship, why not the others, and what counts as noise."""
    recommendation = summary.recommendation
    row = summary.row(recommendation.engine) if recommendation.engine else None
    body = [f'<p class="sentence">{marked(recommendation.sentence)}</p>']
    if row:
        body.append(_figures(row, summary))
    if recommendation.rejected:
        reasons = lines(f"<li>{marked(line)}</li>" for line in recommendation.rejected)
        body.append(f"<h3>Why not the others</h3>\n<ul>\n{reasons}\n</ul>")
    body.append(f"<h3>Noise</h3>\n<p>{_noise(summary)}</p>")
    return Section("verdict", "Verdict", "\n".join(body), css_class="verdict")


def _figures(row: Row, summary: Summary) -> str:
    latency, scores = row.latency, row.accuracy
    figures = []
    if latency and not row.is_reference:
        figures.append(("Speed", f"{latency.speed.estimate:.2f}×", bounds_text(latency.speed)))
    if latency:
        quartiles = f"{ms(latency.total_s.low)} to {ms(latency.total_s.high)}"
        figures.append(("Median latency", f"{ms(latency.total_s.median)} ms", f"half of the calls: {quartiles}"))
    if scores:
        change = f"{points(scores.change.change)} points" if scores.change else "the reference"
        figures.append((metric_of(summary), f"{100 * scores.score:.2f} %", change))
    if row.throughput:
        figures.append(("In bulk", f"{number(row.throughput.texts_per_s.median)}/s", "texts"))
    if row.info.size_bytes is not None:
        figures.append(("On disk", f"{mb(row.info.size_bytes)} MB", "without packages"))
    parts = (f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in figures)
    return f'<dl class="figures">\n{lines(parts)}\n</dl>'


def _noise(summary: Summary) -> str:
    noises = (("one text at a time", summary.single_noise), ("in bulk", summary.bulk_noise))
    floors = " or ".join(f"below {100 * noise.floor:.1f} % {how}" for how, noise in noises)
    second = [f"{ratio_text(noise.second_process)} {how}" for how, noise in noises if noise.second_process]
    measured = f"{code(summary.reference)} had no second process to measure the noise with."
    if second:
        measured = f"{code(summary.reference)} compared with a second process of itself: {', '.join(second)}."
    company = f"{company_text(summary.others)}." if summary.others else ""
    return (
        f"A speed difference counts as noise {floors}, or where its interval reaches that range. {measured} {company}"
    )
