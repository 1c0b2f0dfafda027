"""Summary to Markdown, CSV and what the console shows. Pure functions."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.config import LEAST_RESTARTS
from bench.judge.interval import change_text, percent_text, ratio_text
from bench.judge.summary import PERCENTILES, Row, Summary
from bench.report.circumstances import circumstances, scored_texts
from bench.report.page.parts import PAIRS, counted
from bench.results import Environment
from exporter.proof.timing import Spread

if TYPE_CHECKING:
    from rich.table import Table

    from bench.judge.against import Difference

NOT_MEASURED = "–"
CSV_COLUMNS = {
    "engine": "info.name",
    **{name: f"info.{name}" for name in ("is_peer", "size_bytes", "packages_bytes")},
    **{name: f"accuracy.{name}" for name in ("texts", "accuracy", "f1_weighted", "f1_micro", "f1_macro")},
    **{name: f"accuracy.{name}" for name in ("average_precision", "loss", "calibration_error", "brier")},
    "accuracy_change": "accuracy.change.change",
    "accuracy_change_low": "accuracy.change.lower",
    "accuracy_change_high": "accuracy.change.upper",
    **{name: f"accuracy.change.{name}" for name in ("harmful", "helpful")},
    "mcnemar_p": "accuracy.mcnemar_p",
    "latency_s": "latency.total_s.median",
    **{f"p{100 * share:g}_s": f"latency.tails.{i}.value_s" for i, share in enumerate(PERCENTILES)},
    **{name: f"latency.{name}" for name in ("tokenise_s", "run_s", "rest_s", "attainable", "own_p95_s")},
    "speed": "latency.speed.estimate",
    "speed_low": "latency.speed.bounds.0",
    "speed_high": "latency.speed.bounds.1",
    "verdict": "latency.speed.verdict",
    "bulk_texts_per_s": "throughput.texts_per_s.median",
    "bulk_texts_per_s_low": "throughput.texts_per_s.low",
    "bulk_texts_per_s_high": "throughput.texts_per_s.high",
    "bulk_tokens_per_s": "throughput.tokens_per_s",
    "bulk_batching": "throughput.batching",
    "bulk_speed": "throughput.speed.estimate",
    "bulk_speed_low": "throughput.speed.bounds.0",
    "bulk_speed_high": "throughput.speed.bounds.1",
    "bulk_verdict": "throughput.speed.verdict",
    "cost_per_million": "throughput.cost_per_million",
    "bulk_product_share": "throughput.product_share",
    "first_stage_share": "throughput.first_stage_share",
    "cold_start_s": "start.total_s.median",
    "cold_start_s_low": "start.total_s.low",
    "cold_start_s_high": "start.total_s.high",
    "peak_bytes": "memory.peak_bytes",
    "growth_bytes_per_call": "growth_bytes.estimate",
}
"""Where each column's value stands in a row."""


def markdown(summary: Summary) -> str:
    """Render a benchmark as Markdown."""
    parts = [
        "" if summary.is_complete else "**Partial: the benchmark did not finish.**",
        summary.recommendation.sentence,
        "\n".join(f"- {line}" for line in summary.recommendation.rejected),
        _table([_cells(row, summary.task.metric) for row in summary.rows]),
        _expected(summary),
        "\n".join(f"- `{skipped.engine}` was not measured: {skipped.reason}" for skipped in summary.skipped),
        _method(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def console(summary: Summary) -> Table:
    """Render the rows as a table that fits its terminal."""
    from rich.table import Table

    rows = [_cells(row, summary.task.metric) for row in summary.rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("engine", "") else "right", overflow="fold")
    for cells in rows:
        table.add_row(*cells.values())
    return table


def notes(summary: Summary) -> str:
    """Render what stands below the console's table: the method, what is missing, and what to ship."""
    reasons = [f"not measured: {skipped.engine}, {skipped.reason}" for skipped in summary.skipped]
    reasons += [f"not {line}" for line in summary.recommendation.rejected]
    parts = [_expected(summary), _method(summary), "\n".join(reasons), summary.recommendation.sentence]
    return "\n\n".join(part for part in parts if part)


def comparison(differences: Sequence[Difference]) -> str:
    """Render a comparison with an earlier benchmark, one line per engine."""
    lines = ["speed over the reference, now divided by then:"]
    for d in differences:
        single, bulk = (ratio_text(ratio) if ratio else "not compared" for ratio in (d.single, d.bulk))
        accuracy = "accuracy not compared, since the texts are not known to be the same"
        if d.accuracy:
            accuracy = f"{d.accuracy.harmful} answers became wrong, {d.accuracy.helpful} right"
        worse = " SLOWER" * d.is_slower + " LESS ACCURATE" * d.is_less_accurate
        shown = "NOT MEASURED NOW" if d.is_gone else f"one by one {single}; bulk {bulk}; {accuracy}{worse}"
        lines.append(f"{d.engine:<28} {shown}")
    return "\n".join(lines)


def comma_separated(summary: Summary) -> str:
    """Render one line per engine with plain numbers: seconds, bytes, shares."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([_value(row, path) for path in CSV_COLUMNS.values()] for row in summary.rows)
    return text.getvalue()


def _value(row: Row, path: str) -> object:
    """Follow a path such as `latency.speed.bounds.0`; None where something on it was not measured."""
    value: object = row
    for name in path.split("."):
        if value is None:
            break
        value = value[int(name)] if isinstance(value, tuple) else getattr(value, name)
    return value


def _expected(summary: Summary) -> str:
    """Say which latency to expect for the texts of `--texts`; nothing without them."""
    expected = [(row.info.name, row.latency.own_p95_s) for row in summary.rows if row.latency and row.latency.own_p95_s]
    named = ", ".join(f"`{name}` {seconds * 1e3:.1f} ms" for name, seconds in expected)
    return f"Expected p95 for texts as long as yours: {named}." if named else ""


def _method(summary: Summary) -> str:
    """Say how it was measured, and on what."""
    single, bulk = summary.single_noise, summary.bulk_noise
    restarts, threads = counted(summary.restarts, "time"), counted(summary.environment.threads, "thread")
    order = ", every second time in the opposite order" if summary.restarts > 1 else ""
    measured = (
        f", as a second process of the reference shows ({ratio_text(single.second_process)})"
        if single.second_process
        else ""
    )
    sentences = (
        *((PAIRS,) if summary.pairs else ()),
        f"Each engine ran in its own process with {threads}.",
        f"All processes were restarted {restarts}{order}.",
        "The engines took turns in random order, after a warm-up until times were steady, at most 40 calls.",
        f"Latency: median [quartiles] of {summary.restarts} × {summary.calls} calls with one text each, of all "
        "lengths, from text to label.",
        f"Bulk: {scored_texts(summary)}, in the batching that suits each engine best.",
        f"Speed: times faster than `{summary.reference}`, with a {percent_text(summary.confidence)} % interval; there "
        f"is none with fewer than {LEAST_RESTARTS} restarts.",
        f"A difference of speed counts as noise below {single.floor:.1%} one by one and {bulk.floor:.1%} in bulk, or "
        f"where its interval reaches that range{measured}.",
        f"Change of {summary.task.metric}: against the reference, on the same texts; the 95 % intervals hold jointly "
        "for all engines except other tools, and for int8 together with those of all recipes that were tried.",
        *circumstances(summary),
    )
    return f"{' '.join(sentences)}\n\n{_machine(summary.environment)}"


def _machine(environment: Environment) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    driver = f" with driver {environment.card.driver}" if environment.card and environment.card.driver else ""
    gpu = f", {environment.gpu}{driver}" if environment.gpu else ""
    sets = f" with {', '.join(environment.instruction_sets)}" if environment.instruction_sets else ""
    cores = counted(environment.usable_cores, "usable core")
    return f"{environment.cpu}{sets}, {cores}{gpu}, {environment.system}; {versions}."


def _cells(row: Row, metric: str) -> dict[str, str]:
    scores, latency, bulk = row.accuracy, row.latency, row.throughput
    return {
        "engine": row.info.name + " (peer)" * row.info.is_peer,
        metric: f"{scores.score:.2%}" if scores else NOT_MEASURED,
        "change, points": change_text(scores.change).replace(" points", "")
        if scores and scores.change
        else NOT_MEASURED,
        "latency, ms": _milliseconds(latency.total_s) if latency else NOT_MEASURED,
        "speed": ratio_text(latency.speed) if latency and not row.is_reference else NOT_MEASURED,
        "": "the reference" if row.is_reference else latency.speed.verdict if latency else "",
        "bulk, texts/s": f"{bulk.texts_per_s.median:.1f}" if bulk else NOT_MEASURED,
        "bulk speed": ratio_text(bulk.speed) if bulk and not row.is_reference else NOT_MEASURED,
        "MB": f"{row.info.size_bytes / 1e6:.1f}" if row.info.size_bytes else NOT_MEASURED,
        "cold start, s": f"{row.start.total_s.median:.1f}" if row.start else NOT_MEASURED,
        "of roofline": f"{latency.attainable:.0%}" if latency and latency.attainable is not None else NOT_MEASURED,
    }


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """Lay out rows as a Markdown table with aligned columns; the first column is text."""
    cells = [tuple(rows[0]), *(tuple(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _milliseconds(seconds: Spread) -> str:
    return f"{seconds.median * 1e3:.1f} [{seconds.low * 1e3:.1f}, {seconds.high * 1e3:.1f}]"
