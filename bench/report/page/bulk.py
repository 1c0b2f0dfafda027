"""Scoring many texts, and the batchings tried for it."""

from __future__ import annotations

from bench.judge.summary import Summary
from bench.report.page.cells import Cell, Table, count, engine_cell, plain, quartiles, speed_cell, table_of, word
from bench.report.page.parts import Section, number


def bulk_section(summary: Summary) -> Section | None:
    """Show the scoring of many texts, and the batchings tried for it; None where neither was measured."""
    body = []
    if any(row.throughput for row in summary.rows):
        caption = (
            "All evaluation texts, in the batching that suits each engine best; medians and quartiles of restarts."
        )
        body.append(table_of("bulk-table", caption, _throughputs(summary)))
    if any(row.batchings for row in summary.rows):
        caption = (
            "Each engine first scored some of the texts in every batching: the median of the rounds, with the slowest "
            "and the fastest. Its fastest batching is used for bulk scoring."
        )
        body += ["<h3>Batchings tried</h3>", table_of("batching-table", caption, _batchings(summary))]
    return Section("bulk", "Bulk scoring", "\n".join(body)) if body else None


def _throughputs(summary: Summary) -> Table:
    is_priced = summary.config.price_per_hour is not None
    rows = []
    for row in summary.rows:
        if row.throughput:
            bulk = row.throughput
            cells = [
                engine_cell(row),
                word(bulk.batching),
                quartiles(bulk.texts_per_s),
                plain(bulk.tokens_per_s, "{:,.0f}"),
                speed_cell(row, bulk.speed),
            ]
            rows.append([*cells, plain(bulk.cost_per_million, "{:,.2f}")] if is_priced else cells)
    columns = ["Engine", "Batching", "Texts/s", "Tokens/s", "Speed"]
    return [*columns, "Cost per million texts"] if is_priced else columns, rows


def _batchings(summary: Summary) -> Table:
    rows = []
    for row in summary.rows:
        for tried in row.batchings:
            tag = '<span class="tag chosen">used for bulk scoring</span>' if tried.is_chosen else ""
            extremes = f"<small>{number(tried.slowest)} to {number(tried.fastest)}</small>"
            rate = Cell(number(tried.median) + extremes, tried.median)
            rows.append([engine_cell(row), word(tried.name, tag), rate, count(tried.texts)])
    return ["Engine", "Batching", "Texts/s", "Texts"], rows
