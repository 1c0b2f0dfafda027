"""BenchRecord to Markdown and CSV, and to a table for the console. Pure functions."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from bench.judge.summary import PERCENTILES, Latency, Row, Summary
from bench.judge.verdict import Recommendation, change, ratio
from bench.results import BenchRecord
from exporter.proof.timing import Spread

if TYPE_CHECKING:
    from rich.table import Table

NOT_MEASURED = "–"
COLUMNS = (
    "engine",
    "accuracy",
    "change, points",
    "ms, one by one",
    "speed",
    "",
    "texts/s, bulk",
    "speed, bulk",
    "MB",
    "cold start, s",
    "of attainable",
)


def markdown(record: BenchRecord, summary: Summary, recommendation: Recommendation) -> str:
    """Render a record as Markdown."""
    rows = [list(COLUMNS), *(_cells(row, record.reference) for row in summary.rows)]
    parts = [
        _partial(record),
        recommendation.sentence,
        "\n".join(f"- {line}" for line in recommendation.rejected),
        _table(rows),
        expected(summary),
        _skipped(record),
        method(record, summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def console(record: BenchRecord, summary: Summary) -> Table:
    """Render the rows as a table that fits its terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i in (0, 5) else "right", overflow="fold")
    for row in summary.rows:
        table.add_row(*_cells(row, record.reference))
    return table


def comma_separated(summary: Summary) -> str:
    """Render one line an engine with plain numbers: seconds, bytes, shares."""
    lines = [_values(row) for row in summary.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def expected(summary: Summary) -> str:
    """Say which latency to expect for the texts of `--texts`; nothing without them."""
    known = [(row.info.name, row.latency.own_p95_s) for row in summary.rows if row.latency and row.latency.own_p95_s]
    told = ", ".join(f"`{name}` {seconds * 1e3:.1f} ms" for name, seconds in known)
    return f"Expected p95 for texts as long as yours: {told}." if told else ""


def method(record: BenchRecord, summary: Summary) -> str:
    """Say how it was measured, and on what."""
    environment = record.environment
    restarts = len({single.restart for single in record.singles})
    calls = max((len(single.total_s) for single in record.singles), default=0)
    again = f", {ratio(summary.again_single)}" if summary.again_single else ""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    gpu = f", {environment.gpu}" if environment.gpu else ""
    sets = f" with {', '.join(environment.instruction_sets)}" if environment.instruction_sets else ""
    order = ", every second time in the opposite order" if restarts > 1 else ""
    return (
        f"Every engine in a process of its own, {environment.threads} threads each, all started anew {restarts} "
        f"times{order}, and asked in turns in random order after warming up until steady, or 40 calls. One by one: "
        f"median [quartiles] of {restarts} × {calls} texts of all lengths, text to label; bulk: all "
        f"{len(record.labels):,} evaluation texts in the batches that suit the engine best. Speed: times faster "
        f"than `{record.reference}`, with an interval of 99 %. The reference against a second process of it{again}: no "
        f"gain is claimed below {summary.single_floor:.1%} one by one and {summary.bulk_floor:.1%} in bulk, nor where "
        "the interval reaches that far. Change of accuracy: against the reference, on the same texts, with intervals "
        "that hold together, for all of ours, with 95 %.\n\n"
        f"{environment.cpu}{sets}, {environment.usable_cores} usable cores{gpu}, {environment.system}; {versions}."
    )


def _partial(record: BenchRecord) -> str:
    return "" if record.is_complete else "**Partial: the benchmark did not finish.**"


def _cells(row: Row, reference: str) -> list[str]:
    scores, latency, bulk = row.accuracy, row.latency, row.throughput
    is_reference = row.info.name == reference
    return [
        row.info.name + " (peer)" * row.info.is_peer,
        f"{scores.accuracy:.2%}" if scores else NOT_MEASURED,
        change(scores.change).replace(" points", "") if scores and scores.change else NOT_MEASURED,
        _milliseconds(latency.total_s) if latency else NOT_MEASURED,
        ratio(latency.speed) if latency and not is_reference else NOT_MEASURED,
        "the reference" if is_reference else latency.verdict if latency else "",
        f"{bulk.texts_per_s.median:.1f}" if bulk else NOT_MEASURED,
        ratio(bulk.speed) if bulk and not is_reference else NOT_MEASURED,
        f"{row.info.size_bytes / 1e6:.1f}" if row.info.size_bytes else NOT_MEASURED,
        f"{row.start.total_s.median:.1f}" if row.start else NOT_MEASURED,
        f"{latency.attainable:.0%}" if latency and latency.attainable is not None else NOT_MEASURED,
    ]


def _values(row: Row) -> dict[str, object]:
    scores, latency, bulk, start, memory = row.accuracy, row.latency, row.throughput, row.start, row.memory
    return {
        "engine": row.info.name,
        "is_peer": row.info.is_peer,
        "size_bytes": row.info.size_bytes,
        "packages_bytes": row.info.packages_bytes,
        "texts": scores.texts if scores else None,
        "accuracy": scores.accuracy if scores else None,
        "f1_weighted": scores.f1_weighted if scores else None,
        "loss": scores.loss if scores else None,
        "calibration_error": scores.calibration_error if scores else None,
        "brier": scores.brier if scores else None,
        "accuracy_change": scores.change.change if scores and scores.change else None,
        "accuracy_change_low": scores.change.lower if scores and scores.change else None,
        "accuracy_change_high": scores.change.upper if scores and scores.change else None,
        "harmful": scores.change.harmful if scores and scores.change else None,
        "helpful": scores.change.helpful if scores and scores.change else None,
        "mcnemar_p": scores.mcnemar_p if scores else None,
        **_latency_values(latency),
        "bulk_texts_per_s": bulk.texts_per_s.median if bulk else None,
        "bulk_texts_per_s_low": bulk.texts_per_s.low if bulk else None,
        "bulk_texts_per_s_high": bulk.texts_per_s.high if bulk else None,
        "bulk_tokens_per_s": bulk.tokens_per_s if bulk else None,
        "bulk_batching": bulk.batching if bulk else None,
        "bulk_speed": bulk.speed.estimate if bulk else None,
        "bulk_speed_low": bulk.speed.low if bulk else None,
        "bulk_speed_high": bulk.speed.high if bulk else None,
        "bulk_verdict": bulk.verdict if bulk else None,
        "cost_per_million": bulk.cost_per_million if bulk else None,
        "cold_start_s": start.total_s.median if start else None,
        "cold_start_s_low": start.total_s.low if start else None,
        "cold_start_s_high": start.total_s.high if start else None,
        "peak_bytes": memory.peak_bytes if memory else None,
        "growth_bytes_per_call": row.growth_bytes.estimate if row.growth_bytes else None,
    }


def _latency_values(latency: Latency | None) -> dict[str, object]:
    tail_names = [f"p{100 * share:g}_s" for share in PERCENTILES]
    parts = ("tokenise_s", "run_s", "rest_s", "attainable", "own_p95_s")
    names = ("latency_s", *tail_names, *parts, "speed", "speed_low", "speed_high")
    if latency is None:
        return {**dict.fromkeys(names), "verdict": None}
    speed = (latency.speed.estimate, latency.speed.low, latency.speed.high)
    tails = [tail.value_s for tail in latency.tails]
    values = (latency.total_s.median, *tails, *(getattr(latency, part) for part in parts))
    return {**dict(zip(names, (*values, *speed), strict=True)), "verdict": latency.verdict}


def _skipped(record: BenchRecord) -> str:
    return "\n".join(
        ["Not measured:", "", *(f"- `{s.engine}`: {s.reason}" for s in record.skipped)] if record.skipped else []
    )


def _table(rows: list[list[str]]) -> str:
    """Lay out rows as a Markdown table with aligned columns; the first row is the header, the first column text."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _milliseconds(seconds: Spread) -> str:
    return f"{seconds.median * 1e3:.1f} [{seconds.low * 1e3:.1f}, {seconds.high * 1e3:.1f}]"
