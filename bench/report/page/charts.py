"""How the page's charts look, in Plotly's terms: one look per engine, axes, lines. Pure functions.

Colours are names from `page.css`, which `page.js` looks up for the light or the dark scheme.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from bench.judge.summary import Summary

COLOURS = 8
SHAPES = {  # a marker's name in Plotly, and its outline from -5 to 5 for the key
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "square": "M-4.5-4.5h9v9h-9z",
    "diamond": "M0-6L6 0 0 6-6 0z",
    "triangle-up": "M0-5L5.5 4.5h-11z",
    "triangle-down": "M0 5L5.5-4.5h-11z",
    "cross": "M-2-5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z",
    "star": "M0-6.5L1.7-2 6.3-2 2.7.8 4 5.3 0 2.6-4 5.3-2.7.8-6.3-2-1.7-2z",
}
DASHES = {"solid": "", "dash": "9 4", "dot": "2 3", "dashdot": "9 4 2 4", "longdash": "14 4"}
LOG_FROM = 8.0
"""Ratio of the largest to the smallest latency above which an axis is logarithmic."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """How one engine is drawn in every chart."""

    colour: str
    shape: str
    dash: str


@dataclass(frozen=True)
class Chart:
    """A drawing and its place in the page."""

    name: str
    data: list[Json]
    layout: Json
    title: str = ""
    has_labels: bool = False
    """Whether its points have names, which must not overlap."""


def looks_of(summary: Summary) -> dict[str, Look]:
    """Give each engine its colour, shape and dashes; no two of up to 280 share all three.

    They are given by name, other tools last, so that an engine looks alike on the pages of several benchmarks.
    """
    rows = sorted(summary.rows, key=lambda row: (not row.is_reference, row.info.is_peer, row.info.name))
    shapes, dashes = list(SHAPES), list(DASHES)
    looks = {
        row.info.name: Look(f"var(--s{i % COLOURS})", shapes[i % len(shapes)], dashes[i % len(dashes)])
        for i, row in enumerate(rows)
    }
    second = summary.second_process
    return looks | ({second.name: looks[summary.reference]} if second else {})


def marker_of(look: Look, size: int, *, is_hollow: bool = False) -> Json:
    """Return how one point is drawn."""
    symbol = f"{look.shape}-open" if is_hollow else look.shape
    return {"symbol": symbol, "size": size, "color": look.colour, "line": {"width": 2 if is_hollow else 0}}


def layout_of(x_axis: Json, y_axis: Json) -> Json:
    """Return what all charts share, around two axes."""
    return {
        "xaxis": x_axis,
        "yaxis": y_axis,
        "autosize": True,
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 58, "r": 14, "t": 12, "b": 52},
        "font": {"family": "system-ui, 'Segoe UI', Roboto, Arial, sans-serif", "size": 13, "color": "var(--ink)"},
        "hoverlabel": {"bgcolor": "var(--surface)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
    }


def axis_of(title: str, **more: object) -> Json:
    """Return an axis; further arguments are Plotly's."""
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "fixedrange": True,
        **more,
    }


def latency_axis(title: str, low_ms: float, high_ms: float, *, is_log: bool | None = None) -> Json:
    """Return an axis for latencies between two, by default logarithmic where they are far apart."""
    if is_log if is_log is not None else high_ms > LOG_FROM * low_ms:
        pad = 0.04 * math.log10(high_ms / low_ms) + 0.02
        low, high = math.log10(low_ms) - pad, math.log10(high_ms) + pad
        ticks = [
            digit * 10.0**power
            for power in range(math.floor(low), math.ceil(high) + 1)
            for digit in (1, 2, 5)
            if low <= math.log10(digit * 10.0**power) <= high
        ]
        if len(ticks) < 3:  # too few round values to read the axis by
            ticks = [10 ** (low + (high - low) * share) for share in (0.1, 0.5, 0.9)]
        text = [f"{tick:.3g}" if tick < 1000 else f"{tick:,.0f}" for tick in ticks]
        return axis_of(title, type="log", range=[low, high], tickvals=ticks, ticktext=text)
    pad = 0.05 * (high_ms - low_ms) + 0.01 * high_ms
    return axis_of(title, range=[max(0.0, low_ms - pad), high_ms + pad], nticks=7)


def line_of(name: str, x: Sequence[float], y: Sequence[float], look: Look, notes: Sequence[str]) -> Json:
    """Return an engine's line over lengths; `notes` are shown on hover."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(x),
        "y": list(y),
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": marker_of(look, 8),
        "cliponaxis": False,
        "text": [f"{plot_text(name)}<br>{n:,.0f} tokens, {note}" for n, note in zip(x, notes, strict=True)],
        "hovertemplate": "%{text}<extra></extra>",
    }


def inline_json(value: object) -> str:
    """Return JSON that cannot end the script element around it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def plot_text(text: str) -> str:
    """Escape a text for Plotly, which reads a little HTML but does not know `&quot;`."""
    return escape(text, quote=False)
