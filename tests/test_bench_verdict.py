"""What to ship: the fastest within all limits, and why not the others."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from bench_records import make_record

from bench.judge.summary import summarise
from bench.judge.verdict import recommend
from bench.results import BenchRecord


def verdict_of(record: BenchRecord, **limits: Any) -> Any:
    record = replace(record, config=replace(record.config, **limits))
    return recommend(record, summarise(record))


class TestVerdict:
    def test_the_fastest_within_the_limits_is_named_with_what_it_costs_and_brings(self) -> None:
        found = verdict_of(make_record(), price_per_hour=0.5)
        assert found.engine == "onnx-int8-cpu"
        assert re.fullmatch(
            r"Ship `onnx-int8-cpu`: 2\.\d\d× \[.*\] the speed of `pytorch-fp32-cpu`, accuracy \+0\.20 points \[.*\], "
            r"67\.9 MB, \d+\.\d\d per million texts\.",
            found.sentence,
        )
        assert any(line.startswith("`onnx-fp32-cpu`: 2.") and "slower" in line for line in found.rejected)

    @pytest.mark.parametrize(
        ("limits", "ships", "why_not_int8"),
        [
            ({"max_size_mb": 60.0}, None, "67.9 MB, above `--max-size-mb 60`"),
            ({"max_drop": 0.1}, "onnx-fp32-cpu", "2,000 texts cannot tell whether it stays within 0.1 points"),
            ({"max_p95_ms": 1.0}, None, "above `--max-p95-ms 1`"),
            ({"max_p95_ms": 1000.0}, "onnx-int8-cpu", ""),
            ({"device": "cuda"}, None, ""),
        ],
    )
    def test_limits_are_kept(self, limits: dict[str, Any], ships: str | None, why_not_int8: str) -> None:
        found = verdict_of(make_record(), **limits)
        assert found.engine == ships
        assert not why_not_int8 or any(
            line.startswith("`onnx-int8-cpu`") and why_not_int8 in line for line in found.rejected
        )

    def test_what_loses_more_than_the_budget_is_not_shipped(self) -> None:
        record = make_record()
        changed = tuple(
            replace(a, change=replace(a.change, lower=-0.03, change=-0.02, upper=-0.01))
            if a.engine == "onnx-int8-cpu" and a.change
            else a
            for a in record.accuracies
        )
        found = verdict_of(replace(record, accuracies=changed))
        assert found.engine == "onnx-fp32-cpu"
        assert "accuracy -2.00 points [-3.00, -1.00], beyond the 0.5 points of `--max-drop`" in found.rejected[0]

    def test_undecided_is_shipped_where_the_export_was_told_to(self) -> None:
        record = replace(make_record(), accept_undecided=True)
        assert verdict_of(record, max_drop=0.1).engine == "onnx-int8-cpu"

    def test_of_two_that_cannot_be_told_apart_the_smaller_is_shipped(self) -> None:
        record = make_record()
        same = {s.restart: s for s in record.singles if s.engine == "onnx-int8-cpu"}
        singles = tuple(
            replace(same[s.restart], engine=s.engine) if s.engine == "onnx-fp32-cpu" else s for s in record.singles
        )
        found = verdict_of(replace(record, singles=singles))
        assert found.engine == "onnx-int8-cpu"
        assert "`onnx-fp32-cpu`: not told apart in speed, and larger: 340 MB with its packages" in found.rejected

    def test_int8_is_not_shipped_where_nothing_in_fp32_was_measured(self) -> None:
        record = make_record()
        alone = tuple(info for info in record.engines if info.name == "onnx-int8-cpu")
        found = verdict_of(replace(record, engines=alone, reference="onnx-int8-cpu", again=None))
        assert found.engine is None
        assert "compared with nothing" in found.rejected[0]
