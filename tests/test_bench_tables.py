"""Markdown, CSV and console say what the summary holds."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from bench_records import make_record

from bench.judge.summary import Summary, summarise
from bench.judge.verdict import recommend
from bench.report.tables import comma_separated, markdown


class TestReports:
    @pytest.fixture
    def summary(self) -> Summary:
        return summarise(make_record())

    def test_markdown_says_what_the_record_holds(self, summary: Summary) -> None:
        record = make_record()
        text = markdown(record, summary, recommend(record, summary))
        assert text.startswith("Ship `onnx-int8-cpu`")
        for row in summary.rows:
            (line,) = [line for line in text.splitlines() if line.startswith(f"| {row.info.name}")]
            assert row.accuracy
            assert f"{row.accuracy.accuracy:.2%}" in line
        assert "- `pytorch-fp32-cuda`: no CUDA device" in text
        assert "all started anew 10 times" in text
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(line) for line in table}) == 1

    def test_a_partial_record_says_so(self, summary: Summary) -> None:
        record = replace(make_record(), is_complete=False)
        assert markdown(record, summary, recommend(record, summary)).startswith("**Partial")

    def test_csv_has_plain_numbers(self, summary: Summary) -> None:
        rows = list(csv.DictReader(io.StringIO(comma_separated(summary))))
        assert [row["engine"] for row in rows] == [row.info.name for row in summary.rows]
        int8 = next(row for row in rows if row["engine"] == "onnx-int8-cpu")
        found = summary.row("onnx-int8-cpu")
        assert found
        assert found.latency
        assert float(int8["latency_s"]) == found.latency.total_s.median
        assert float(int8["speed_low"]) < float(int8["speed"]) < float(int8["speed_high"])
        assert float(int8["p99_s"]) > float(int8["p90_s"])
        assert int8["p99.9_s"] == ""
