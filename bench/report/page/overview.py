"""Accuracy against latency in a chart, and every engine in a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.judge.summary import PERCENTILES, Latency, Row, Summary
from bench.report.page.cells import (
    Cell,
    Table,
    engine_cell,
    measured,
    metric_of,
    missing,
    percent,
    ranged,
    speed_cell,
    table_of,
    verdict_of,
)
from bench.report.page.charts import Chart, Json, Look, axis_of, latency_axis, layout_of, looks_of, marker_of, plot_text
from bench.report.page.parts import Figure, Section, code, figure_section, mb, ms, number
from bench.results import Accuracy
from exporter.int8.select import points

Point = tuple[Row, Latency, Accuracy]


def overview_section(summary: Summary) -> Section:
    """Show accuracy against latency, and every engine in a table."""
    drawn = [(row, row.latency, row.accuracy) for row in summary.rows if row.latency and row.accuracy]
    table = table_of("overview", "Every engine, the reference first, then by latency.", _overview(summary))
    if not drawn:
        return Section("overview-section", "Overview", table)
    own = [point for point in drawn if not point[0].info.is_peer] or drawn
    how = (
        "Up and to the left is better. Bars show the quartiles of the latency, and the interval of the change of "
        f"{summary.task.metric} against the reference. The dotted line joins the engines that no other beats in both; "
        "a ring marks the recommended one."
    )
    if any(row.info.is_peer for row, _, _ in drawn):
        how += " Hollow markers are other tools, for comparison; they are not on the line."
    data = _data(drawn, _frontier(own), summary.recommendation.engine, looks_of(summary))
    chart = Chart("pareto-chart", data, _layout(drawn, summary.task.metric), has_labels=True)
    figure = Figure(_takeaway(own, summary.task.metric), how, [chart], 440, "overview")
    return figure_section("pareto", f"{metric_of(summary)} against latency", figure, table)


def _takeaway(own: Sequence[Point], metric: str) -> str:
    fastest = min(own, key=_latency_then_accuracy)
    best = max(own, key=lambda point: (point[2].score, -point[1].total_s.median))
    if fastest[2].score >= best[2].score:
        return f"Fastest: {_at(fastest)}. No other has a higher {metric}."
    return f"Fastest: {_at(fastest)}. Highest {metric}: {_at(best)}."


def _latency_then_accuracy(point: Point) -> tuple[float, float]:
    return point[1].total_s.median, -point[2].score


def _at(point: Point) -> str:
    row, latency, scores = point
    return f"{code(row.info.name)}, {ms(latency.total_s.median)} ms and {100 * scores.score:.2f} %"


def _frontier(own: Iterable[Point]) -> list[Point]:
    """Return the points that no other beats in latency and accuracy, the fastest first."""
    kept: list[Point] = []
    for point in sorted(own, key=_latency_then_accuracy):
        if not kept or point[2].score > kept[-1][2].score:
            kept.append(point)
    return kept


def _reach(scores: Accuracy) -> tuple[float, float]:
    """Return how far the interval reaches below and above the accuracy, in percentage points."""
    if scores.change is None:
        return 0.0, 0.0
    change = scores.change
    return 100 * (change.change - change.lower), 100 * (change.upper - change.change)


def _data(
    drawn: Sequence[Point], frontier: Sequence[Point], recommended: str | None, looks: Mapping[str, Look]
) -> list[Json]:
    dots = {"shape": "hv", "color": "var(--soft)", "width": 1.5, "dash": "dot"}
    data = [_trace("lines", frontier, line=dots, hoverinfo="skip")]
    for point in drawn:
        if point[0].info.name == recommended:
            line = {"color": "var(--accent)", "width": 2.5}
            ring = {"symbol": "circle-open", "size": 26, "color": "var(--accent)", "line": line}
            data.append(_trace("markers", [point], marker=ring, hoverinfo="skip"))
        data.append(_marker(point, looks[point[0].info.name]))
    names = [row.info.name for row, _, _ in drawn]
    text = [f"<b>{plot_text(name)}</b>" if name == recommended else plot_text(name) for name in names]
    font = {"color": [looks[name].colour for name in names]}
    # The names are last, so that no bar crosses them.
    return [*data, _trace("text", drawn, text=text, textfont=font, cliponaxis=False, hoverinfo="skip")]


def _marker(point: Point, look: Look) -> Json:
    row, latency, scores = point
    total, (below, above) = latency.total_s, _reach(scores)
    bar = {"type": "data", "symmetric": False, "color": look.colour, "thickness": 1, "width": 0}
    left, right = (total.median - total.low) * 1e3, (total.high - total.median) * 1e3
    return _trace(
        "markers",
        [point],
        text=[plot_text(row.info.name)],
        marker=marker_of(look, 12, is_hollow=row.info.is_peer),
        error_x={**bar, "array": [right], "arrayminus": [left]},
        error_y={**bar, "array": [above], "arrayminus": [below]},
        cliponaxis=False,
        hovertemplate=f"%{{text}}<br>{ms(total.median)} ms, {100 * scores.score:.2f} %<extra></extra>",
    )


def _trace(mode: str, shown: Sequence[Point], **more: object) -> Json:
    x = [latency.total_s.median * 1e3 for _, latency, _ in shown]
    return {"type": "scatter", "mode": mode, "x": x, "y": [100 * scores.score for _, _, scores in shown], **more}


def _layout(drawn: Sequence[Point], metric: str) -> Json:
    low_x = min(latency.total_s.low for _, latency, _ in drawn) * 1e3
    high_x = max(latency.total_s.high for _, latency, _ in drawn) * 1e3
    reaches = [(100 * scores.score, *_reach(scores)) for _, _, scores in drawn]
    low_y, high_y = min(y - below for y, below, _ in reaches), max(y + above for y, _, above in reaches)
    pad = max(0.1 * (high_y - low_y), 0.05)
    y_axis = axis_of(f"{metric}, %", range=[low_y - pad, high_y + pad], nticks=7)
    return layout_of(latency_axis("median latency, ms", low_x, high_x), y_axis)


def _overview(summary: Summary) -> Table:
    rows = []
    for row in summary.rows:
        latency = row.latency
        total = latency.total_s if latency else None
        cells = {
            "Engine": engine_cell(row, summary.recommendation.engine),
            f"{metric_of(summary)}, %": percent(row.accuracy.score if row.accuracy else None),
            "Change, points": _change(row),
            "Speed": speed_cell(row, latency.speed if latency else None),
            "Median, ms": ranged(total.median, total.low, total.high, ms) if total else missing(),
            **{f"p{100 * share:g}, ms": _tail(latency, share) for share in PERCENTILES},
            "In bulk, texts/s": _bulk(row),
            "On disk, MB": measured(row.info.size_bytes, mb),
            "Packages, MB": measured(row.info.packages_bytes or None, mb),
            "Cold start, s": measured(row.start.total_s.median if row.start else None),
            "Peak memory, MB": measured(row.memory.peak_bytes if row.memory else None, mb),
            "Of roofline, %": percent(latency.attainable if latency else None, "{:.0f}"),
        }
        rows.append(cells)
    return rows


def _change(row: Row) -> Cell:
    change = row.accuracy.change if row.accuracy else None
    if change is None:
        return missing("the reference" if row.is_reference else "not measured")
    css = {"within budget": "good", "over budget": "bad"}.get(row.judgement or "", "")
    interval = f"<small>[{points(change.lower)}, {points(change.upper)}]</small>"
    return Cell(f'{points(change.change)}{interval}<small class="{css}">{row.judgement}</small>', change.change)


def _tail(latency: Latency | None, share: float) -> Cell:
    if latency is None:
        return missing()
    tail = next(tail for tail in latency.tails if tail.share == share)
    if tail.value_s is None:
        return Cell(f"<small>needs</small><small>{tail.calls_needed:,}</small><small>calls</small>")
    return measured(tail.value_s, ms)


def _bulk(row: Row) -> Cell:
    if row.throughput is None:
        return missing()
    per_s = row.throughput.texts_per_s.median
    tag = "<small>the reference</small>" if row.is_reference else verdict_of(row.throughput.speed)
    return Cell(f"{number(per_s)}{tag}", per_s)
