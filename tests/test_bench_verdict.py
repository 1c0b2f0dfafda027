"""What to ship: the fastest within all limits, and why not the others."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from bench_records import make_record, make_summary

from bench.judge.summarise import summarise
from bench.judge.summary import Recommendation
from bench.results import BenchRecord


def recommend(record: BenchRecord, **limits: Any) -> Recommendation:
    """Summarise what a verdict depends on, and nothing else: that is much faster."""
    config = replace(record.config, **limits)
    return summarise(replace(record, config=config, batching_trials=(), grids=(), soaks=())).recommendation


class TestVerdict:
    def test_the_fastest_within_the_limits_is_named_with_what_it_costs_and_brings(self) -> None:
        verdict = recommend(make_record(), price_per_hour=0.5)
        assert verdict.engine == "onnx-int8-cpu"
        assert re.fullmatch(
            r"Ship `onnx-int8-cpu`: 2\.\d\d× \[.*\] the speed of `pytorch-fp32-cpu`, accuracy \+0\.20 points \[.*\], "
            r"67\.9 MB, \d+\.\d\d per million texts\.",
            verdict.sentence,
        )
        assert any(line.startswith("`onnx-fp32-cpu`: 2.") and "slower" in line for line in verdict.rejected)
        assert not any("pipeline" in line or "adapter" in line for line in verdict.rejected)  # they cannot be shipped

    @pytest.mark.parametrize(
        ("limits", "ships", "why_not_int8"),
        [
            ({"max_size_mb": 60.0}, None, "67.9 MB, above `--max-size-mb 60`"),
            ({"max_drop": 0.1}, "onnx-fp32-cpu", "2,000 texts are too few to tell whether the loss stays within 0.1"),
            ({"max_p95_ms": 1.0}, None, "above `--max-p95-ms 1`"),
            ({"max_p95_ms": 1000.0}, "onnx-int8-cpu", ""),
            ({"device": "cuda"}, None, ""),
        ],
    )
    def test_limits_are_kept(self, limits: dict[str, Any], ships: str | None, why_not_int8: str) -> None:
        verdict = recommend(make_record(), **limits)
        assert verdict.engine == ships
        assert not why_not_int8 or any(
            line.startswith("`onnx-int8-cpu`") and why_not_int8 in line for line in verdict.rejected
        )

    def test_what_loses_more_than_the_budget_is_not_shipped(self) -> None:
        record = make_record()
        changed = tuple(
            replace(a, change=replace(a.change, lower=-0.03, change=-0.02, upper=-0.01))
            if a.engine == "onnx-int8-cpu" and a.change
            else a
            for a in record.accuracies
        )
        verdict = recommend(replace(record, accuracies=changed))
        assert verdict.engine == "onnx-fp32-cpu"
        assert "accuracy -2.00 points [-3.00, -1.00], a larger loss than `--max-drop 0.5` allows" in verdict.rejected[0]

    def test_undecided_is_shipped_where_the_export_was_told_to(self) -> None:
        record = replace(make_record(), accept_undecided=True)
        assert recommend(record, max_drop=0.1).engine == "onnx-int8-cpu"

    def test_of_two_without_a_measurable_difference_the_smaller_is_shipped(self) -> None:
        record = make_record()
        int8 = {s.restart: s for s in record.singles if s.engine == "onnx-int8-cpu"}
        singles = tuple(
            replace(int8[s.restart], engine=s.engine) if s.engine == "onnx-fp32-cpu" else s for s in record.singles
        )
        verdict = recommend(replace(record, singles=singles))
        assert verdict.engine == "onnx-int8-cpu"
        reason = "no measurable speed difference from `onnx-int8-cpu`, but larger: 340 MB with its packages"
        assert f"`onnx-fp32-cpu`: {reason}" in verdict.rejected

    def test_the_recommended_one_is_shown_beside_a_fastest_that_it_does_not_measurably_trail(self) -> None:
        """Of three, the smallest is as fast as the fastest, and the third is slower than the fastest alone."""
        record = make_record()
        int8 = [s for s in record.singles if s.engine == "onnx-int8-cpu"]
        factors = {"onnx-int8-cpu": 1.015, "onnx-fp32-cpu": 1.0, "pytorch-fp32-cpu": 1.03}
        singles = tuple(
            replace(s, engine=name, total_s=tuple(t * factor for t in s.total_s))
            for name, factor in factors.items()
            for s in int8
        )
        verdict = recommend(replace(record, singles=singles, second_process=None))
        assert verdict.engine == "onnx-int8-cpu"
        fastest = "slower than `onnx-fp32-cpu`, which has no measurable speed difference from `onnx-int8-cpu`"
        assert f"`pytorch-fp32-cpu`: {fastest}" in verdict.rejected
        assert "no measurable speed difference from `pytorch-fp32-cpu`" in verdict.sentence

    def test_int8_is_not_shipped_where_nothing_in_fp32_was_measured(self) -> None:
        record = make_record()
        alone = tuple(info for info in record.engines if info.name == "onnx-int8-cpu")
        verdict = recommend(replace(record, engines=alone, reference="onnx-int8-cpu", second_process=None))
        assert verdict.engine is None
        assert "no fp32 engine was measured to compare its accuracy with" in verdict.rejected[0]

    def test_an_engine_that_cannot_be_shipped_is_never_recommended(self) -> None:
        record = make_record()
        none = tuple(replace(info, can_ship=False) for info in record.engines)
        verdict = recommend(replace(record, engines=none))
        assert (verdict.engine, verdict.rejected) == (None, ())
        assert make_summary().recommendation.engine == "onnx-int8-cpu"
