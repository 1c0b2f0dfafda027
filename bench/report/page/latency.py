"""How long answers take: by length of the text, by batch and length, and how latencies spread. Pure functions."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from statistics import median

from bench.judge.stats import Interval, Verdict, verdict
from bench.judge.summary import GridCell, Row, Summary, speeds_by_length
from bench.judge.verdict import ratio
from bench.report.page.charts import (
    WIDE,
    Chart,
    Json,
    Look,
    axis_of,
    latency_axis,
    layout_of,
    line_of,
    plot_text,
)
from bench.report.page.parts import (
    Cell,
    Section,
    code,
    engine_cell,
    figure_of,
    in_ms,
    key_of,
    missing,
    ms,
    plain,
    table_of,
    told,
)
from bench.results import BenchRecord
from exporter.proof.timing import spread

CALLS_A_BIN = 20
MOST_BINS = 8

Bins = dict[int, tuple[float, float]]
"""The median tokens and the median seconds of the calls in each range of lengths, by its least tokens."""


def length_section(record: BenchRecord, summary: Summary, looks: dict[str, Look]) -> Section | None:
    """Show the latency by length of the text; None where nothing was timed."""
    ranges = _length_ranges(record)
    binned = {row.info.name: _binned(record, row.info.name, ranges) for row in summary.rows if row.latency}
    if not binned or not ranges:
        return None
    chart = Chart("length-chart", _length_data(binned, looks), _length_layout(binned))
    fastest = next((row.info.name for row in _by_speed(summary) if not row.info.is_peer), record.reference)
    takeaway = " ".join(_from_to(name, binned[name]) for name in dict.fromkeys((fastest, record.reference)))
    how = "One text at a time, text to label: the median of the calls in each range of lengths."
    speeds = {name: speeds_by_length(record, name, ranges) for name in binned if name != record.reference}
    rows = []
    for i, (least, most) in enumerate(ranges):
        cells = [Cell(f"{least:,} to {most:,}", least)]
        for name, bins in binned.items():
            speed = speeds[name][i] if name in speeds else None
            cells.append(_against(bins[least][1] if least in bins else None, speed, summary.single_floor))
        rows.append(cells)
    columns = ["Tokens", *(f"{code(name)}" for name in binned)]
    caption = "Median ms by length, and times faster than the reference, with an interval of 99&nbsp;%."
    table = table_of("by-length", caption, columns, rows)
    figure = figure_of("length", takeaway, how, [("", chart)], 380, table="by-length", key=key_of(binned, looks))
    return Section("length", "Latency by length", f"{figure}\n{table}", (chart,))


def _by_speed(summary: Summary) -> list[Row]:
    """Return the rows that were timed one text at a time, the fastest first."""
    timed = [(row.latency.total_s.median, row) for row in summary.rows if row.latency]
    return [row for _, row in sorted(timed, key=lambda pair: pair[0])]


def _from_to(name: str, bins: Bins) -> str:
    (short, fast), (long, slow) = bins[min(bins)], bins[max(bins)]
    return f"{code(name)} takes {ms(fast)} ms at about {short:.0f} tokens and {ms(slow)} ms at about {long:.0f}."


def _length_ranges(record: BenchRecord) -> list[tuple[int, int]]:
    """Return ranges of lengths, both ends included, with about equally many of the reference's calls in each."""
    tokens = sorted(n for single in record.singles if single.engine == record.reference for n in single.tokens)
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
        if single.engine == name:
            for n, seconds in zip(single.tokens, single.total_s, strict=True):
                found[starts[max(0, bisect_right(starts, n) - 1)]].append((n, seconds))
    return {
        least: (median(n for n, _ in calls), median(s for _, s in calls)) for least, calls in found.items() if calls
    }


def _length_data(binned: dict[str, Bins], looks: dict[str, Look]) -> list[Json]:
    return [
        line_of(
            name,
            [n for n, _ in bins.values()],
            [s * 1e3 for _, s in bins.values()],
            looks[name],
            [f"{s * 1e3:.3g} ms" for _, s in bins.values()],
        )
        for name, bins in binned.items()
    ]


def _length_layout(binned: dict[str, Bins]) -> Json:
    """Return axes from 0, or a logarithmic one where a GPU beside a CPU would lie on the axis."""
    longest = [bins[max(bins)][1] for bins in binned.values()]
    if max(longest) > WIDE * min(longest):
        all_ms = [s * 1e3 for bins in binned.values() for _, s in bins.values()]
        y_axis = latency_axis("median latency, ms", min(all_ms), max(all_ms), is_log=True)
    else:
        y_axis = axis_of("median latency, ms", rangemode="tozero")
    return layout_of(axis_of("tokens in the text", rangemode="tozero"), y_axis)


def _against(seconds: float | None, speed: Interval | None, floor: float) -> Cell:
    """Return milliseconds, and how many times faster than the reference that is, if there is another to compare to."""
    if seconds is None:
        return missing()
    if speed is None:
        return Cell(ms(seconds), seconds)
    return Cell(f"{ms(seconds)}<small>{ratio(speed)}</small>{told(verdict(speed, floor))}", seconds)


def grid_section(record: BenchRecord, summary: Summary, looks: dict[str, Look]) -> Section | None:
    """Show the model alone by batch and length; None where that was not measured."""
    if not summary.grid:
        return None
    cells = {(cell.engine, cell.batch, cell.length): cell for cell in summary.grid}
    names = [row.info.name for row in summary.rows if any(name == row.info.name for name, _, _ in cells)]
    batches, lengths = sorted({b for _, b, _ in cells}), sorted({n for _, _, n in cells})
    others = [name for name in names if name != record.reference]
    charts = [
        (f"batch of {batch:,}", Chart(f"grid-chart-{batch}", *_speeds(summary.grid, record, others, batch, looks)))
        for batch in batches
    ]
    rows = [
        [
            Cell(code(name), name),
            Cell(f"{batch:,}", batch),
            *(_grid_cell(cells.get((name, batch, n)), name == record.reference) for n in lengths),
        ]
        for name in names
        for batch in batches
    ]
    columns = ["Engine", "Batch", *(f"{n:,} tokens, ms" for n in lengths)]
    caption = (
        "The model alone: median ms a batch, and times faster than the reference with the 99 % interval. "
        "Cannot tell: the interval reaches the noise floor in the verdict."
    )
    how = (
        "The model alone, without the tokeniser, on texts of exactly so many tokens: times faster than "
        f"{code(record.reference)}, which is the line at 1. Below it an engine is slower. Hollow: the two "
        "cannot be told apart."
    )
    takeaway = _losses(summary.grid, record, others)
    figure = figure_of("grid", takeaway, how, charts, 300, table="grid-table", key=key_of(others, looks))
    table = table_of("grid-table", caption, columns, rows)
    return Section("grid", "Batch and length", f"{figure}\n{table}", tuple(chart for _, chart in charts))


def _grid_cell(cell: GridCell | None, is_reference: bool) -> Cell:
    if cell is None:
        return missing()
    seconds = cell.seconds.median
    if is_reference or cell.speed is None:
        return in_ms(seconds)
    return Cell(f"{ms(seconds)}<small>{ratio(cell.speed)}</small>{told(cell.verdict)}", seconds)


def _losses(grid: Sequence[GridCell], record: BenchRecord, names: Sequence[str]) -> str:
    """Say where an engine that could be shipped is slower than the reference."""
    peers = {info.name for info in record.engines if info.is_peer}
    lost = []
    for name in names:
        cells = sorted((c for c in grid if c.engine == name), key=lambda c: (c.batch, c.length))
        where = [f"{c.batch:,}&nbsp;×&nbsp;{c.length:,}" for c in cells if c.verdict == "slower"]
        if where and name not in peers:
            places = "everywhere" if len(where) == len(cells) else f"at {', '.join(where)}"
            lost.append(f"{code(name)} {places}")
    if not lost:
        return "Nothing that could be shipped is told to be slower than the reference at these batches and lengths."
    return f"Slower than the reference, by batch × tokens: {'; '.join(lost)}."


def _speeds(
    grid: Sequence[GridCell], record: BenchRecord, names: Sequence[str], batch: int, looks: dict[str, Look]
) -> tuple[list[Json], Json]:
    lengths = sorted({cell.length for cell in grid})
    data = []
    for name in names:
        cells = sorted((c for c in grid if (c.engine, c.batch) == (name, batch)), key=lambda c: c.length)
        timed = [(cell.length, cell.speed, cell.verdict) for cell in cells if cell.speed]
        if timed:
            line = line_of(
                name,
                [n for n, _, _ in timed],
                [speed.estimate for _, speed, _ in timed],
                looks[name],
                [f"{ratio(speed)}, {how}" for _, speed, how in timed],
            )
            line["marker"] |= _filled_if_told([how for _, _, how in timed], looks[name])
            data.append(line)
    highest = max([1.0, *(cell.speed.estimate for cell in grid if cell.speed)])
    x_axis = axis_of("tokens", type="log", tickvals=lengths, ticktext=[f"{n:,}" for n in lengths])
    x_axis["range"] = [math.log10(lengths[0]) - 0.12, math.log10(lengths[-1]) + 0.12]
    layout = layout_of(x_axis, axis_of("times faster", range=[0, 1.08 * highest]))
    look = looks.get(record.reference)
    stroke = {"color": look.colour if look else "var(--soft)", "width": 1.5, "dash": "dash"}
    layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": stroke}]
    return data, layout


def _filled_if_told(verdicts: Sequence[Verdict], look: Look) -> Json:
    fills = ["var(--surface)" if verdict == "cannot tell" else look.colour for verdict in verdicts]
    return {"color": fills, "line": {"color": look.colour, "width": 2}}


def spread_section(record: BenchRecord, summary: Summary, looks: dict[str, Look]) -> Section | None:
    """Show every call's latency, and its parts; None where nothing was timed."""
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
        f"Half of the calls of {code(fastest)} take {ms(of.low)} to {ms(of.high)} ms, "
        f"its slowest {ms(max(samples[fastest]))} ms."
    )
    how = (
        "One text at a time, text to label; texts of all lengths, so that most of the width is the texts'. "
        "Box: the quartiles and the median. Whiskers: the fastest and the slowest call. Each dot is a call."
    )
    if record.again in samples:
        how += f" {code(record.again)} is a second process of the reference."
    figure = figure_of("spread", takeaway, how, [("", chart)], 84 + 76 * len(samples), table="split")
    caption = "One text at a time, in milliseconds. Every part is a median of its own."
    return Section(
        "spread", "How latencies spread", f"{figure}\n{table_of('split', caption, *_split(record, rows))}", (chart,)
    )


def _totals(record: BenchRecord, name: str) -> list[float]:
    return [s for single in record.singles if single.engine == name for s in single.total_s]


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
        labels.append({**label, "text": plot_text(name), "font": {"color": look.colour}})
    ends = [s * 1e3 for taken in samples.values() for s in taken]
    x_axis = latency_axis("latency, ms", min(ends), max(ends), is_log=True)
    layout = layout_of(x_axis, {"range": [len(samples) - 0.7, -0.65], "visible": False, "fixedrange": True})
    layout["margin"] = {**layout["margin"], "l": 12}
    layout["annotations"] = labels
    return data, layout


def _split(record: BenchRecord, rows: Sequence[Row]) -> tuple[list[str], list[list[Cell]]]:
    has_own = any(row.latency and row.latency.own_p95_s is not None for row in rows)
    columns = [
        *("Engine", "Calls", "Fastest", "Lower quartile", "Median", "Upper quartile", "Slowest"),
        *("Tokenise", "Run", "Rest", "Warm-up calls", "Largest gap of a probability"),
    ]
    if has_own:
        columns.append("p95 expected of your texts")
    table = []
    for row in rows:
        if (latency := row.latency) is None:
            continue
        taken = _totals(record, row.info.name)
        singles = [single for single in record.singles if single.engine == row.info.name]
        of = latency.total_s
        cells = [
            engine_cell(row, record),
            Cell(f"{latency.calls:,}", latency.calls),
            *(in_ms(s) for s in (min(taken), of.low, of.median, of.high, max(taken))),
            *(
                missing("not measured: nobody looks into another tool") if s is None else in_ms(s)
                for s in (latency.tokenise_s, latency.run_s, latency.rest_s)
            ),
            plain(median(single.warmup_calls for single in singles), "{:.0f}"),
            plain(max(single.largest_gap for single in singles), "{:.1e}"),
        ]
        if has_own:
            cells.append(missing() if latency.own_p95_s is None else in_ms(latency.own_p95_s))
        table.append(cells)
    return columns, table
