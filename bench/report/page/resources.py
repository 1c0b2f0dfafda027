"""Cold starts and memory."""

from __future__ import annotations

from bench.judge.interval import Interval, bounds_text
from bench.judge.summary import Row, Summary
from bench.report.page.cells import Cell, Table, engine_cell, in_mb, missing, plain, quartiles, table_of
from bench.report.page.parts import Section, counted


def resources_section(summary: Summary) -> Section | None:
    """Show cold starts and memory; None where neither was measured."""
    body = []
    if any(row.start for row in summary.rows):
        caption = (
            "Cold start: from the start of a new process to its first answer, medians. The total is shown with its "
            "quartiles, and includes the start of the interpreter."
        )
        body.append(table_of("starts", caption, _starts(summary)))
    if remembered := [row for row in summary.rows if row.memory or row.growth_bytes]:
        columns = ["Engine", "Loaded, MB", "Peak, MB", "GPU, MB", "Growth, kB per call"]
        table = columns, [_memory(row) for row in remembered]
        body.append(table_of("memory-table", _memory_caption(summary), table))
    return Section("start", "Cold start and memory", "\n".join(body)) if body else None


def _starts(summary: Summary) -> Table:
    rows = [
        [engine_cell(row), quartiles(start.total_s), *map(plain, (start.import_s, start.load_s, start.first_s))]
        for row in summary.rows
        if (start := row.start)
    ]
    return ["Engine", "Total, s", "Import, s", "Load, s", "First answer, s"], rows


def _memory(row: Row) -> list[Cell]:
    memory = row.memory
    sizes = (memory.loaded_bytes, memory.peak_bytes, memory.gpu_bytes) if memory else (None, None, None)
    return [engine_cell(row), *map(in_mb, sizes), _growth(row.growth_bytes)]


def _memory_caption(summary: Summary) -> str:
    caption = "Memory of the process: the largest of all restarts."
    if any(row.memory and row.memory.gpu_bytes is not None for row in summary.rows):
        caption += " GPU: what PyTorch allocated; for other engines the driver's figure, CUDA context included."
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
