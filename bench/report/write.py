"""The record and its renderings, on disk."""

from __future__ import annotations

from bench.judge.summarise import summarise
from bench.judge.summary import Summary
from bench.report.page.page import render_page
from bench.report.tables import comma_separated, markdown
from bench.results import BenchRecord
from trainer.records import write_record, write_text
from trainer.run import RunDir


def write_reports(run: RunDir, record: BenchRecord) -> Summary:
    """Write `bench.json`, and its summary as `bench.md`, `bench.csv` and `bench.html`."""
    summary = summarise(record)
    write_record(run.bench_record, record)
    write_text(run.bench_report, markdown(summary))
    write_text(run.bench_report.with_suffix(".csv"), comma_separated(summary))
    write_text(run.bench_report.with_suffix(".html"), render_page(summary))
    return summary
