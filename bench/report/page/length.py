"""Latency by the length of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.judge.interval import percent_text
from bench.judge.summary import LengthLatency, Row, Summary
from bench.report.page.cells import Table, missing, table_of, timed_cell, token_range
from bench.report.page.charts import LOG_FROM, Chart, Json, axis_of, latency_axis, layout_of, line_of, looks_of
from bench.report.page.parts import Figure, Section, code, figure_section, key_of, ms

ByLength = Mapping[str, Sequence[LengthLatency]]


def length_section(summary: Summary) -> Section | None:
    """Show the latency by length of the text; None where nothing was timed."""
    by_length = {row.info.name: row.latency.by_length for row in summary.rows if row.latency and row.latency.by_length}
    if not by_length:
        return None
    looks = looks_of(summary)
    data = []
    for name, ranges in by_length.items():
        latencies_ms = [at.seconds * 1e3 for at in ranges]
        notes = [f"{latency:.3g} ms" for latency in latencies_ms]
        data.append(line_of(name, [at.tokens for at in ranges], latencies_ms, looks[name], notes))
    shown = dict.fromkeys((fastest_own(summary).info.name, summary.reference))
    takeaway = " ".join(_from_to(name, by_length[name]) for name in shown)
    how = "One text at a time, from text to label: the median of the calls in each range of lengths."
    percent = percent_text(summary.confidence)
    caption = f"Median latency in ms by length, and times faster than the reference with the {percent}&nbsp;% interval."
    table = table_of("by-length", caption, _table(by_length, summary.length_ranges))
    chart = Chart("length-chart", data, _layout(by_length))
    figure = Figure(takeaway, how, [chart], 380, "by-length", key_of(by_length, looks))
    return figure_section("length", "Latency by length", figure, table)


def fastest_own(summary: Summary) -> Row:
    """Return the fastest engine with single texts, other tools left aside unless there is nothing else."""
    timed = [(row.info.is_peer, row.latency.total_s.median, row) for row in summary.rows if row.latency]
    return min(timed, key=lambda entry: entry[:2])[2]


def _from_to(name: str, ranges: Sequence[LengthLatency]) -> str:
    short, long = ranges[0], ranges[-1]
    return (
        f"{code(name)} takes {ms(short.seconds)} ms at about {short.tokens:.0f} tokens and {ms(long.seconds)} ms at "
        f"about {long.tokens:.0f}."
    )


def _table(by_length: ByLength, length_ranges: Sequence[tuple[int, int]]) -> Table:
    timed = {(name, at.least): timed_cell(at.seconds, at.speed) for name, ranges in by_length.items() for at in ranges}
    return [
        {"Tokens": token_range(least, most)} | {code(name): timed.get((name, least), missing()) for name in by_length}
        for least, most in length_ranges
    ]


def _layout(by_length: ByLength) -> Json:
    """Return axes from 0, or a logarithmic one where a GPU beside a CPU would lie on the axis."""
    longest = [ranges[-1].seconds for ranges in by_length.values()]
    if max(longest) > LOG_FROM * min(longest):
        all_ms = [at.seconds * 1e3 for ranges in by_length.values() for at in ranges]
        y_axis = latency_axis("median latency, ms", min(all_ms), max(all_ms), is_log=True)
    else:
        y_axis = axis_of("median latency, ms", rangemode="tozero")
    return layout_of(axis_of("tokens in the text", rangemode="tozero"), y_axis)
