"""How the latencies of single texts are distributed, and what they consist of."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bench.judge.summary import Calls, Summary
from bench.report.page.cells import Table, count, engine_cell, measured, table_of
from bench.report.page.charts import Chart, Json, Look, latency_axis, layout_of, looks_of, plot_text
from bench.report.page.length import fastest_own
from bench.report.page.parts import Figure, Section, code, figure_section, ms


def spread_section(summary: Summary) -> Section | None:
    """Show every call's latency, and its parts; None where nothing was timed."""
    calls = _calls(summary)
    if not calls:
        return None
    looks = looks_of(summary)
    chart = Chart("spread-chart", _boxes(calls, looks), _layout(calls, looks))
    fastest = fastest_own(summary).info.name
    total = calls[fastest]
    takeaway = (
        f"Half of the calls of {code(fastest)} take {ms(total.low)} to {ms(total.high)} ms, the slowest "
        f"{ms(total.slowest)} ms."
    )
    how = (
        "One text at a time, from text to label. The texts have all lengths, which makes most of the spread. Box: the "
        "quartiles and the median. Whiskers: the fastest and the slowest call. Each dot is a call."
    )
    if summary.second_process:
        how += f" {code(summary.second_process.name)} is a second process of the reference."
    figure = Figure(takeaway, how, [chart], 84 + 76 * len(calls), "split")
    caption = "One text at a time, in milliseconds. Each part has a median of its own, so they may not add up."
    return figure_section("spread", "Latency distribution", figure, table_of("split", caption, _split(summary)))


def _calls(summary: Summary) -> dict[str, Calls]:
    """Return each engine's calls, with those of the reference's second process below its first."""
    calls: dict[str, Calls] = {}
    for row in summary.rows:
        if row.latency:
            calls[row.info.name] = row.latency.total_s
            if row.is_reference and summary.second_process:
                calls[summary.second_process.name] = summary.second_process.total_s
    return calls


def _boxes(calls: Mapping[str, Calls], looks: Mapping[str, Look]) -> list[Json]:
    return [
        {
            "type": "box",
            "orientation": "h",
            "x": [[s * 1e3 for s in total.samples]],
            "y": [place],
            "q1": [total.low * 1e3],
            "median": [total.median * 1e3],
            "q3": [total.high * 1e3],
            "lowerfence": [total.fastest * 1e3],
            "upperfence": [total.slowest * 1e3],
            "width": 0.3,
            "boxpoints": "all",
            "jitter": 0.45,
            "pointpos": -1.8,
            "marker": {"color": looks[name].colour, "size": 3, "opacity": 0.55},
            "line": {"color": looks[name].colour, "width": 1.75},
            "hoverinfo": "x",
            "hoveron": "boxes",
        }
        for place, (name, total) in enumerate(calls.items())
    ]


def _layout(calls: Mapping[str, Calls], looks: Mapping[str, Look]) -> Json:
    """Return a logarithmic axis, and each engine's name above its box."""
    label = {"xref": "paper", "x": 0, "xanchor": "left", "yshift": 39, "showarrow": False}
    fastest, slowest = min(total.fastest for total in calls.values()), max(total.slowest for total in calls.values())
    x_axis = latency_axis("latency, ms", fastest * 1e3, slowest * 1e3, is_log=True)
    layout = layout_of(x_axis, {"range": [len(calls) - 0.7, -0.65], "visible": False, "fixedrange": True})
    layout["margin"] = {**layout["margin"], "l": 12}
    layout["annotations"] = [
        {**label, "y": place, "text": plot_text(name), "font": {"color": looks[name].colour}}
        for place, name in enumerate(calls)
    ]
    return layout


def _split(summary: Summary) -> Table:
    part = partial(measured, show=ms, why="not measured inside other tools")
    rows = []
    timed = [(row, row.latency) for row in summary.rows if row.latency]
    has_own = any(latency.own_p95_s is not None for _, latency in timed)
    for row, latency in timed:
        total = latency.total_s
        cells = {
            "Engine": engine_cell(row),
            "Calls": count(len(total.samples)),
            "Fastest": measured(total.fastest, ms),
            "Lower quartile": measured(total.low, ms),
            "Median": measured(total.median, ms),
            "Upper quartile": measured(total.high, ms),
            "Slowest": measured(total.slowest, ms),
            "Tokenise": part(latency.tokenise_s),
            "Run": part(latency.run_s),
            "Rest": part(latency.rest_s),
            "Warm-up calls": measured(latency.warmup_calls, "{:.0f}".format),
            "Largest probability gap": measured(latency.largest_gap, "{:.1e}".format),
        }
        rows.append(cells | {"Expected p95 of your texts": measured(latency.own_p95_s, ms)} if has_own else cells)
    return rows
