"""A benchmark as one self-contained HTML page: the verdict, charts, and sortable tables. Pure functions.

The page asks no network for anything, and its content security policy forbids it to. Charts are drawn by Plotly, whose
source stands in the page; colours live in `page.css` alone, where the charts read them too.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from bench.results import Accuracy, BenchRecord
from bench.stats import Interval
from bench.summary import Latency, Row, Summary, Throughput
from bench.verdict import Recommendation
from exporter.timing import spread

HERE = Path(__file__).parent

COLOURS = 8
SHAPES = {  # a marker's name in Plotly, and its outline from -5 to 5 for the key
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "square": "M-4.5-4.5h9v9h-9z",
    "diamond": "M0-6L6 0 0 6-6 0z",
    "triangle-up": "M0-5L5.5 4.5h-11z",
    "triangle-down": "M0 5L5.5-4.5h-11z",
    "cross": "M-2-5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z",
    "star": "M0-6.5L1.7-2 6.3-2 2.7.8 4 5.3 0 2.6-4 5.3-2.7.8-6.3-2-1.7-2z",
}
DASHES = {"solid": "", "dash": "9 4", "dot": "2 3", "dashdot": "9 4 2 4", "longdash": "14 4"}

WIDE = 8.0
"""Ratio of the largest to the smallest latency from which an axis is logarithmic."""
CALLS_A_BIN = 20
MOST_BINS = 8

Json = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """What stands in a table at one place."""

    html: str
    value: float | str | None = None
    """To sort by; None where nothing was measured."""
    is_word: bool = False


@dataclass(frozen=True)
class Look:
    """How one backend is drawn in every chart."""

    colour: str
    shape: str
    dash: str


@dataclass(frozen=True)
class Chart:
    """A drawing and its place in the page."""

    name: str
    data: list[Json]
    layout: Json
    has_labels: bool = False
    """Whether its points bear names, to be kept apart."""


def render_page(record: BenchRecord, summary: Summary, recommendation: Recommendation) -> str:
    """Render a benchmark as an HTML page that needs nothing beside it.

    Args:
        record: what was measured.
        summary: its statistics, as `summarise` derives them.
        recommendation: what to ship, as `recommend` chooses it.

    Returns:
        The page, of about 5 MB, nearly all of it the charts' library.
    """
    from plotly.offline import get_plotlyjs  # takes a tenth of a second, which only this page should cost

    looks = _looks(record)
    sections = [
        _verdict(record, summary, recommendation),
        _pareto(record, summary, recommendation, looks),
        _by_length(record, summary, looks),
        _grid(record, summary, looks),
        _distributions(record, summary, looks),
        _in_bulk(record, summary),
        _accuracy(record, summary),
        _start_and_memory(record, summary),
        _skipped(record),
    ]
    shown = [section for section in sections if section]
    charts = [chart for section in shown for chart in section.charts]
    title = f"Benchmark of {_e(record.config.run_dir)}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{_read("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdict</a>
<header>
<h1>{title}</h1>
<p class="soft">{_subtitle(record)}</p>
<nav aria-label="Sections"><ul>
{_lines(f'<li><a href="#{s.name}">{s.title}</a></li>' for s in shown)}
<li><a href="#method">Method and environment</a></li>
</ul></nav>
</header>
<main id="main" tabindex="-1">
{_banner(record)}
<noscript><p class="banner">Charts and sorting need JavaScript; the tables hold all numbers.</p></noscript>
{_lines(s.html for s in shown)}
</main>
<footer>
{_foot(record)}
</footer>
<script type="application/json" id="charts">{_inline_json([_drawn(chart) for chart in charts])}</script>
<script>{get_plotlyjs()}</script>
<script>
{_read("page.js")}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    name: str
    title: str
    body: str
    charts: tuple[Chart, ...] = ()
    css_class: str = ""

    @property
    def html(self) -> str:
        """The section's markup."""
        kind = f' class="{self.css_class}"' if self.css_class else ""
        return (
            f'<section id="{self.name}"{kind} aria-labelledby="{self.name}-title">\n'
            f'<h2 id="{self.name}-title">{self.title}</h2>\n{self.body}\n</section>'
        )


def _subtitle(record: BenchRecord) -> str:
    generations = len({single.generation for single in record.singles})
    calls = max((len(single.total_s) for single in record.singles), default=0)
    parts = [
        f"{len(record.labels):,} reviews for accuracy",
        f"{generations} × {calls} timed calls a backend",
        f"{_e(record.environment.cpu)}, {_count(record.environment.threads, 'thread')}",
        _e(record.finished_at),
    ]
    return " · ".join(parts)


def _banner(record: BenchRecord) -> str:
    if record.is_complete:
        return ""
    return (
        '<p class="banner" role="note">This benchmark is partial: it was interrupted or still runs. '
        "What is missing may change the verdict.</p>"
    )


# ---- the verdict


def _verdict(record: BenchRecord, summary: Summary, recommendation: Recommendation) -> Section:
    row = summary.row(recommendation.backend) if recommendation.backend else None
    body = [f'<p class="sentence">{_marked(recommendation.sentence)}</p>']
    if row:
        body.append(_figures(row, record))
    if recommendation.rejected:
        lines = _lines(f"<li>{_marked(line)}</li>" for line in recommendation.rejected)
        body.append(f"<h3>Why not the others</h3>\n<ul>\n{lines}\n</ul>")
    body.append(f"<h3>What can be told apart</h3>\n<p>{_noise(record, summary)}</p>")
    return Section("verdict", "Verdict", "\n".join(body), css_class="verdict")


def _figures(row: Row, record: BenchRecord) -> str:
    latency, scores = row.latency, row.accuracy
    figures = []
    if latency:
        if row.info.name != record.reference:
            figures.append(("Speed", f"{latency.speed.estimate:.2f}×", _ends(latency.speed, "{:.2f}")))
        quartiles = f"{_ms(latency.total_s.low)} to {_ms(latency.total_s.high)}"
        figures.append(("Median latency", f"{_ms(latency.total_s.median)} ms", f"half of the calls: {quartiles}"))
    if scores:
        moved = f"{_points(scores.change.change)} points" if scores.change else "the reference"
        figures.append(("Accuracy", f"{100 * scores.accuracy:.2f} %", moved))
    if row.throughput:
        figures.append(("In bulk", f"{_number(row.throughput.reviews_per_s)}/s", "reviews"))
    if row.info.size_bytes is not None:
        figures.append(("On disk", f"{_mb(row.info.size_bytes)} MB", "without packages"))
    parts = (f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in figures)
    return f'<dl class="figures">\n{_lines(parts)}\n</dl>'


def _noise(record: BenchRecord, summary: Summary) -> str:
    reference = f"<code>{_e(record.reference)}</code>"
    kinds = (
        ("one review at a time", summary.single_floor, summary.again_single),
        ("in bulk", summary.bulk_floor, summary.again_bulk),
    )
    told = [f"below {100 * floor:.1f} % {how}" for how, floor, _ in kinds]
    sentences = [f"No gain is claimed {' or '.join(told)}, nor where an interval reaches that far."]
    against = [f"{_ratio(again)} {how}" for how, _, again in kinds if again]
    if against:
        sentences.append(f"{reference} against a second process of itself: {', '.join(against)}.")
    else:
        sentences.append(f"There was no second process of {reference} to measure the noise by.")
    return " ".join(sentences)


# ---- accuracy against latency


def _pareto(
    record: BenchRecord, summary: Summary, recommendation: Recommendation, looks: dict[str, Look]
) -> Section | None:
    points = [(row, row.latency, row.accuracy) for row in summary.rows if row.latency and row.accuracy]
    table = _table(
        "overview", "Every backend, the reference first, then by latency.", *_overview(record, summary, recommendation)
    )
    if not points:
        return Section("overview-section", "Overview", table)
    own = [point for point in points if not point[0].info.is_peer] or points
    frontier = _frontier(own)
    fastest, best = min(own, key=_by_latency), max(own, key=lambda p: (p[2].accuracy, -p[1].total_s.median))
    takeaway = f"Fastest: {_at(fastest)}." + (
        " No other is more accurate." if fastest[2].accuracy >= best[2].accuracy else f" Most accurate: {_at(best)}."
    )
    how = (
        "Up and to the left is better. Bars: the quartiles of the latency, and the interval of the accuracy's change "
        "against the reference. The stepped line joins the backends that no other beats in both; "
        "a ring marks the one to ship."
    )
    if any(row.info.is_peer for row, _, _ in points):
        how += " Hollow: other tools, for comparison, not to be shipped, and not on the line."
    chart = Chart("pareto-chart", _pareto_data(points, frontier, recommendation, looks), _pareto_layout(points), True)
    figure = _figure("pareto", takeaway, how, [("", chart)], 440, table="overview")
    return Section("pareto", "Accuracy against latency", f"{figure}\n{table}", (chart,))


Point = tuple[Row, Latency, Accuracy]


def _by_latency(point: Point) -> tuple[float, float]:
    return point[1].total_s.median, -point[2].accuracy


def _at(point: Point) -> str:
    row, latency, scores = point
    return f"<code>{_e(row.info.name)}</code>, {_ms(latency.total_s.median)} ms and {100 * scores.accuracy:.2f} %"


def _frontier(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other beats in latency and accuracy, the fastest first."""
    kept: list[Point] = []
    for point in sorted(points, key=_by_latency):
        if not kept or point[2].accuracy > kept[-1][2].accuracy:
            kept.append(point)
    return kept


def _accuracy_reach(scores: Accuracy) -> tuple[float, float]:
    """Return how far the interval reaches below and above the accuracy, in percentage points."""
    if scores.change is None:
        return 0.0, 0.0
    change = scores.change
    return 100 * (change.change - change.lower), 100 * (change.upper - change.change)


def _pareto_data(
    points: Sequence[Point], frontier: Sequence[Point], recommendation: Recommendation, looks: dict[str, Look]
) -> list[Json]:
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": [latency.total_s.median * 1e3 for _, latency, _ in frontier],
        "y": [100 * scores.accuracy for _, _, scores in frontier],
        "line": {"shape": "hv", "color": "var(--soft)", "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }
    data: list[Json] = [line]
    for row, latency, scores in points:
        name, look, of = row.info.name, looks[row.info.name], latency.total_s
        x, y = of.median * 1e3, 100 * scores.accuracy
        below, above = _accuracy_reach(scores)
        is_chosen = name == recommendation.backend
        bar = {"type": "data", "symmetric": False, "color": look.colour, "thickness": 1, "width": 0}
        if is_chosen:
            data.append(_ring(x, y))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [x],
                "y": [y],
                "text": [_plot_text(name)],
                "marker": _marker(look, 12, is_hollow=row.info.is_peer),
                "error_x": {
                    **bar,
                    "array": [(of.high - of.median) * 1e3],
                    "arrayminus": [(of.median - of.low) * 1e3],
                },
                "error_y": {**bar, "array": [above], "arrayminus": [below]},
                "cliponaxis": False,
                "hovertemplate": f"%{{text}}<br>{_ms(of.median)} ms, {y:.2f} %<extra></extra>",
            }
        )
    return [*data, _names(points, recommendation, looks)]


def _names(points: Sequence[Point], recommendation: Recommendation, looks: dict[str, Look]) -> Json:
    """Return the points' names, last so that no bar crosses them."""
    names = [row.info.name for row, _, _ in points]
    shown = [f"<b>{_plot_text(n)}</b>" if n == recommendation.backend else _plot_text(n) for n in names]
    return {
        "type": "scatter",
        "mode": "text",
        "x": [latency.total_s.median * 1e3 for _, latency, _ in points],
        "y": [100 * scores.accuracy for _, _, scores in points],
        "text": shown,
        "textfont": {"color": [looks[name].colour for name in names]},
        "cliponaxis": False,
        "hoverinfo": "skip",
    }


def _ring(x: float, y: float) -> Json:
    line = {"color": "var(--accent)", "width": 2.5}
    marker = {"symbol": "circle-open", "size": 26, "color": "var(--accent)", "line": line}
    return {"type": "scatter", "mode": "markers", "x": [x], "y": [y], "marker": marker, "hoverinfo": "skip"}


def _pareto_layout(points: Sequence[Point]) -> Json:
    low_x = min(latency.total_s.low for _, latency, _ in points) * 1e3
    high_x = max(latency.total_s.high for _, latency, _ in points) * 1e3
    reaches = [(100 * scores.accuracy, *_accuracy_reach(scores)) for _, _, scores in points]
    low_y, high_y = min(y - below for y, below, _ in reaches), max(y + above for y, _, above in reaches)
    pad = max(0.1 * (high_y - low_y), 0.05)
    y_axis = _axis("accuracy, %", range=[low_y - pad, high_y + pad], nticks=7)
    return _layout(_latency_axis("median latency, ms", low_x, high_x), y_axis)


def _overview(
    record: BenchRecord, summary: Summary, recommendation: Recommendation
) -> tuple[list[str], list[list[Cell]]]:
    columns = [
        *("Backend", "Accuracy, %", "Change, points", "Speed", "Median, ms", "p90, ms", "p95, ms", "p99, ms"),
        *("In bulk, reviews/s", "On disk, MB", "Packages, MB", "Cold start, s", "Peak memory, MB"),
        "Of attainable, %",
    ]
    rows = []
    for row in summary.rows:
        scores, latency = row.accuracy, row.latency
        tails = [_tail(tail.value_s, tail.samples_needed) for tail in latency.tails] if latency else [_missing()] * 3
        cells = [
            _backend(row, record, recommendation),
            _plain(100 * scores.accuracy, "{:.2f}") if scores else _missing(),
            _change(row, record),
            _speed(row, record),
            _median(latency),
            *tails,
            _bulk(row.throughput, row.info.name == record.reference),
            _missing() if row.info.size_bytes is None else _plain(row.info.size_bytes / 1e6),
            _plain(row.info.packages_bytes / 1e6) if row.info.packages_bytes else _missing(),
            _plain(row.start.total_s) if row.start else _missing(),
            _plain(row.memory.peak_bytes / 1e6) if row.memory else _missing(),
            _plain(100 * latency.attainable, "{:.0f}") if latency and latency.attainable is not None else _missing(),
        ]
        rows.append(cells)
    return columns, rows


_REFERENCE_SPEED = Cell("1.00×<small>the reference</small>", 1.0)


def _backend(row: Row, record: BenchRecord, recommendation: Recommendation | None = None) -> Cell:
    name, tags = row.info.name, ""
    if recommendation and name == recommendation.backend:
        tags += '<span class="tag chosen">to ship</span>'
    if name == record.reference:
        tags += '<span class="tag">reference</span>'
    if row.info.is_peer:
        tags += '<span class="tag">comparison, not to be shipped</span>'
    return Cell(f"<code>{_e(name)}</code>{tags}", name)


def _change(row: Row, record: BenchRecord) -> Cell:
    change = row.accuracy.change if row.accuracy else None
    if change is None:
        return _missing("the reference" if row.info.name == record.reference else "not measured")
    tone = {"within budget": "good", "over budget": "bad"}.get(row.judgement or "", "")
    ends = f"[{_points(change.lower)}, {_points(change.upper)}]"
    judged = f'<small class="{tone}">{row.judgement}</small>'
    return Cell(f"{_points(change.change)}<small>{ends}</small>{judged}", change.change)


def _speed(row: Row, record: BenchRecord) -> Cell:
    if row.latency is None:
        return _missing()
    if row.info.name == record.reference:
        return _REFERENCE_SPEED
    return _compared(row.latency.speed, row.latency.verdict)


def _compared(speed: Interval, verdict: str) -> Cell:
    tone = {"faster": "good", "slower": "bad"}.get(verdict, "")
    ends = f"<small>{_ends(speed, '{:.2f}')}</small>"
    return Cell(f'{speed.estimate:.2f}×{ends}<small class="{tone}">{verdict}</small>', speed.estimate)


def _median(latency: Latency | None) -> Cell:
    if latency is None:
        return _missing()
    of = latency.total_s
    return Cell(f"{_ms(of.median)}<small>{_ms(of.low)} to {_ms(of.high)}</small>", of.median)


def _tail(value_s: float | None, needed: int) -> Cell:
    return Cell(f"<small>needs {needed:,}</small><small>calls</small>") if value_s is None else _milliseconds(value_s)


def _bulk(throughput: Throughput | None, is_reference: bool) -> Cell:
    if throughput is None:
        return _missing()
    told = "the reference" if is_reference else throughput.verdict
    return Cell(f"{_number(throughput.reviews_per_s)}<small>{told}</small>", throughput.reviews_per_s)


# ---- latency by length


Bins = dict[int, tuple[float, float]]
"""The median tokens and the median seconds of the calls in each range of lengths, by its least tokens."""


def _by_length(record: BenchRecord, summary: Summary, looks: dict[str, Look]) -> Section | None:
    ranges = _length_ranges(record)
    binned = {row.info.name: _binned(record, row.info.name, ranges) for row in summary.rows if row.latency}
    if not binned or not ranges:
        return None
    chart = Chart("length-chart", _length_data(binned, looks), _length_layout(binned))
    fastest = next((row.info.name for row in _by_speed(summary) if not row.info.is_peer), record.reference)
    takeaway = " ".join(_from_to(name, binned[name]) for name in dict.fromkeys((fastest, record.reference)))
    how = "One review at a time, text to label: the median of the calls in each range of lengths."
    before = binned.get(record.reference, {})
    rows = []
    for least, most in ranges:
        cells = [Cell(f"{least:,} to {most:,}", least)]
        for name, bins in binned.items():
            reference_s = before[least][1] if least in before and name != record.reference else None
            cells.append(_against(bins[least][1] if least in bins else None, reference_s, summary.single_floor))
        rows.append(cells)
    columns = ["Tokens", *(f"<code>{_e(name)}</code>" for name in binned)]
    table = _table("by-length", "Median ms by length, and times faster than the reference.", columns, rows)
    figure = _figure("length", takeaway, how, [("", chart)], 380, table="by-length", key=_key(binned, looks))
    return Section("length", "Latency by length", f"{figure}\n{table}", (chart,))


def _by_speed(summary: Summary) -> list[Row]:
    """Return the rows that were timed one review at a time, the fastest first."""
    timed = [(row.latency.total_s.median, row) for row in summary.rows if row.latency]
    return [row for _, row in sorted(timed, key=lambda pair: pair[0])]


def _from_to(name: str, bins: Bins) -> str:
    (short, fast), (long, slow) = bins[min(bins)], bins[max(bins)]
    return (
        f"<code>{_e(name)}</code> takes {_ms(fast)} ms at about {short:.0f} tokens "
        f"and {_ms(slow)} ms at about {long:.0f}."
    )


def _length_ranges(record: BenchRecord) -> list[tuple[int, int]]:
    """Return ranges of lengths, both ends included, with about equally many of the reference's calls in each."""
    tokens = sorted(n for single in record.singles if single.backend == record.reference for n in single.tokens)
    bins = min(MOST_BINS, max(1, len(tokens) // CALLS_A_BIN))
    starts = sorted({tokens[len(tokens) * i // bins] for i in range(bins)}) if tokens else []
    return [
        (start, max(n for n in tokens if n >= start and (i + 1 == len(starts) or n < starts[i + 1])))
        for i, start in enumerate(starts)
    ]


def _binned(record: BenchRecord, name: str, ranges: Sequence[tuple[int, int]]) -> Bins:
    starts = [least for least, _ in ranges]
    found: dict[int, list[tuple[int, float]]] = {least: [] for least in starts}
    for single in record.singles:
        if single.backend == name:
            for n, seconds in zip(single.tokens, single.total_s, strict=True):
                found[starts[max(0, bisect_right(starts, n) - 1)]].append((n, seconds))
    return {
        least: (median(n for n, _ in calls), median(s for _, s in calls)) for least, calls in found.items() if calls
    }


def _length_data(binned: dict[str, Bins], looks: dict[str, Look]) -> list[Json]:
    return [
        _line(name, [n for n, _ in bins.values()], [s * 1e3 for _, s in bins.values()], looks[name], "{:.3g} ms")
        for name, bins in binned.items()
    ]


def _line(name: str, x: Sequence[float], y: Sequence[float], look: Look, unit: str) -> Json:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(x),
        "y": list(y),
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": _marker(look, 8),
        "cliponaxis": False,
        "text": [f"{_plot_text(name)}<br>{n:,.0f} tokens, {unit.format(v)}" for n, v in zip(x, y, strict=True)],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _length_layout(binned: dict[str, Bins]) -> Json:
    """Return axes from 0, or a logarithmic one where a GPU beside a CPU would lie on the axis."""
    longest = [bins[max(bins)][1] for bins in binned.values()]
    if max(longest) > WIDE * min(longest):
        all_ms = [s * 1e3 for bins in binned.values() for _, s in bins.values()]
        y_axis = _latency_axis("median latency, ms", min(all_ms), max(all_ms), is_log=True)
    else:
        y_axis = _axis("median latency, ms", rangemode="tozero")
    return _layout(_axis("tokens in the review", rangemode="tozero"), y_axis)


def _against(seconds: float | None, reference_s: float | None, floor: float) -> Cell:
    """Return milliseconds, and how many times faster than the reference that is, if there is another to compare to."""
    if seconds is None:
        return _missing()
    if reference_s is None:
        return Cell(_ms(seconds), seconds)
    speed = f"{reference_s / seconds:.2f}×"
    is_slower = reference_s / seconds < 1 / (1 + floor)
    note = f'<small class="bad">{speed} slower</small>' if is_slower else f"<small>{speed}</small>"
    return Cell(f"{_ms(seconds)}{note}", seconds)


# ---- batch and length


def _grid(record: BenchRecord, summary: Summary, looks: dict[str, Look]) -> Section | None:
    cells = {(g.backend, g.batch, g.length): median(g.samples_s) for g in record.grids if g.samples_s}
    if not cells:
        return None
    names = [row.info.name for row in summary.rows if any(name == row.info.name for name, _, _ in cells)]
    batches, lengths = sorted({b for _, b, _ in cells}), sorted({n for _, _, n in cells})
    others = [name for name in names if name != record.reference]

    def before(name: str, batch: int, length: int) -> float | None:
        return cells.get((record.reference, batch, length)) if name != record.reference else None

    charts = [
        (f"batch of {batch:,}", Chart(f"grid-chart-{batch}", *_ratios(cells, record, others, batch, lengths, looks)))
        for batch in batches
    ]
    rows = [
        [
            Cell(f"<code>{_e(name)}</code>", name),
            Cell(f"{batch:,}", batch),
            *(_against(cells.get((name, batch, n)), before(name, batch, n), summary.single_floor) for n in lengths),
        ]
        for name in names
        for batch in batches
    ]
    columns = ["Backend", "Batch", *(f"{n:,} tokens, ms" for n in lengths)]
    table = _table(
        "grid-table", "The model alone: median ms a batch, and times faster than the reference.", columns, rows
    )
    how = (
        "The model alone, without the tokeniser, on texts of exactly so many tokens: times faster than "
        f"<code>{_e(record.reference)}</code>, which is the line at 1. Below it a backend is slower."
    )
    key = _key(others, looks)
    figure = _figure(
        "grid", _losses(cells, record, others, summary.single_floor), how, charts, 300, table="grid-table", key=key
    )
    return Section("grid", "Batch and length", f"{figure}\n{table}", tuple(chart for _, chart in charts))


Cells = dict[tuple[str, int, int], float]


def _losses(cells: Cells, record: BenchRecord, names: Sequence[str], floor: float) -> str:
    """Say where a backend that could be shipped is slower than the reference, by more than the noise floor."""
    peers = {info.name for info in record.backends if info.is_peer}
    lost = []
    for name in names:
        where = [
            f"{batch:,}&nbsp;×&nbsp;{length:,}"
            for (backend, batch, length), seconds in sorted(cells.items())
            if backend == name and seconds > (1 + floor) * cells.get((record.reference, batch, length), math.inf)
        ]
        if where and name not in peers:
            count = sum(backend == name for backend, _, _ in cells)
            places = "everywhere" if len(where) == count else f"at {', '.join(where)}"
            lost.append(f"<code>{_e(name)}</code> {places}")
    if not lost:
        return "Nothing that could be shipped is slower than the reference at any of these batches and lengths."
    return f"Slower than the reference, by batch × tokens: {'; '.join(lost)}."


def _ratios(
    cells: Cells, record: BenchRecord, names: Sequence[str], batch: int, lengths: Sequence[int], looks: dict[str, Look]
) -> tuple[list[Json], Json]:
    data, reference = [], record.reference
    for name in names:
        at = [n for n in lengths if (name, batch, n) in cells and (reference, batch, n) in cells]
        speeds = [cells[reference, batch, n] / cells[name, batch, n] for n in at]
        if at:
            data.append(_line(name, at, speeds, looks[name], "{:.2f}×"))
    pairs = [(cells[reference, b, n], s) for (name, b, n), s in cells.items() if (reference, b, n) in cells]
    highest = max([before / after for before, after in pairs], default=1.0)
    x_axis = _axis("tokens", type="log", tickvals=list(lengths), ticktext=[f"{n:,}" for n in lengths])
    x_axis["range"] = [math.log10(lengths[0]) - 0.12, math.log10(lengths[-1]) + 0.12]
    layout = _layout(x_axis, _axis("times faster", range=[0, 1.08 * highest]))
    line = {"color": looks[reference].colour if reference in looks else "var(--soft)", "width": 1.5, "dash": "dash"}
    layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": line}]
    return data, layout


# ---- how latencies spread


def _distributions(record: BenchRecord, summary: Summary, looks: dict[str, Look]) -> Section | None:
    rows = [row for row in summary.rows if row.latency]
    if not rows:
        return None
    samples = {}
    for row in rows:
        samples[row.info.name] = _totals(record, row.info.name)
        if row.info.name == record.reference and record.again:
            samples[record.again] = _totals(record, record.again)
    samples = {name: taken for name, taken in samples.items() if taken}
    chart = Chart("spread-chart", *_boxes(samples, looks))
    fastest = next((row.info.name for row in _by_speed(summary) if not row.info.is_peer), rows[0].info.name)
    of = spread(samples[fastest])
    takeaway = (
        f"Half of the calls of <code>{_e(fastest)}</code> take {_ms(of.low)} to {_ms(of.high)} ms, "
        f"its slowest {_ms(max(samples[fastest]))} ms."
    )
    how = (
        "One review at a time, text to label; reviews of all lengths, so that most of the width is the reviews'. "
        "Box: the quartiles and the median. Whiskers: the fastest and the slowest call. Each dot is a call."
    )
    if record.again in samples:
        how += f" <code>{_e(record.again)}</code> is a second process of the reference."
    figure = _figure("spread", takeaway, how, [("", chart)], 84 + 76 * len(samples), table="split")
    caption = "One review at a time, in milliseconds. Every part is a median of its own."
    return Section(
        "spread", "How latencies spread", f"{figure}\n{_table('split', caption, *_split(record, rows))}", (chart,)
    )


def _totals(record: BenchRecord, name: str) -> list[float]:
    return [s for single in record.singles if single.backend == name for s in single.total_s]


def _boxes(samples: dict[str, list[float]], looks: dict[str, Look]) -> tuple[list[Json], Json]:
    data, labels = [], []
    for place, (name, taken) in enumerate(samples.items()):
        look = looks[name]
        of = spread(taken)
        data.append(
            {
                "type": "box",
                "orientation": "h",
                "x": [[s * 1e3 for s in taken]],
                "y": [place],
                "q1": [of.low * 1e3],
                "median": [of.median * 1e3],
                "q3": [of.high * 1e3],
                "lowerfence": [min(taken) * 1e3],
                "upperfence": [max(taken) * 1e3],
                "width": 0.3,
                "boxpoints": "all",
                "jitter": 0.45,
                "pointpos": -1.8,
                "marker": {"color": look.colour, "size": 3, "opacity": 0.55},
                "line": {"color": look.colour, "width": 1.75},
                "hoverinfo": "x",
                "hoveron": "boxes",
            }
        )
        label = {"xref": "paper", "x": 0, "xanchor": "left", "y": place, "yshift": 39, "showarrow": False}
        labels.append({**label, "text": _plot_text(name), "font": {"color": look.colour}})
    ends = [s * 1e3 for taken in samples.values() for s in taken]
    x_axis = _latency_axis("latency, ms", min(ends), max(ends), is_log=True)
    layout = _layout(x_axis, {"range": [len(samples) - 0.7, -0.65], "visible": False, "fixedrange": True})
    layout["margin"] = {**layout["margin"], "l": 12}
    layout["annotations"] = labels
    return data, layout


def _split(record: BenchRecord, rows: Sequence[Row]) -> tuple[list[str], list[list[Cell]]]:
    has_own = any(row.latency and row.latency.own_p95_s is not None for row in rows)
    columns = [
        *("Backend", "Calls", "Fastest", "Lower quartile", "Median", "Upper quartile", "Slowest"),
        *("Tokenise", "Run", "Rest", "Warm-up calls", "Largest gap of a probability"),
    ]
    if has_own:
        columns.append("p95 expected of your texts")
    table = []
    for row in rows:
        if (latency := row.latency) is None:
            continue
        taken = _totals(record, row.info.name)
        singles = [single for single in record.singles if single.backend == row.info.name]
        of = latency.total_s
        cells = [
            _backend(row, record),
            Cell(f"{latency.calls:,}", latency.calls),
            *(_milliseconds(s) for s in (min(taken), of.low, of.median, of.high, max(taken))),
            *(
                _missing("not measured: nobody looks into another tool") if s is None else _milliseconds(s)
                for s in (latency.tokenise_s, latency.run_s, latency.rest_s)
            ),
            _plain(median(single.warmup_calls for single in singles), "{:.0f}"),
            _plain(max(single.largest_gap for single in singles), "{:.1e}"),
        ]
        if has_own:
            cells.append(_missing() if latency.own_p95_s is None else _milliseconds(latency.own_p95_s))
        table.append(cells)
    return columns, table


# ---- in bulk, accuracy, starts, memory


def _in_bulk(record: BenchRecord, summary: Summary) -> Section | None:
    taken = [(row, row.throughput) for row in summary.rows if row.throughput]
    if not taken:
        return None
    priced = record.config.price_per_hour is not None
    columns = ["Backend", "Batches of", "Reviews/s", "Tokens/s", "Speed", *(["Cost of a million"] if priced else [])]
    rows = []
    for row, of in taken:
        is_reference = row.info.name == record.reference
        cost = [_plain(of.cost_per_million, "{:,.2f}")] if of.cost_per_million is not None else []
        rows.append(
            [
                _backend(row, record),
                Cell(_e(of.batching), of.batching, is_word=True),
                _plain(of.reviews_per_s),
                _plain(of.tokens_per_s, "{:,.0f}"),
                _REFERENCE_SPEED if is_reference else _compared(of.speed, of.verdict),
                *cost,
            ]
        )
    caption = "All evaluation reviews in the batches that suit each backend best; medians of the generations."
    return Section("bulk", "In bulk", _table("bulk-table", caption, columns, rows))


def _accuracy(record: BenchRecord, summary: Summary) -> Section | None:
    scored = [(row, row.accuracy) for row in summary.rows if row.accuracy]
    if not scored:
        return None
    columns = [
        *("Backend", "Reviews", "Accuracy, %", "Weighted F1, %", "Log loss", "Calibration error", "Brier score"),
        *("Turned wrong", "Turned right", "McNemar p"),
    ]
    rows = []
    for row, scores in scored:
        why = "the reference" if row.info.name == record.reference else "not measured"
        change = scores.change
        rows.append(
            [
                _backend(row, record),
                Cell(f"{scores.reviews:,}", scores.reviews),
                _plain(100 * scores.accuracy, "{:.2f}"),
                _plain(100 * scores.f1_weighted, "{:.2f}"),
                *(_plain(value, "{:.4f}") for value in (scores.loss, scores.calibration_error, scores.brier)),
                _plain(change.harmful, "{:,}") if change else _missing(why),
                _plain(change.helpful, "{:,}") if change else _missing(why),
                _missing(why) if scores.mcnemar_p is None else _plain(scores.mcnemar_p, "{:.3g}"),
            ]
        )
    caption = (
        "Of loss, calibration error and Brier score less is better. Turned: answers that differ from the reference's."
    )
    body = [
        _table("accuracy-table", caption, columns, rows),
        "<h3>Class by class</h3>",
        _table("classes", "Percent of each class.", *_per_class(scored)),
        "<h3>By length of the review</h3>",
        _table("lengths", "Accuracy in percent by tokens of the review.", *_per_length(scored)),
    ]
    return Section("accuracy", "Accuracy in detail", "\n".join(body))


def _per_class(scored: Sequence[tuple[Row, Accuracy]]) -> tuple[list[str], list[list[Cell]]]:
    rows = [
        [
            Cell(f"<code>{_e(row.info.name)}</code>", row.info.name),
            Cell(_e(of.label), of.label, is_word=True),
            Cell(f"{of.reviews:,}", of.reviews),
            *(_plain(100 * share, "{:.2f}") for share in (of.precision, of.recall, of.f1)),
        ]
        for row, scores in scored
        for of in scores.classes
    ]
    return ["Backend", "Class", "Reviews", "Precision, %", "Recall, %", "F1, %"], rows


def _per_length(scored: Sequence[tuple[Row, Accuracy]]) -> tuple[list[str], list[list[Cell]]]:
    buckets = sorted({(of.least, of.most, of.reviews) for _, scores in scored for of in scores.lengths})
    rows = []
    for least, most, reviews in buckets:
        cells = [Cell(f"{least:,} to {most:,}", least), Cell(f"{reviews:,}", reviews)]
        for _, scores in scored:
            found = [of.accuracy for of in scores.lengths if (of.least, of.most, of.reviews) == (least, most, reviews)]
            cells.append(_plain(100 * found[0], "{:.2f}") if found else _missing())
        rows.append(cells)
    return ["Tokens", "Reviews", *(f"<code>{_e(row.info.name)}</code>" for row, _ in scored)], rows


def _start_and_memory(record: BenchRecord, summary: Summary) -> Section | None:
    body = []
    if starts := [(row, row.start) for row in summary.rows if row.start]:
        rows = [
            [
                _backend(row, record),
                *(_plain(s) for s in (start.total_s, start.import_s, start.load_s, start.first_s)),
            ]
            for row, start in starts
        ]
        columns = ["Backend", "All, s", "Import, s", "Load, s", "First answer, s"]
        caption = "Cold start: a new process to its first answer, medians. All holds the interpreter's start too."
        body.append(_table("starts", caption, columns, rows))
    if remembered := [(row, row.memory) for row in summary.rows if row.memory]:
        rows = [
            [
                _backend(row, record),
                _plain(memory.loaded_bytes / 1e6),
                _plain(memory.peak_bytes / 1e6),
                _missing() if memory.gpu_bytes is None else _plain(memory.gpu_bytes / 1e6),
                _growth(row.growth_bytes),
            ]
            for row, memory in remembered
        ]
        columns = ["Backend", "Loaded, MB", "Peak, MB", "GPU, MB", "Growth, kB a call"]
        caption = "Memory of the process. Growth: over the later calls of the last generation, with its 95 % interval."
        body.append(_table("memory-table", caption, columns, rows))
    return Section("start", "Start and memory", "\n".join(body)) if body else None


def _growth(growth: Interval | None) -> Cell:
    if growth is None:
        return _missing()
    kilobytes = Interval(growth.low / 1e3, growth.estimate / 1e3, growth.high / 1e3)
    return Cell(f"{kilobytes.estimate:.1f}<small>{_ends(kilobytes, '{:.1f}')}</small>", growth.estimate)


def _skipped(record: BenchRecord) -> Section | None:
    if not record.skipped:
        return None
    rows = [
        [Cell(f"<code>{_e(s.backend)}</code>", s.backend), Cell(_e(s.reason), s.reason, is_word=True)]
        for s in record.skipped
    ]
    table = _table("skipped-table", "Backends that were not measured, and why.", ["Backend", "Reason"], rows)
    return Section("skipped", "Not measured", table)


# ---- the foot


def _foot(record: BenchRecord) -> str:
    method = [
        "Every backend answers the same reviews in its own process. All take turns, review by review, so that a drift "
        "of the machine hits all alike; warm-up calls are not counted.",
        f"Processes were restarted {_count(record.config.restarts, 'time')}: each restart is a generation, and "
        "differences between generations are part of every interval. Intervals of speed hold with 99&nbsp;%, those of "
        "accuracy and memory with 95&nbsp;%.",
        f"Accuracy is within budget if the lower end of its change is above -{record.config.max_drop:g} points. "
        "A speed is told apart from the reference's only beyond the noise floor in the verdict.",
        "A percentile is shown where there are calls enough to estimate it. Of attainable: the share of what the "
        "machine can do at most, by its fastest matrix product and its memory.",
    ]
    paragraphs = _lines(f"<p>{text}</p>" for text in method)
    return (
        f'<section id="method" aria-labelledby="method-title">\n'
        f'<h2 id="method-title">Method and environment</h2>\n{paragraphs}\n'
        f"<h3>Environment</h3>\n{_facts(_environment(record))}\n<h3>Asked for</h3>\n{_facts(_asked(record))}\n"
        "</section>"
    )


def _environment(record: BenchRecord) -> list[tuple[str, str]]:
    of = record.environment
    facts = [
        ("system", of.system),
        ("CPU", of.cpu),
        ("instruction sets", ", ".join(of.instruction_sets) or "none known"),
        ("threads", f"{of.threads} of {_count(of.usable_cores, 'usable core')}"),
        ("GPU", of.gpu or "none"),
        *of.versions.items(),
    ]
    if machine := record.machine:
        facts += [(f"fastest {m.precision} product", f"{m.flops / 1e9:,.0f} GFLOP/s") for m in machine.limits]
        facts.append(("memory bandwidth", f"{machine.bytes_per_s / 1e9:,.1f} GB/s"))
    return [
        *facts,
        ("measured", f"in {record.duration_s / 60:.0f} min, until {record.finished_at}"),
        ("exporter chose", record.chosen),
        ("export.json", f"SHA-256 {record.export_sha256}"),
    ]


def _asked(record: BenchRecord) -> list[tuple[str, str]]:
    def shown(value: object) -> str:
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    asked = asdict(record.config).items()
    return [(f"--{name.replace('_', '-')}", shown(value)) for name, value in asked if value is not None]


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return f'<dl class="facts">\n{_lines(f"<dt>{_e(name)}</dt><dd>{_e(value)}</dd>" for name, value in facts)}\n</dl>'


# ---- parts of the page


def _table(name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Render a table that sorts by any column; columns are markup, and the first cell of a row is its header."""
    kinds = [' class="word"' if cell.is_word else "" for cell in rows[0]]
    head = "".join(
        f'<th scope="col"{kind}><button type="button">{column}</button></th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = _lines(f"<tr>{_row_header(first)}{''.join(_data(cell) for cell in cells)}</tr>" for first, *cells in rows)
    return (
        f'<div class="scroll" role="region" aria-labelledby="{name}-caption" tabindex="0">\n<table id="{name}">\n'
        f'<caption><span id="{name}-caption">{caption}</span></caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _row_header(cell: Cell) -> str:
    return f'<th scope="row" data-value="{_e(cell.value)}">{cell.html}</th>'


def _data(cell: Cell) -> str:
    value = "" if cell.value is None else _e(cell.value)
    kind = ' class="word"' if cell.is_word else ""
    return f'<td{kind} data-value="{value}">{cell.html}</td>'


def _missing(why: str = "not measured") -> Cell:
    return Cell(f'<span title="{_e(why)}" aria-hidden="true">–</span><span class="sr">{_e(why)}</span>')


def _plain(value: float, shape: str | None = None) -> Cell:
    return Cell(shape.format(value) if shape else _number(value), value)


def _milliseconds(seconds: float) -> Cell:
    return Cell(_ms(seconds), seconds)


def _figure(
    name: str, takeaway: str, how: str, charts: Sequence[tuple[str, Chart]], height: int, *, table: str, key: str = ""
) -> str:
    panels = [
        f"<div>{f'<p>{title}</p>' if title else ''}"
        f'<div class="chart" id="{chart.name}" style="height:{height}px" role="img" aria-labelledby="{name}-title" '
        f'aria-describedby="{name}-text"{" data-labels=true" if chart.has_labels else ""}></div></div>'
        for title, chart in charts
    ]
    return (
        f'<figure>\n<figcaption id="{name}-text"><p class="takeaway">{takeaway}</p>\n'
        f'<p>{how} Its numbers: <a href="#{table}">the table below</a>.</p></figcaption>\n'
        f'{key}<div class="panels">\n{_lines(panels)}\n</div>\n</figure>'
    )


def _key(names: Iterable[str], looks: dict[str, Look]) -> str:
    items = []
    for name in names:
        look = looks[name]
        dash = f' stroke-dasharray="{DASHES[look.dash]}"' if DASHES[look.dash] else ""
        items.append(
            f'<li><svg width="40" height="14" viewBox="-20 -7 40 14" aria-hidden="true" style="color:{look.colour}">'
            f'<path d="M-20 0h40" stroke="currentColor" stroke-width="2"{dash}/>'
            f'<path d="{SHAPES[look.shape]}" fill="currentColor"/></svg><code>{_e(name)}</code></li>'
        )
    return f'<ul class="key" aria-label="Key">\n{_lines(items)}\n</ul>\n'


# ---- parts of the charts


def _looks(record: BenchRecord) -> dict[str, Look]:
    """Give each backend its colour, shape and dashes; no two of up to 280 share all three."""
    names = [record.reference, *(info.name for info in record.backends if info.name != record.reference)]
    shapes, dashes = list(SHAPES), list(DASHES)
    looks = {
        name: Look(f"var(--s{i % COLOURS})", shapes[i % len(shapes)], dashes[i % len(dashes)])
        for i, name in enumerate(names)
    }
    return looks | ({record.again: looks[record.reference]} if record.again else {})


def _marker(look: Look, size: int, *, is_hollow: bool = False) -> Json:
    symbol = f"{look.shape}-open" if is_hollow else look.shape
    return {"symbol": symbol, "size": size, "color": look.colour, "line": {"width": 2 if is_hollow else 0}}


def _layout(x_axis: Json, y_axis: Json) -> Json:
    return {
        "xaxis": x_axis,
        "yaxis": y_axis,
        "autosize": True,
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 58, "r": 14, "t": 12, "b": 52},
        "font": {"family": "system-ui, 'Segoe UI', Roboto, Arial, sans-serif", "size": 13, "color": "var(--ink)"},
        "hoverlabel": {"bgcolor": "var(--surface)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
    }


def _axis(title: str, **more: object) -> Json:
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "fixedrange": True,
        **more,
    }


def _latency_axis(title: str, low_ms: float, high_ms: float, *, is_log: bool | None = None) -> Json:
    """Return an axis for latencies between two, logarithmic where they are far apart unless told."""
    if is_log if is_log is not None else high_ms > WIDE * low_ms:
        pad = 0.04 * math.log10(high_ms / low_ms) + 0.02
        low, high = math.log10(low_ms) - pad, math.log10(high_ms) + pad
        ticks = [
            digit * 10.0**power
            for power in range(math.floor(low), math.ceil(high) + 1)
            for digit in (1, 2, 5)
            if low <= math.log10(digit * 10.0**power) <= high
        ]
        text = [f"{tick:g}" if tick < 1000 else f"{tick:,.0f}" for tick in ticks]
        return _axis(title, type="log", range=[low, high], tickvals=ticks, ticktext=text)
    pad = 0.05 * (high_ms - low_ms) + 0.01 * high_ms
    return _axis(title, range=[max(0.0, low_ms - pad), high_ms + pad], nticks=7)


def _drawn(chart: Chart) -> Json:
    return {"id": chart.name, "data": chart.data, "layout": chart.layout}


def _inline_json(value: object) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plot_text(text: str) -> str:
    """Escape a text for Plotly, which reads a little HTML but does not know `&quot;`."""
    return escape(text, quote=False)


# ---- text


def _e(value: object) -> str:
    return escape(str(value))


def _marked(text: str) -> str:
    """Escape a text and set what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _e(text))


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _lines(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _number(value: float) -> str:
    """Render with three significant digits, and whole numbers in full."""
    if not math.isfinite(value):
        return "∞"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 6)}f}"


def _ms(seconds: float) -> str:
    return _number(seconds * 1e3)


def _mb(size_bytes: float) -> str:
    return _number(size_bytes / 1e6)


def _points(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def _ends(interval: Interval, shape: str) -> str:
    low, high = (
        shape.format(end) if math.isfinite(end) else ("∞" if end > 0 else "-∞") for end in (interval.low, interval.high)
    )
    return f"[{low}, {high}]"


def _ratio(speed: Interval) -> str:
    return f"{speed.estimate:.2f}× {_ends(speed, '{:.2f}')}"
