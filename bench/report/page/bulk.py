"""Scoring many texts, and the batchings tried for it."""

from __future__ import annotations

from bench.judge.summary import Summary
from bench.report.page.cells import (
    Table,
    count,
    engine_cell,
    measured,
    percent,
    quartiles,
    ranged,
    speed_cell,
    table_of,
    word,
)
from bench.report.page.parts import Section, lines


def bulk_section(summary: Summary) -> Section | None:
    """Show the scoring of many texts, and the batchings tried for it; None where neither was measured."""
    body = []
    if throughputs := _throughputs(summary):
        caption = (
            "All evaluation texts, in the batching that suits each engine best; medians and quartiles of restarts. Of "
            "product rate: the share of its time that an engine's products with constant matrices would take at the "
            "fastest rate measured on this machine."
        )
        body.append(table_of("bulk-table", caption, throughputs))
    if batchings := _batchings(summary):
        caption = (
            "Each engine first scored some of the texts in every batching: the median of the rounds, with the slowest "
            "and the fastest. Its fastest batching is used for bulk scoring."
        )
        body += ["<h3>Batchings tried</h3>", table_of("batching-table", caption, batchings)]
    return Section("bulk", "Bulk scoring", lines(body)) if body else None


def _throughputs(summary: Summary) -> Table:
    rows = []
    for row in summary.rows:
        if bulk := row.throughput:
            cells = {
                "Engine": engine_cell(row),
                "Batching": word(bulk.batching),
                "Texts/s": quartiles(bulk.texts_per_s),
                "Tokens/s": measured(bulk.tokens_per_s, "{:,.0f}".format),
                "Speed": speed_cell(row, bulk.speed),
                "Of product rate, %": percent(bulk.product_share, "{:.0f}"),
            }
            if summary.config.price_per_hour is not None:
                cells["Cost per million texts"] = measured(bulk.cost_per_million, "{:,.2f}".format)
            rows.append(cells)
    return rows


def _batchings(summary: Summary) -> Table:
    return [
        {
            "Engine": engine_cell(row),
            "Batching": word(tried.name, '<span class="tag chosen">used for bulk scoring</span>' * tried.is_chosen),
            "Texts/s": ranged(tried.median, tried.slowest, tried.fastest),
            "Texts": count(tried.texts),
        }
        for row in summary.rows
        for tried in row.batchings
    ]
