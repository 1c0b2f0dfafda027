"""What the page is put together from: sections, figures, and text. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bench.report.page.charts import DASHES, SHAPES, Chart, Look

PAIRS = "A text is a pair of texts here, and its tokens are those of both."


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    name: str
    title: str
    body: str
    charts: Sequence[Chart] = ()
    css_class: str = ""

    @property
    def html(self) -> str:
        """The section's markup."""
        css = f' class="{self.css_class}"' if self.css_class else ""
        return (
            f'<section id="{self.name}"{css} aria-labelledby="{self.name}-title">\n'
            f'<h2 id="{self.name}-title">{self.title}</h2>\n{self.body}\n</section>'
        )


@dataclass(frozen=True)
class Figure:
    """Charts side by side, under what they show and how to read them; all texts are markup."""

    takeaway: str
    how_to_read: str
    charts: Sequence[Chart]
    height: int
    """Of each chart, in pixels."""
    table: str
    """The name of the table that holds the same numbers."""
    key: str = ""
    """A key to the looks."""

    def html(self, section: str) -> str:
        """The figure's markup in the section of this name."""
        panels = [
            f"<div>{f'<p>{chart.title}</p>' if chart.title else ''}"
            f'<div class="chart" id="{chart.name}" style="height:{self.height}px" role="img" '
            f'aria-labelledby="{section}-title" aria-describedby="{section}-text"'
            f"{' data-labels=true' if chart.has_labels else ''}></div></div>"
            for chart in self.charts
        ]
        return (
            f'<figure>\n<figcaption id="{section}-text"><p class="takeaway">{self.takeaway}</p>\n'
            f'<p>{self.how_to_read} The numbers are in <a href="#{self.table}">the table below</a>.</p></figcaption>\n'
            f'{self.key}<div class="panels">\n{lines(panels)}\n</div>\n</figure>'
        )


def figure_section(name: str, title: str, figure: Figure, table: str) -> Section:
    """Return a section of a figure with its table below."""
    return Section(name, title, f"{figure.html(name)}\n{table}", figure.charts)


def key_of(names: Iterable[str], looks: Mapping[str, Look]) -> str:
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


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Render names with their values."""
    items = lines(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in pairs)
    return f'<dl class="facts">\n{items}\n</dl>'


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


def counted(things: int, name: str) -> str:
    """Render such as `2 threads`."""
    return f"{things:,} {name}{'' if things == 1 else 's'}"


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
