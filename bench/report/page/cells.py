"""Tables of the page, and the cells in them. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.judge.interval import Speed, bounds_text, ratio_text
from bench.judge.summary import Row, Summary
from bench.report.page.parts import code, lines, ms, number, safe
from exporter.proof.timing import Spread


@dataclass(frozen=True)
class Cell:
    """What stands in a table at one place."""

    html: str
    value: float | str = ""
    """To sort by; empty where nothing was measured."""
    css: str = ""


Table = Sequence[Mapping[str, Cell]]
"""Rows, whose keys are the columns as markup; the first cell of a row is its header."""


def table_of(name: str, caption: str, rows: Table) -> str:
    """Render a table that sorts by any column."""
    head = "".join(
        f'<th scope="col"{cell.css}><button type="button">{column}</button></th>' for column, cell in rows[0].items()
    )
    return (
        f'<div class="scroll" role="region" aria-labelledby="{name}-caption" tabindex="0">\n<table id="{name}">\n'
        f'<caption><span id="{name}-caption">{caption}</span></caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines(_row(*row.values()) for row in rows)}\n</tbody>\n"
        "</table>\n</div>"
    )


def _row(header: Cell, *cells: Cell) -> str:
    data = "".join(f'<td{cell.css} data-value="{safe(cell.value)}">{cell.html}</td>' for cell in cells)
    return f'<tr><th scope="row" data-value="{safe(header.value)}">{header.html}</th>{data}</tr>'


def missing(why: str = "not measured") -> Cell:
    """Return a dash; the reason shows on hover and is read aloud."""
    return Cell(f'<span title="{safe(why)}" aria-hidden="true">–</span><span class="sr">{safe(why)}</span>')


def measured(value: float | None, show: Callable[[float], str] = number, why: str = "not measured") -> Cell:
    """Return a number as `show` renders it; a dash for None."""
    return missing(why) if value is None else Cell(show(value), value)


def percent(share: float | None, shape: str = "{:.2f}") -> Cell:
    """Return a share as a percentage, a dash for None."""
    return measured(None if share is None else 100 * share, shape.format)


def count(value: int | None, why: str = "not measured") -> Cell:
    """Return a whole number, a dash for None."""
    return measured(value, "{:,}".format, why)


def word(text: str, tag: str = "") -> Cell:
    """Return a text, before the markup of a tag."""
    return Cell(safe(text) + tag, text, ' class="word"')


def token_range(least: int, most: int) -> Cell:
    """Return a range of lengths."""
    return Cell(f"{least:,} to {most:,}", least)


def name_cell(name: str, tags: str = "") -> Cell:
    """Return an engine's name, before the markup of its tags."""
    return Cell(code(name) + tags, name)


def engine_cell(row: Row, recommended: str | None = None) -> Cell:
    """Return an engine's name, and what it is: recommended, the reference, another tool."""
    tags = '<span class="tag chosen">recommended</span>' * (row.info.name == recommended)
    tags += '<span class="tag">reference</span>' * row.is_reference
    tags += '<span class="tag">other tool, for comparison</span>' * row.info.is_peer
    return name_cell(row.info.name, tags)


def speed_cell(row: Row, speed: Speed | None) -> Cell:
    """Return a speed over the reference, its interval and its verdict."""
    if speed is None:
        return missing()
    if row.is_reference:
        return Cell("1.00×<small>the reference</small>", 1.0)
    return Cell(f"{speed.estimate:.2f}×<small>{bounds_text(speed)}</small>{verdict_of(speed)}", speed.estimate)


def timed_cell(seconds: float, speed: Speed | None) -> Cell:
    """Return milliseconds, and how many times faster than the reference that is, if there is another to compare to."""
    if speed is None:
        return measured(seconds, ms)
    return Cell(f"{ms(seconds)}<small>{ratio_text(speed)}</small>{verdict_of(speed)}", seconds)


def quartiles(spread: Spread) -> Cell:
    """Return a median over its quartiles."""
    return Cell(f"{number(spread.median)}<small>[{number(spread.low)}, {number(spread.high)}]</small>", spread.median)


def ranged(median: float, low: float, high: float, show: Callable[[float], str] = number) -> Cell:
    """Return a median over the range around it."""
    return Cell(f"{show(median)}<small>{show(low)} to {show(high)}</small>", median)


def verdict_of(speed: Speed) -> str:
    """Render the verdict on a speed in its colour."""
    css = {"faster": "good", "slower": "bad"}.get(speed.verdict, "")
    return f'<small class="{css}">{speed.verdict}</small>'


def metric_of(summary: Summary) -> str:
    """Return what an export must not lose, as the head of a column."""
    metric = summary.task.metric
    return metric[0].upper() + metric[1:]
