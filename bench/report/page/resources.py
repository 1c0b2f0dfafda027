"""Cold starts and memory."""

from __future__ import annotations

from bench.judge.interval import Interval, bounds_text
from bench.judge.summary import Row, Summary
from bench.report.page.cells import Cell, engine_cell, measured, missing, quartiles, table_of
from bench.report.page.parts import Section, counted, lines, mb
from bench.results import Memory


def resources_section(summary: Summary) -> Section | None:
    """Show cold starts and memory; None where neither was measured."""
    body = []
    starts = [
        {
            "Engine": engine_cell(row),
            "Total, s": quartiles(start.total_s),
            "Import, s": measured(start.import_s),
            "Load, s": measured(start.load_s),
            "First answer, s": measured(start.first_s),
        }
        for row in summary.rows
        if (start := row.start)
    ]
    if starts:
        caption = (
            "Cold start: from the start of a new process to its first answer, medians. The total is shown with its "
            "quartiles, and includes the start of the interpreter."
        )
        body.append(table_of("starts", caption, starts))
    if memories := [_memory(row) for row in summary.rows if row.memory or row.growth_bytes]:
        body.append(table_of("memory-table", _memory_caption(summary), memories))
    return Section("start", "Cold start and memory", lines(body)) if body else None


def _memory(row: Row) -> dict[str, Cell]:
    memory = row.memory or Memory(row.info.name, None, None, None)
    return {
        "Engine": engine_cell(row),
        "Loaded, MB": measured(memory.loaded_bytes, mb),
        "Peak, MB": measured(memory.peak_bytes, mb),
        "GPU, MB": measured(memory.gpu_bytes, mb),
        "Growth, kB per call": _growth(row.growth_bytes),
    }


def _memory_caption(summary: Summary) -> str:
    caption = "Memory of the process: the largest of all restarts."
    if any(row.memory and row.memory.gpu_bytes is not None for row in summary.rows):
        caption += " GPU: what PyTorch allocated; for other engines what their process held, CUDA context included."
    if summary.soak_calls:
        caption += (
            f" Growth: the slope over {counted(summary.soak_calls, 'call')} with texts of all lengths, after all "
            "other measurements, with its 95 % interval; from the last process of each engine."
        )
    return caption


def _growth(growth: Interval | None) -> Cell:
    if growth is None:
        return missing()
    low, middle, high = (round(end / 1e3, 1) + 0.0 for end in (growth.low, growth.estimate, growth.high))
    interval = bounds_text(Interval(low, middle, high), "{:.1f}")
    return Cell(f"{middle:.1f}<small>{interval}</small>", growth.estimate)
