"""What to ship: the verdict, accuracy against latency, and the table of all engines. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.judge.summary import PERCENTILES, Latency, Row, Summary, Tail, Throughput
from bench.judge.verdict import Recommendation, ends, in_points, ratio
from bench.report.page.charts import Chart, Json, Look, axis_of, latency_axis, layout_of, marker_of, plot_text
from bench.report.page.parts import (
    REFERENCE_SPEED,
    Cell,
    Section,
    code,
    compared,
    engine_cell,
    figure_of,
    in_mb,
    in_ms,
    lines,
    marked,
    mb,
    missing,
    ms,
    number,
    plain,
    table_of,
    told,
)
from bench.results import Accuracy, BenchRecord

Point = tuple[Row, Latency, Accuracy]


def verdict_section(record: BenchRecord, summary: Summary, recommendation: Recommendation) -> Section:
    """Say what to ship, why not the others, and what can be told apart."""
    row = summary.row(recommendation.engine) if recommendation.engine else None
    body = [f'<p class="sentence">{marked(recommendation.sentence)}</p>']
    if row:
        body.append(_figures(row, record))
    if recommendation.rejected:
        why = lines(f"<li>{marked(line)}</li>" for line in recommendation.rejected)
        body.append(f"<h3>Why not the others</h3>\n<ul>\n{why}\n</ul>")
    body.append(f"<h3>What can be told apart</h3>\n<p>{_noise(record, summary)}</p>")
    return Section("verdict", "Verdict", "\n".join(body), css_class="verdict")


def _figures(row: Row, record: BenchRecord) -> str:
    latency, scores = row.latency, row.accuracy
    figures = []
    if latency:
        if row.info.name != record.reference:
            figures.append(("Speed", f"{latency.speed.estimate:.2f}×", ends(latency.speed)))
        quartiles = f"{ms(latency.total_s.low)} to {ms(latency.total_s.high)}"
        figures.append(("Median latency", f"{ms(latency.total_s.median)} ms", f"half of the calls: {quartiles}"))
    if scores:
        moved = f"{in_points(scores.change.change)} points" if scores.change else "the reference"
        figures.append(("Accuracy", f"{100 * scores.accuracy:.2f} %", moved))
    if row.throughput:
        figures.append(("In bulk", f"{number(row.throughput.texts_per_s.median)}/s", "texts"))
    if row.info.size_bytes is not None:
        figures.append(("On disk", f"{mb(row.info.size_bytes)} MB", "without packages"))
    parts = (f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in figures)
    return f'<dl class="figures">\n{lines(parts)}\n</dl>'


def _noise(record: BenchRecord, summary: Summary) -> str:
    reference = f"{code(record.reference)}"
    kinds = (
        ("one text at a time", summary.single_floor, summary.again_single),
        ("in bulk", summary.bulk_floor, summary.again_bulk),
    )
    told_below = [f"below {100 * floor:.1f} % {how}" for how, floor, _ in kinds]
    sentences = [f"No gain is claimed {' or '.join(told_below)}, nor where an interval reaches that far."]
    against = [f"{ratio(again)} {how}" for how, _, again in kinds if again]
    if against:
        sentences.append(f"{reference} against a second process of itself: {', '.join(against)}.")
    else:
        sentences.append(f"There was no second process of {reference} to measure the noise by.")
    return " ".join(sentences)


def overview_section(
    record: BenchRecord, summary: Summary, recommendation: Recommendation, looks: dict[str, Look]
) -> Section:
    """Show accuracy against latency, and every engine in a table."""
    points = [(row, row.latency, row.accuracy) for row in summary.rows if row.latency and row.accuracy]
    table = table_of(
        "overview", "Every engine, the reference first, then by latency.", *_overview(record, summary, recommendation)
    )
    if not points:
        return Section("overview-section", "Overview", table)
    own = [point for point in points if not point[0].info.is_peer] or points
    frontier = _frontier(own)
    fastest, best = min(own, key=_latency_then_accuracy), max(own, key=lambda p: (p[2].accuracy, -p[1].total_s.median))
    takeaway = f"Fastest: {_at(fastest)}." + (
        " No other is more accurate." if fastest[2].accuracy >= best[2].accuracy else f" Most accurate: {_at(best)}."
    )
    how = (
        "Up and to the left is better. Bars: the quartiles of the latency, and the interval of the accuracy's change "
        "against the reference. The stepped line joins the engines that no other beats in both; "
        "a ring marks the one to ship."
    )
    if any(row.info.is_peer for row, _, _ in points):
        how += " Hollow: other tools, for comparison, not to be shipped, and not on the line."
    chart = Chart("pareto-chart", _pareto_data(points, frontier, recommendation, looks), _pareto_layout(points), True)
    figure = figure_of("pareto", takeaway, how, [("", chart)], 440, table="overview")
    return Section("pareto", "Accuracy against latency", f"{figure}\n{table}", (chart,))


def _latency_then_accuracy(point: Point) -> tuple[float, float]:
    return point[1].total_s.median, -point[2].accuracy


def _at(point: Point) -> str:
    row, latency, scores = point
    return f"{code(row.info.name)}, {ms(latency.total_s.median)} ms and {100 * scores.accuracy:.2f} %"


def _frontier(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other beats in latency and accuracy, the fastest first."""
    kept: list[Point] = []
    for point in sorted(points, key=_latency_then_accuracy):
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
        is_chosen = name == recommendation.engine
        bar = {"type": "data", "symmetric": False, "color": look.colour, "thickness": 1, "width": 0}
        if is_chosen:
            data.append(_ring(x, y))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [x],
                "y": [y],
                "text": [plot_text(name)],
                "marker": marker_of(look, 12, is_hollow=row.info.is_peer),
                "error_x": {
                    **bar,
                    "array": [(of.high - of.median) * 1e3],
                    "arrayminus": [(of.median - of.low) * 1e3],
                },
                "error_y": {**bar, "array": [above], "arrayminus": [below]},
                "cliponaxis": False,
                "hovertemplate": f"%{{text}}<br>{ms(of.median)} ms, {y:.2f} %<extra></extra>",
            }
        )
    return [*data, _names(points, recommendation, looks)]


def _names(points: Sequence[Point], recommendation: Recommendation, looks: dict[str, Look]) -> Json:
    """Return the points' names, last so that no bar crosses them."""
    names = [row.info.name for row, _, _ in points]
    shown = [f"<b>{plot_text(n)}</b>" if n == recommendation.engine else plot_text(n) for n in names]
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
    y_axis = axis_of("accuracy, %", range=[low_y - pad, high_y + pad], nticks=7)
    return layout_of(latency_axis("median latency, ms", low_x, high_x), y_axis)


def _overview(
    record: BenchRecord, summary: Summary, recommendation: Recommendation
) -> tuple[list[str], list[list[Cell]]]:
    columns = [
        *("Engine", "Accuracy, %", "Change, points", "Speed", "Median, ms"),
        *(f"p{100 * share:g}, ms" for share in PERCENTILES),
        *("In bulk, texts/s", "On disk, MB", "Packages, MB", "Cold start, s", "Peak memory, MB"),
        "Of attainable, %",
    ]
    rows = []
    for row in summary.rows:
        scores, latency = row.accuracy, row.latency
        tails = [_tail(tail) for tail in latency.tails] if latency else [missing()] * len(PERCENTILES)
        cells = [
            engine_cell(row, record, recommendation),
            plain(100 * scores.accuracy, "{:.2f}") if scores else missing(),
            _change(row, record),
            _speed(row, record),
            _median(latency),
            *tails,
            _bulk(row.throughput, row.info.name == record.reference),
            in_mb(row.info.size_bytes),
            in_mb(row.info.packages_bytes or None),
            plain(row.start.total_s.median) if row.start else missing(),
            in_mb(row.memory.peak_bytes if row.memory else None),
            plain(100 * latency.attainable, "{:.0f}") if latency and latency.attainable is not None else missing(),
        ]
        rows.append(cells)
    return columns, rows


def _change(row: Row, record: BenchRecord) -> Cell:
    change = row.accuracy.change if row.accuracy else None
    if change is None:
        return missing("the reference" if row.info.name == record.reference else "not measured")
    tone = {"within budget": "good", "over budget": "bad"}.get(row.judgement or "", "")
    reach = f"[{in_points(change.lower)}, {in_points(change.upper)}]"
    judged = f'<small class="{tone}">{row.judgement}</small>'
    return Cell(f"{in_points(change.change)}<small>{reach}</small>{judged}", change.change)


def _speed(row: Row, record: BenchRecord) -> Cell:
    if row.latency is None:
        return missing()
    if row.info.name == record.reference:
        return REFERENCE_SPEED
    return compared(row.latency.speed, row.latency.verdict)


def _median(latency: Latency | None) -> Cell:
    if latency is None:
        return missing()
    of = latency.total_s
    return Cell(f"{ms(of.median)}<small>{ms(of.low)} to {ms(of.high)}</small>", of.median)


def _tail(tail: Tail) -> Cell:
    if tail.value_s is None:
        return Cell(f"<small>needs</small><small>{tail.samples_needed:,}</small><small>calls</small>")
    return in_ms(tail.value_s)


def _bulk(throughput: Throughput | None, is_reference: bool) -> Cell:
    if throughput is None:
        return missing()
    how = "<small>the reference</small>" if is_reference else told(throughput.verdict)
    return Cell(f"{number(throughput.texts_per_s.median)}{how}", throughput.texts_per_s.median)
