"""Tables of the page, and the cells in them. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.judge.interval import Speed, Verdict, bounds_text, ratio_text
from bench.judge.summary import Row
from bench.report.page.parts import code, lines, mb, ms, number, safe
from exporter.proof.timing import Spread


@dataclass(frozen=True)
class Cell:
    """What stands in a table at one place."""

    html: str
    value: float | str | None = None
    """To sort by; None where nothing was measured."""
    is_word: bool = False


Table = tuple[Sequence[str], Sequence[Sequence[Cell]]]
"""Columns, as markup, and rows; the first cell of a row is its header."""


def table_of(name: str, caption: str, table: Table) -> str:
    """Render a table that sorts by any column."""
    columns, rows = table
    classes = [_class(cell) for cell in rows[0]]
    head = "".join(
        f'<th scope="col"{css}><button type="button">{column}</button></th>'
        for column, css in zip(columns, classes, strict=True)
    )
    body = lines(f"<tr>{_row_header(first)}{''.join(_data(cell) for cell in cells)}</tr>" for first, *cells in rows)
    return (
        f'<div class="scroll" role="region" aria-labelledby="{name}-caption" tabindex="0">\n<table id="{name}">\n'
        f'<caption><span id="{name}-caption">{caption}</span></caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _class(cell: Cell) -> str:
    return ' class="word"' if cell.is_word else ""


def _row_header(cell: Cell) -> str:
    return f'<th scope="row" data-value="{safe(cell.value)}">{cell.html}</th>'


def _data(cell: Cell) -> str:
    value = "" if cell.value is None else safe(cell.value)
    return f'<td{_class(cell)} data-value="{value}">{cell.html}</td>'


def missing(why: str = "not measured") -> Cell:
    """Return a dash; the reason shows on hover and is read aloud."""
    return Cell(f'<span title="{safe(why)}" aria-hidden="true">–</span><span class="sr">{safe(why)}</span>')


def plain(value: float | None, shape: str | None = None, why: str = "not measured") -> Cell:
    """Return a number alone, with three significant digits by default; a dash for None."""
    if value is None:
        return missing(why)
    return Cell(shape.format(value) if shape else number(value), value)


def percent(share: float | None, shape: str = "{:.2f}") -> Cell:
    """Return a share as a percentage, a dash for None."""
    return plain(None if share is None else 100 * share, shape)


def count(value: int | None, why: str = "not measured") -> Cell:
    """Return a whole number, a dash for None."""
    return plain(value, "{:,}", why)


def in_ms(seconds: float | None, why: str = "not measured") -> Cell:
    """Return milliseconds, a dash for None."""
    return missing(why) if seconds is None else Cell(ms(seconds), seconds)


def in_mb(size_bytes: int | None) -> Cell:
    """Return megabytes, a dash for None."""
    return missing() if size_bytes is None else Cell(mb(size_bytes), size_bytes)


def word(text: str, tag: str = "") -> Cell:
    """Return a text, before the markup of a tag."""
    return Cell(safe(text) + tag, text, is_word=True)


def token_range(least: int, most: int) -> Cell:
    """Return a range of lengths."""
    return Cell(f"{least:,} to {most:,}", least)


def engine_cell(row: Row, recommended: str | None = None) -> Cell:
    """Return an engine's name, and what it is: recommended, the reference, another tool."""
    name, tags = row.info.name, ""
    if name == recommended:
        tags += '<span class="tag chosen">recommended</span>'
    if row.is_reference:
        tags += '<span class="tag">reference</span>'
    if row.info.is_peer:
        tags += '<span class="tag">other tool, for comparison</span>'
    return Cell(f"{code(name)}{tags}", name)


def speed_cell(row: Row, speed: Speed | None) -> Cell:
    """Return a speed over the reference, its interval and its verdict."""
    if speed is None:
        return missing()
    if row.is_reference:
        return Cell("1.00×<small>the reference</small>", 1.0)
    return Cell(f"{speed.estimate:.2f}×<small>{bounds_text(speed)}</small>{verdict_tag(speed.verdict)}", speed.estimate)


def timed_cell(seconds: float | None, speed: Speed | None) -> Cell:
    """Return milliseconds, and how many times faster than the reference that is, if there is another to compare to."""
    if seconds is None or speed is None:
        return in_ms(seconds)
    return Cell(f"{ms(seconds)}<small>{ratio_text(speed)}</small>{verdict_tag(speed.verdict)}", seconds)


def quartiles(spread: Spread) -> Cell:
    """Return a median over its quartiles."""
    return Cell(f"{number(spread.median)}<small>[{number(spread.low)}, {number(spread.high)}]</small>", spread.median)


def verdict_tag(verdict: Verdict) -> str:
    """Render a verdict in its colour."""
    css = {"faster": "good", "slower": "bad"}.get(verdict, "")
    return f'<small class="{css}">{verdict}</small>'
