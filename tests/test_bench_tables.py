"""Markdown, CSV and console say what the summary holds."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
from bench_records import make_record, make_summary, with_restarts

from bench.judge.summarise import summarise
from bench.report.tables import comma_separated, console, markdown, notes


class TestReports:
    def test_markdown_says_what_the_summary_holds(self) -> None:
        summary = make_summary()
        text = markdown(summary)
        assert text.startswith("Ship `onnx-int8-cpu`")
        for row in summary.rows:
            (line,) = [line for line in text.splitlines() if line.startswith(f"| {row.info.name}")]
            assert row.accuracy
            assert f"{row.accuracy.accuracy:.2%}" in line
        assert "- `pytorch-fp32-cuda` was not measured: no CUDA device" in text
        assert "All processes were restarted 10 times" in text
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(line) for line in table}) == 1

    def test_a_partial_benchmark_says_so(self) -> None:
        assert markdown(replace(make_summary(), is_complete=False)).startswith("**Partial")

    def test_the_console_has_every_engine_and_ends_with_what_to_ship(self) -> None:
        summary = make_summary()
        table = console(summary)
        assert table.row_count == len(summary.rows)
        text = notes(summary)
        assert text.endswith(summary.recommendation.sentence)
        assert "not measured: pytorch-fp32-cuda, no CUDA device" in text
        assert all(f"not {line}" in text for line in summary.recommendation.rejected)

    def test_csv_has_plain_numbers(self) -> None:
        summary = make_summary()
        rows = list(csv.DictReader(io.StringIO(comma_separated(summary))))
        assert [row["engine"] for row in rows] == [row.info.name for row in summary.rows]
        int8 = next(row for row in rows if row["engine"] == "onnx-int8-cpu")
        latency = next(row.latency for row in summary.rows if row.info.name == "onnx-int8-cpu")
        assert latency
        assert float(int8["latency_s"]) == latency.total_s.median
        assert float(int8["speed_low"]) < float(int8["speed"]) < float(int8["speed_high"])
        assert float(int8["p99_s"]) > float(int8["p90_s"])
        empty = {"p99.9_s", "own_p95_s", "cost_per_million"}  # too few calls, no `--texts`, no price
        empty |= {"f1_micro", "f1_macro", "average_precision"}  # a text has one label
        empty |= {"first_stage_share"}  # it is no cascade
        assert {column for column, value in int8.items() if value == ""} == empty

    def test_of_a_cascade_it_says_what_the_first_stage_answered_and_no_share_of_products(self) -> None:
        record = make_record()
        name = "onnx-int8-cpu"
        bulks = [replace(b, first_stage=(60,) * len(b.texts)) if b.engine == name else b for b in record.bulks]
        before, summary = summarise(record).row(name), summarise(replace(record, bulks=tuple(bulks)))
        row = summary.row(name)
        assert row
        assert row.throughput
        assert before
        assert before.throughput
        texts = next(b.texts[0] for b in bulks if b.engine == name)
        assert (before.throughput.first_stage_share, row.throughput.first_stage_share) == (None, 60 / texts)
        assert before.throughput.product_share is not None
        assert row.throughput.product_share is None
        said = (
            f"The first stage of `{name}` answered {60 / texts:.0%} of the texts. A cascade lowers the median and not"
        )
        assert said in markdown(summary)
        assert "first stage" not in markdown(make_summary())

    def test_csv_is_empty_where_nothing_was_measured(self) -> None:
        summary = make_summary()
        bare = tuple(
            replace(
                row, accuracy=None, latency=None, throughput=None, batchings=(), start=None, memory=None,
                growth_bytes=None,
            )
            for row in summary.rows
        )  # fmt: skip
        (first, *_) = csv.DictReader(io.StringIO(comma_separated(replace(summary, rows=bare))))
        known = {column for column, value in first.items() if value}
        assert known == {"engine", "is_peer", "size_bytes", "packages_bytes"}

    @pytest.mark.parametrize("restarts", [1, 2])
    def test_too_few_restarts_for_an_interval_say_so_everywhere(self, restarts: int) -> None:
        summary = summarise(with_restarts(restarts))
        rows = list(csv.DictReader(io.StringIO(comma_separated(summary))))
        bounds = [f"{name}_{end}" for name in ("speed", "bulk_speed") for end in ("low", "high")]
        assert {row[column] for row in rows for column in bounds} == {""}
        assert {row["verdict"] for row in rows} == {"cannot tell"}
        assert all(float(row["speed"]) > 0 for row in rows)
        cells = [str(cell) for column in console(summary).columns if column.header == "speed" for cell in column.cells]
        assert sum(cell.endswith("×, no interval") for cell in cells) == len(rows) - 1  # but for the reference
        sentence = summary.recommendation.sentence
        assert re.search(r"\d× the speed of `pytorch-fp32-cpu` with no interval, so that nothing is claimed", sentence)
        assert not any("slower" in line or "no measurable" in line for line in summary.recommendation.rejected)
        for text in (markdown(summary), notes(summary)):
            assert "there is none with fewer than 3 restarts" in text
            assert "∞" not in text
            assert not re.search(r"\d{5}", text.replace("0,", ""))
