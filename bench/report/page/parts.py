"""What the page is put together from: sections, tables and their cells, figures, and text. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from bench.judge.stats import Interval, Verdict
from bench.judge.summary import Row
from bench.judge.verdict import Recommendation, ends
from bench.report.page.charts import DASHES, SHAPES, Chart, Look
from bench.results import BenchRecord
from exporter.proof.timing import Spread


@dataclass(frozen=True)
class Cell:
    """What stands in a table at one place."""

    html: str
    value: float | str | None = None
    """To sort by; None where nothing was measured."""
    is_word: bool = False


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


REFERENCE_SPEED = Cell("1.00×<small>the reference</small>", 1.0)


def table_of(name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Render a table that sorts by any column; columns are markup, and the first cell of a row is its header."""
    kinds = [' class="word"' if cell.is_word else "" for cell in rows[0]]
    head = "".join(
        f'<th scope="col"{kind}><button type="button">{column}</button></th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = lines(f"<tr>{_row_header(first)}{''.join(_data(cell) for cell in cells)}</tr>" for first, *cells in rows)
    return (
        f'<div class="scroll" role="region" aria-labelledby="{name}-caption" tabindex="0">\n<table id="{name}">\n'
        f'<caption><span id="{name}-caption">{caption}</span></caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _row_header(cell: Cell) -> str:
    return f'<th scope="row" data-value="{safe(cell.value)}">{cell.html}</th>'


def _data(cell: Cell) -> str:
    value = "" if cell.value is None else safe(cell.value)
    kind = ' class="word"' if cell.is_word else ""
    return f'<td{kind} data-value="{value}">{cell.html}</td>'


def missing(why: str = "not measured") -> Cell:
    """Return a dash, with the reason for who hears the page or points at it."""
    return Cell(f'<span title="{safe(why)}" aria-hidden="true">–</span><span class="sr">{safe(why)}</span>')


def plain(value: float, shape: str | None = None) -> Cell:
    """Return a number alone, with three significant digits unless told."""
    return Cell(shape.format(value) if shape else number(value), value)


def in_ms(seconds: float) -> Cell:
    """Return milliseconds."""
    return Cell(ms(seconds), seconds)


def in_mb(size_bytes: int | None) -> Cell:
    """Return megabytes, a dash for None."""
    return missing() if size_bytes is None else Cell(mb(size_bytes), size_bytes)


def engine_cell(row: Row, record: BenchRecord, recommendation: Recommendation | None = None) -> Cell:
    """Return an engine's name, and what it is: to ship, the reference, a comparison."""
    name, tags = row.info.name, ""
    if recommendation and name == recommendation.engine:
        tags += '<span class="tag chosen">to ship</span>'
    if name == record.reference:
        tags += '<span class="tag">reference</span>'
    if row.info.is_peer:
        tags += '<span class="tag">comparison, not to be shipped</span>'
    return Cell(f"{code(name)}{tags}", name)


def compared(speed: Interval, verdict: Verdict) -> Cell:
    """Return a speed over the reference, its interval and its verdict."""
    return Cell(f"{speed.estimate:.2f}×<small>{ends(speed)}</small>{told(verdict)}", speed.estimate)


def quartiles(of: Spread) -> Cell:
    """Return a median over its quartiles."""
    return Cell(f"{number(of.median)}<small>[{number(of.low)}, {number(of.high)}]</small>", of.median)


def told(verdict: Verdict) -> str:
    """Render a verdict in its colour."""
    tone = {"faster": "good", "slower": "bad"}.get(verdict, "")
    return f'<small class="{tone}">{verdict}</small>'


def figure_of(
    name: str, takeaway: str, how: str, charts: Sequence[tuple[str, Chart]], height: int, *, table: str, key: str = ""
) -> str:
    """Render charts side by side under what they say and how to read them.

    Args:
        name: of the section that it stands in.
        takeaway: markup of a sentence.
        how: markup of some.
        charts: each with a heading, which may be empty.
        height: of each chart, in pixels.
        table: the name of the table that holds the same numbers.
        key: markup of a key to the looks.
    """
    panels = [
        f"<div>{f'<p>{title}</p>' if title else ''}"
        f'<div class="chart" id="{chart.name}" style="height:{height}px" role="img" aria-labelledby="{name}-title" '
        f'aria-describedby="{name}-text"{" data-labels=true" if chart.has_labels else ""}></div></div>'
        for title, chart in charts
    ]
    return (
        f'<figure>\n<figcaption id="{name}-text"><p class="takeaway">{takeaway}</p>\n'
        f'<p>{how} Its numbers: <a href="#{table}">the table below</a>.</p></figcaption>\n'
        f'{key}<div class="panels">\n{lines(panels)}\n</div>\n</figure>'
    )


def key_of(names: Iterable[str], looks: dict[str, Look]) -> str:
    """Render which engine looks how."""
    items = []
    for name in names:
        look = looks[name]
        dash = f' stroke-dasharray="{DASHES[look.dash]}"' if DASHES[look.dash] else ""
        items.append(
            f'<li><svg width="40" height="14" viewBox="-20 -7 40 14" aria-hidden="true" style="color:{look.colour}">'
            f'<path d="M-20 0h40" stroke="currentColor" stroke-width="2"{dash}/>'
            f'<path d="{SHAPES[look.shape]}" fill="currentColor"/></svg>{code(name)}</li>'
        )
    return f'<ul class="key" aria-label="Key">\n{lines(items)}\n</ul>\n'


def safe(value: object) -> str:
    """Render a value as text that cannot become markup."""
    return escape(str(value))


def code(name: str) -> str:
    """Render a name as code."""
    return f"<code>{safe(name)}</code>"


def marked(text: str) -> str:
    """Escape a text and set what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", safe(text))


def lines(parts: Iterable[str]) -> str:
    """Join markup, a line each."""
    return "\n".join(parts)


def counted(count: int, thing: str) -> str:
    """Render such as `2 threads`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """Render with three significant digits, and whole numbers in full."""
    if not math.isfinite(value):
        return "∞"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 6)}f}"


def ms(seconds: float) -> str:
    """Render seconds as milliseconds."""
    return number(seconds * 1e3)


def mb(size_bytes: float) -> str:
    """Render bytes as megabytes."""
    return number(size_bytes / 1e6)
