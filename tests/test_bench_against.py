"""Two benchmarks, side by side: what became worse is named, and what cannot be compared is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bench_records import REFERENCE, make_record, make_summary, with_restarts

from bench.config import BenchConfig
from bench.judge.against import compare, load_earlier, refuse_worse
from bench.judge.summarise import summarise
from bench.report.tables import comparison
from bench.results import Skipped
from trainer.errors import UserError
from trainer.records import write_record


class TestOverTime:
    def test_the_same_benchmark_again_is_no_worse(self) -> None:
        differences = compare(make_summary(), summarise(make_record(1)))
        assert not any(d.is_slower or d.is_less_accurate for d in differences)
        refuse_worse(differences, Path("old.json"))

    def test_an_engine_that_became_slower_or_less_accurate_is_named(self) -> None:
        before = make_record()
        slow = tuple(
            replace(s, total_s=tuple(1.3 * t for t in s.total_s)) if s.engine == "onnx-int8-cpu" else s
            for s in before.singles
        )
        wrong = tuple(
            replace(
                a,
                predicted=tuple(
                    ((1 - p),) if i < 40 and (p,) == before.labels[i] else (p,) for i, (p,) in enumerate(a.predicted)
                ),
            )
            if a.engine == "onnx-fp32-cpu"
            else a
            for a in before.accuracies
        )
        now = summarise(replace(before, singles=slow, accuracies=wrong))
        differences = {d.engine: d for d in compare(make_summary(), now)}
        assert [name for name, d in differences.items() if d.is_slower] == ["onnx-int8-cpu"]
        assert [name for name, d in differences.items() if d.is_less_accurate] == ["onnx-fp32-cpu"]
        int8 = differences["onnx-int8-cpu"]
        assert int8.single
        assert int8.bulk
        assert (int8.single.estimate, int8.bulk.estimate) == pytest.approx((1 / 1.3, 1))
        with pytest.raises(UserError, match=r"worse than in `old.json`: `onnx-int8-cpu`") as error:
            refuse_worse([differences["onnx-int8-cpu"]], Path("old.json"))
        assert error.value.exit_code == 4

    def test_slower_in_bulk_alone_is_slower(self) -> None:
        before = make_record()
        slow = tuple(
            replace(b, seconds=tuple(1.3 * t for t in b.seconds)) if b.engine == "onnx-int8-cpu" else b
            for b in before.bulks
        )
        differences = compare(make_summary(), summarise(replace(before, bulks=slow)))
        assert [d.engine for d in differences if d.is_slower] == ["onnx-int8-cpu"]
        assert "one by one 1.00× [" in comparison(differences)
        assert "bulk 0.77× [" in comparison(differences)

    def test_another_machine_is_refused_by_default(self, tmp_path: Path) -> None:
        record = make_record()
        write_record(tmp_path / "bench.json", record)
        path, here = tmp_path / "bench.json", replace(record.environment, cpu="Another CPU")
        with pytest.raises(UserError, match="another machine: cpu Intel"):
            load_earlier(path, BenchConfig(), here)
        anywhere = BenchConfig(against=path, any_machine=True)
        assert load_earlier(path, anywhere, here) == make_summary()
        assert load_earlier(path, BenchConfig(), record.environment) == make_summary()

    def test_what_cannot_be_compared_is_refused_before_anything_is_measured(self, tmp_path: Path) -> None:
        record, path = make_record(), tmp_path / "bench.json"
        write_record(path, record)
        gone = replace(record, reference="onnx-fp32-cpu")  # PyTorch could not be used then
        write_record(path, gone)
        assert load_earlier(path, BenchConfig(), record.environment).reference == "onnx-fp32-cpu"
        write_record(path, record)
        with pytest.raises(UserError, match="reference is `pytorch-fp32-cpu`, and this one's `onnx-fp32-cpu`"):
            load_earlier(path, BenchConfig(engines=("onnx-int8-cpu", "onnx-fp32-cpu")), record.environment)
        write_record(path, replace(record, is_complete=False))
        with pytest.raises(UserError, match="did not finish"):
            load_earlier(path, BenchConfig(), record.environment)

    def test_speeds_without_an_interval_are_shown_and_not_judged(self, tmp_path: Path) -> None:
        few, path = with_restarts(2), tmp_path / "bench.json"
        slow = tuple(replace(s, total_s=tuple(9 * t for t in s.total_s)) for s in few.singles if s.engine != REFERENCE)
        now = summarise(replace(few, singles=(*(s for s in few.singles if s.engine == REFERENCE), *slow)))
        differences = compare(make_summary(), now)
        assert not any(d.is_slower for d in differences)
        assert "one by one 0.11×, no interval; bulk " in comparison(differences)
        write_record(path, few)
        assert load_earlier(path, BenchConfig(), few.environment).rows  # the answers can be compared
        write_record(path, replace(few, accuracies=()))
        with pytest.raises(UserError, match="has no interval of any speed, and no answers to compare") as error:
            load_earlier(path, BenchConfig(), few.environment)
        assert "3 `--restarts` or more" in error.value.hint
        with pytest.raises(UserError, match="nothing of the earlier benchmark could be compared"):
            compare(make_summary(), replace(now, evaluation_sha256="other"))

    def test_other_references_or_texts_are_not_compared(self) -> None:
        summary = make_summary()
        with pytest.raises(UserError, match="the earlier benchmark's reference is"):
            compare(summary, replace(summary, reference="onnx-fp32-cpu"))
        assert all(d.accuracy is None for d in compare(summary, replace(summary, labels=summary.labels[1:])))
        assert all(d.accuracy is None for d in compare(summary, replace(summary, evaluation_sha256="other")))

    def test_records_that_do_not_say_which_texts_they_scored_are_not_taken_to_have_the_same(self) -> None:
        old = replace(make_summary(), evaluation_sha256="")
        differences = compare(old, old)
        assert all(d.accuracy is None and d.single for d in differences)
        assert "accuracy not compared, since the texts are not known to be the same" in comparison(differences)

    def test_what_cannot_be_measured_any_more_is_worse_and_what_was_not_asked_for_is_not(self) -> None:
        summary = make_summary()
        fewer = replace(summary, rows=tuple(row for row in summary.rows if row.info.name != "onnx-int8-cpu"))
        assert not any(d.is_worse for d in compare(summary, fewer))
        broken = replace(fewer, skipped=(*summary.skipped, Skipped("onnx-int8-cpu", "it died")))
        differences = compare(summary, broken)
        assert [d.engine for d in differences if d.is_gone] == ["onnx-int8-cpu"]
        assert f"{'onnx-int8-cpu':<28} NOT MEASURED NOW" in comparison(differences)
        with pytest.raises(UserError, match="worse than"):
            refuse_worse(differences, Path("old.json"))
