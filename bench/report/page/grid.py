"""The model alone, by batch and length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.judge.interval import percent_text, ratio_text
from bench.judge.summary import GridCell, Summary
from bench.report.page.cells import Table, count, missing, name_cell, table_of, timed_cell
from bench.report.page.charts import Chart, Json, Look, axis_of, layout_of, line_of, looks_of
from bench.report.page.parts import Figure, Section, code, figure_section, key_of


def grid_section(summary: Summary) -> Section | None:
    """Show the model alone by batch and length; None where that was not measured."""
    if not summary.grid:
        return None
    looks, reference = looks_of(summary), summary.reference
    engines = [row.info.name for row in summary.rows if any(cell.engine == row.info.name for cell in summary.grid)]
    others = [name for name in engines if name != reference]
    batches = sorted({cell.batch for cell in summary.grid})
    layout = _layout(summary.grid, looks[reference])
    charts = [
        Chart(f"grid-chart-{batch}", _data(summary.grid, others, batch, looks), layout, f"batch of {batch:,}")
        for batch in batches
    ]
    caption = (
        "The model alone: median ms per batch, and times faster than the reference with the "
        f"{percent_text(summary.confidence)} % interval. "
        "Cannot tell: the interval reaches the noise given in the verdict."
    )
    how = (
        "The model alone, without the tokeniser, on texts of exactly that many tokens: times faster than "
        f"{code(reference)}, the line at 1. Below the line, an engine is slower. Hollow markers: no measurable "
        "difference."
    )
    figure = Figure(_slower(summary), how, charts, 300, "grid-table", key_of(others, looks))
    table = table_of("grid-table", caption, _table(summary, engines, batches))
    return figure_section("grid", "Batch and length", figure, table)


def _table(summary: Summary, engines: Sequence[str], batches: Sequence[int]) -> Table:
    timed = {
        (c.engine, c.batch, c.length): timed_cell(c.seconds.median, None if c.engine == summary.reference else c.speed)
        for c in summary.grid
    }
    lengths = sorted({cell.length for cell in summary.grid})
    return [
        {"Engine": name_cell(name), "Batch": count(batch)}
        | {f"{length:,} tokens, ms": timed.get((name, batch, length), missing()) for length in lengths}
        for name in engines
        for batch in batches
    ]


def _slower(summary: Summary) -> str:
    """Say where an engine, other tools left aside, is slower than the reference."""
    slower = []
    for row in summary.rows:
        cells = sorted((c for c in summary.grid if c.engine == row.info.name), key=lambda c: (c.batch, c.length))
        places = [f"{c.batch:,}&nbsp;×&nbsp;{c.length:,}" for c in cells if c.speed and c.speed.verdict == "slower"]
        if places and not row.info.is_peer:
            where = "everywhere" if len(places) == len(cells) else f"at {', '.join(places)}"
            slower.append(f"{code(row.info.name)} {where}")
    if slower:
        return f"Slower than the reference, by batch × tokens: {'; '.join(slower)}."
    return "Other tools aside, no engine is measurably slower than the reference at these batches and lengths."


def _data(grid: Sequence[GridCell], names: Sequence[str], batch: int, looks: Mapping[str, Look]) -> list[Json]:
    data = []
    for name in names:
        cells = sorted((c for c in grid if (c.engine, c.batch) == (name, batch)), key=lambda c: c.length)
        compared = [(cell.length, cell.speed) for cell in cells if cell.speed]
        if not compared:
            continue
        lengths, speeds = zip(*compared, strict=True)
        notes = [f"{ratio_text(speed)}, {speed.verdict}" for speed in speeds]
        line = line_of(name, lengths, [speed.estimate for speed in speeds], looks[name], notes)
        colour = looks[name].colour
        fills = ["var(--surface)" if speed.verdict == "cannot tell" else colour for speed in speeds]
        line["marker"] |= {"color": fills, "line": {"color": colour, "width": 2}}
        data.append(line)
    return data


def _layout(grid: Sequence[GridCell], reference: Look) -> Json:
    lengths = sorted({cell.length for cell in grid})
    highest = max([1.0, *(cell.speed.estimate for cell in grid if cell.speed)])
    x_axis = axis_of("tokens", type="log", tickvals=lengths, ticktext=[f"{n:,}" for n in lengths])
    x_axis["range"] = [math.log10(lengths[0]) - 0.12, math.log10(lengths[-1]) + 0.12]
    layout = layout_of(x_axis, axis_of("times faster", range=[0, 1.08 * highest]))
    stroke = {"color": reference.colour, "width": 1.5, "dash": "dash"}
    layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": stroke}]
    return layout
