"""The record and its renderings, on disk."""

from __future__ import annotations

from bench.judge.summary import summarise
from bench.judge.verdict import recommend
from bench.report.page.page import render_page
from bench.report.tables import comma_separated, markdown
from bench.results import BenchRecord
from trainer.records import write_record, write_text
from trainer.run import RunDir


def write_reports(run: RunDir, record: BenchRecord) -> None:
    """Write `bench.json` and, from it alone, `bench.md`, `bench.csv` and `bench.html`."""
    write_record(run.bench_record, record)
    summary = summarise(record)
    recommendation = recommend(record, summary)
    write_text(run.bench_report, markdown(record, summary, recommendation))
    write_text(run.bench_report.with_suffix(".csv"), comma_separated(summary))
    write_text(run.bench_report.with_suffix(".html"), render_page(record, summary, recommendation))
