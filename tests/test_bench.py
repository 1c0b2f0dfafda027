"""The benchmark: what it times, what it counts, what it prints, and what it does with a backend that is not there."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_records import AGAIN, REFERENCE, make_record
from hypothesis import given
from hypothesis import strategies as st
from toys import INTERRUPTED, start, write_csv

import bench.__main__
import bench.backends
import bench.cores
import bench.generation
import bench.run
from bench import measure
from bench.accuracy import score
from bench.against import compare, load_earlier, refuse_worse, render
from bench.backends import PEERS, SPECS, choose_specs, load_backend, why_unusable
from bench.cold import cold_start
from bench.config import BenchConfig
from bench.cores import choose_cores
from bench.environment import packages_bytes
from bench.limits import measure_machine, product_shapes
from bench.measure import best_batchings, deal, rounds, spread_out, start_order, timed, try_batchings, warm_up
from bench.report import comma_separated, markdown
from bench.results import BenchRecord, Grid, Limit, Machine, Skipped, Soak
from bench.run import bench as run_bench
from bench.stats import Interval, verdict
from bench.summary import Summary, expected_percentile, not_surer, speed_of, speeds_by_length, summarise
from bench.verdict import recommend
from exporter.artifacts import load_export
from exporter.budget import count_changes, paired_interval
from exporter.checksums import IntegrityError
from exporter.probabilities import softmax
from trainer.encoding import Encoded, Encoder
from trainer.errors import UserError
from trainer.records import read_record, write_record
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]
CPU = ["adapter-fp32-cpu", "pytorch-fp32-cpu", "onnx-fp32-cpu", "onnx-int8-cpu"]
QUICK = ["--restarts", "1", "--calls", "3", "--grid-calls", "0", "--soak-calls", "0"]


def test_changes_by_hand() -> None:
    assert count_changes([0, 0, 0, 1, 0], [0, 1, 1, 0, 1], truth=[0, 0, 1, 1, 2]) == (2, 1)


class TestScores:
    LOGITS = np.log(np.float32([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]))

    def test_they_are_those_of_scikit_learn(self) -> None:
        scores = score("x", self.LOGITS, [0, 1, 2, 2], "abc", [5, 6, 7, 8], reference=None)
        assert (scores.reviews, scores.predicted) == (4, (0, 1, 0, 2))
        assert scores.accuracy == pytest.approx(3 / 4)
        assert scores.f1_weighted == pytest.approx((2 / 3 + 1 + 2 * 2 / 3) / 4)
        assert scores.loss == pytest.approx(-np.log([0.7, 0.6, 0.2, 0.6]).mean(), abs=1e-6)
        assert [(c.label, c.reviews, c.precision, c.recall) for c in scores.classes] == [
            ("a", 1, 0.5, 1), ("b", 1, 1, 1), ("c", 2, 1, 0.5)
        ]  # fmt: skip
        assert (scores.change, scores.mcnemar_p) == (None, None)

    def test_a_confident_mistake_costs_what_it_should(self) -> None:
        scores = score("x", np.float32([[0, 40], [0, 1]]), [0, 1], "ab", [1, 2], reference=None)
        assert scores.loss == pytest.approx((40 + np.log(1 + np.exp(-1))) / 2)

    def test_changes_are_counted_against_the_reference(self) -> None:
        scores = score("x", self.LOGITS, [0, 1, 2, 2], "abc", [5, 6, 7, 8], reference=[1, 1, 2, 2], tried=1)
        assert scores.change
        assert (scores.change.harmful, scores.change.helpful, scores.mcnemar_p) == (1, 1, 1.0)
        assert (scores.change.lower, scores.change.upper) == paired_interval(1, 1, 4, 1.959963984540054)

    def test_lengths_are_cut_into_parts_of_equally_many_reviews(self) -> None:
        logits = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0, 1, 0, 1]]
        scores = score("x", logits, [0, 1] * 4, "ab", [3, 3, 9, 10, 20, 21, 30, 40], reference=None)
        assert [(part.least, part.most, part.reviews) for part in scores.lengths] == [
            (3, 9, 3), (10, 20, 2), (21, 30, 2), (31, 40, 1)
        ]  # fmt: skip
        assert [part.accuracy for part in scores.lengths] == pytest.approx([1 / 3, 1, 1, 1])


class FakeForm:
    """Answers class 1, in a time that the test decides by moving the clock."""

    def __init__(self, encoder: Encoder, clock: list[float]) -> None:
        self.encoder, self.clock = encoder, clock

    def logits(self, texts: Sequence[str], *, batch_tokens: int | None = None) -> np.ndarray:
        self.clock[0] += 10 if batch_tokens == 1 else 1
        return np.float32([[0, 1]] * len(texts))

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> np.ndarray:
        self.clock[0] += 0.25 * sum(len(e) for e in batch) if length is None else length
        return np.float32([[0, 1]] * len(batch))


class Here:
    """Stands in for a worker, in this process."""

    def __init__(self, form: Any) -> None:
        self.form = form

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self.form, *arguments)


class TestMeasuring:
    @pytest.fixture
    def form(self, checkpoint: Path) -> FakeForm:
        return FakeForm(Encoder.load(checkpoint, 24, "head", 0), [0.0])

    def test_a_call_is_split_into_tokenising_running_and_the_rest(self, form: FakeForm) -> None:
        def clock() -> float:
            form.clock[0] += 0.5
            return form.clock[0]

        call = timed(form, "soup bread", clock)
        assert (call.tokenise_s, call.run_s, call.total_s) == (0.5, 0.25 * 4 + 0.5, 2.5)
        assert call.probabilities == pytest.approx(softmax(np.float32([[0, 1]]))[0])

    def test_a_peer_is_timed_as_a_whole(self) -> None:
        class Pipeline:
            def score(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
                assert (list(texts), batch_size) == (["soup"], 1)
                return np.float32([[0, 1]])

        call = timed(Pipeline(), "soup")
        assert (call.tokenise_s, call.run_s) == (None, None)
        assert call.total_s > 0

    def test_the_grid_times_the_model_alone_at_exactly_that_length(self, form: FakeForm) -> None:
        assert measure.batch_time(form, "soup bread", 3, 17, lambda: form.clock[0]) == 17

    def test_warming_up_ends_when_the_times_of_all_are_steady(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measure, "SETTLE_S", 0)

        class Cooling:
            def __init__(self, steady_after: int) -> None:
                self.calls, self.steady_after = 0, steady_after

            def call(self, *_: object) -> measure.Call:
                self.calls += 1
                seconds = 1.1 ** max(0, self.steady_after - self.calls)
                return measure.Call(seconds, None, None, ())

        def calls(*steady_after: int) -> int:
            return warm_up({str(n): Cooling(n) for n in steady_after}, "x", random.Random(0))

        assert calls(0, 0) == 10
        assert calls(0, 12) == 20
        assert calls(60, 0) == measure.MOST_WARMUP

    def test_the_fastest_batching_is_chosen_and_all_trials_are_kept(
        self, form: FakeForm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def scored(form: FakeForm, texts: Sequence[str], setting: int) -> measure.Part:
            before = form.clock[0]
            logits = form.logits(texts, batch_tokens=setting)
            return measure.Part(form.clock[0] - before + setting / 1e5, logits)

        monkeypatch.setattr(measure, "scored", scored)
        trials = try_batchings({"x": Here(form)}, ["soup"] * 3, random.Random(0))
        assert sorted((t.batching, t.reviews, len(t.seconds)) for t in trials) == [
            ("2,048 tokens", 3, 3), ("8,192 tokens", 3, 3), ("one by one", 3, 3)
        ]  # fmt: skip
        assert best_batchings(trials) == {"x": "2,048 tokens"}

    def test_every_second_generation_starts_in_the_opposite_order(self) -> None:
        orders = [start_order("abcd", generation, 0) for generation in range(10)]
        assert all(sorted(order) == list("abcd") for order in orders)
        for generation, order in enumerate(orders):  # a backend that is dropped leaves the others where they were
            assert start_order("abd", generation, 0) == [name for name in order if name != "c"]
        assert all(orders[g + 1] == orders[g][::-1] for g in range(0, 10, 2))
        assert len({tuple(order) for order in orders}) > 2

    @given(st.lists(st.integers(1, 512), min_size=1, max_size=60), st.integers(1, 8), st.integers(0, 9))
    def test_hands_hold_each_card_once_and_are_alike(self, sizes: list[int], hands: int, seed: int) -> None:
        dealt = deal(sizes, hands, random.Random(seed))
        assert sorted(i for hand in dealt for i in hand) == list(range(len(sizes)))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
        ranked = [sorted(sizes[i] for i in hand) for hand in dealt]
        for rank in range(min(map(len, ranked)) - 1):  # no hand's card is above another's next one
            assert max(hand[rank] for hand in ranked) <= min(hand[rank + 1] for hand in ranked)

    @given(st.lists(st.integers(1, 512), min_size=1, max_size=60), st.integers(1, 90), st.integers(0, 9))
    def test_what_is_drawn_is_spread_over_all_sizes(self, sizes: list[int], count: int, seed: int) -> None:
        drawn = spread_out(sizes, count, random.Random(seed))
        assert len(drawn) == count
        times = [drawn.count(i) for i in range(len(sizes))]
        assert max(times) - min(times) <= 1
        whole = np.quantile(sizes, [0.25, 0.5, 0.75], method="inverted_cdf")
        if count >= len(sizes) == len(set(sizes)) >= 8:
            found = np.quantile([sizes[i] for i in drawn], [0.25, 0.5, 0.75], method="inverted_cdf")
            ranks = [sorted(sizes).index(value) for value in [*whole, *found]]
            assert all(abs(a - b) <= 1 for a, b in zip(ranks[:3], ranks[3:], strict=True))

    def test_all_are_asked_the_same_in_interleaved_rounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measure, "SETTLE_S", 0)
        asked: list[tuple[str, int]] = []

        def ask(name: str, task: int) -> int:
            asked.append((name, task))
            return 10 * task

        workers = {name: Here(name) for name in "abc"}
        answers = rounds(workers, [(i,) for i in range(8)], ask, random.Random(0))
        assert answers == {name: [10 * i for i in range(8)] for name in "abc"}
        in_turns = [asked[i : i + 3] for i in range(0, len(asked), 3)]
        assert all({name for name, _ in turn} == set("abc") and len({t for _, t in turn}) == 1 for turn in in_turns)
        assert len({tuple(name for name, _ in turn) for turn in in_turns}) > 2


class TestSummary:
    def test_the_reference_is_compared_with_itself_and_a_second_process_gives_the_noise(self) -> None:
        summary = summarise(make_record())
        first = summary.rows[0]
        assert first.info.name == REFERENCE
        assert first.latency
        assert (first.latency.speed.low, first.latency.speed.high, first.latency.verdict) == (1, 1, "cannot tell")
        assert summary.again_single
        assert verdict(summary.again_single, summary.single_floor) == "cannot tell"
        assert summary.single_floor >= max(0.02, summary.again_single.estimate - 1)

    def test_parts_add_up_and_percentiles_need_their_samples(self) -> None:
        row = summarise(make_record()).row("onnx-int8-cpu")
        assert row
        assert row.latency
        assert row.latency.calls == 670
        parts = (row.latency.tokenise_s, row.latency.run_s, row.latency.rest_s)
        assert sum(p for p in parts if p is not None) == pytest.approx(row.latency.total_s.median, rel=0.2)
        assert [(tail.name, tail.value_s is None) for tail in row.latency.tails] == [
            ("p90", False), ("p95", False), ("p99", False), ("p99.9", True)
        ]  # fmt: skip

    def test_the_share_of_the_attainable_is_the_rooflines(self) -> None:
        """One call of 100 tokens in half a second; fp32 at 1e9 operations a second."""
        record = make_record()
        machine = Machine((Limit("fp32", 1e9),), 1e12, 2e6, 1e3, product_weights=10**6)
        single = replace(record.singles[0], tokens=(100,), total_s=(0.6,), tokenise_s=(0.05,), run_s=(0.5,))
        one = replace(record, machine=machine, singles=(single,), again=None, bulks=())

        def attainable(record: BenchRecord) -> float | None:
            row = summarise(record).row(single.backend)
            assert row
            assert row.latency
            return row.latency.attainable

        assert attainable(one) == pytest.approx((2e6 * 100 + 1e3 * 100**2) / 1e9 / 0.5)
        slow = replace(machine, bytes_per_s=4e6 / 0.4)
        assert attainable(replace(one, machine=slow)) == pytest.approx(0.4 / 0.5)  # reading the weights takes longer
        assert attainable(replace(one, machine=replace(machine, limits=()))) is None

    def test_an_interrupted_record_is_compared_where_both_have_samples(self) -> None:
        record = make_record()
        cut = tuple(s for s in record.singles if s.generation < 5 or s.backend == REFERENCE)
        summary = summarise(replace(record, singles=cut, bulks=(), accuracies=(), is_complete=False))
        row = summary.row("onnx-int8-cpu")
        assert row
        assert row.latency
        assert row.latency.calls == 5 * 67
        assert math.isfinite(row.latency.speed.high)
        assert row.throughput is None
        without = [s for s in record.singles if s.backend != REFERENCE]
        assert all(row.latency is None for row in summarise(replace(record, singles=tuple(without))).rows)

    def test_what_a_process_loses_by_its_place_in_the_start_is_no_noise(self) -> None:
        """The candidate is as fast, but 10 % slower or faster in turns, as it starts before or behind the other."""
        rng = np.random.default_rng(0)
        baseline = {g: np.exp(rng.normal(0, 0.01, 40)) for g in range(10)}
        placed = {g: taken * np.exp(rng.normal(0, 0.01, 40) + 0.1 * (-1) ** g) for g, taken in baseline.items()}
        pairs = speed_of(baseline, placed)
        assert pairs
        assert 0.97 < pairs.low < 1 < pairs.high < 1.03
        alone = speed_of({g: baseline[g] for g in (0, 2, 4)}, placed)
        assert alone
        assert alone.estimate == pytest.approx(np.exp(-0.1), abs=0.01)
        assert speed_of(baseline, {11: [1.0]}) is None

    def test_no_interval_is_narrower_than_the_references_own_noise(self) -> None:
        again = Interval(0.9, 1.0, 1 / 0.9)
        least = math.log(1 / 0.9) / math.sqrt(2)
        lucky = not_surer(Interval(1.99, 2.0, 2.01), again)
        assert (math.log(lucky.high / 2), math.log(lucky.low / 2)) == pytest.approx((least, -least))
        wide = Interval(1.5, 2.0, 2.6)
        assert not_surer(wide, again) == wide
        assert not_surer(wide, None) == wide
        assert not_surer(wide, Interval(0, 1, math.inf)) == wide
        record = make_record()
        noisy = tuple(
            replace(s, total_s=tuple(t * (1 + 0.2 * (s.generation // 2 % 2)) for t in s.total_s))
            if s.backend == AGAIN
            else s
            for s in record.singles
        )
        before, after = (summarise(r).row("onnx-int8-cpu") for r in (record, replace(record, singles=noisy)))
        assert before
        assert before.latency
        assert after
        assert after.latency
        assert after.latency.speed.high / after.latency.speed.low > before.latency.speed.high / before.latency.speed.low

    def test_one_generation_tells_nothing_apart(self) -> None:
        speed = speed_of({0: [1.0, 1.1, 1.2] * 9}, {0: [0.1, 0.11, 0.12] * 9})
        assert speed
        assert (speed.low, speed.estimate, speed.high) == (0, pytest.approx(10), math.inf)

    @pytest.mark.parametrize(("restarts", "most"), [(4, 1.4), (6, 1.2), (10, 1.06)])
    def test_the_interval_keeps_its_confidence_whatever_the_places_in_the_start_cost(
        self, restarts: int, most: float
    ) -> None:
        """Simulated: processes differ by 3 %, and by 5 % more for their place; 99 % less what 300 trials leave open."""
        rng = np.random.default_rng(restarts)
        held, reach = 0, []
        for _ in range(300):
            before = {g: np.exp(rng.normal(0, 0.1, 12)) for g in range(restarts)}
            own = {g: rng.normal(0, 0.03) + 0.05 * (-1) ** g for g in before}
            after = {g: taken * np.exp(own[g] + rng.normal(0, 0.03, 12)) for g, taken in before.items()}
            speed = speed_of({g: list(s) for g, s in before.items()}, {g: list(s) for g, s in after.items()})
            assert speed
            held += speed.low <= 1 <= speed.high
            reach.append(speed.high / speed.estimate)
        assert held / 300 > 0.97
        assert np.median(reach) < most

    def test_a_cell_of_the_grid_has_an_interval(self) -> None:
        record = make_record()

        def cells(name: str, *seconds: float) -> list[Grid]:
            return [Grid(name, g, 8, 32, (s,)) for g, s in enumerate(seconds)]

        noise = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98)
        int8, fp32 = "onnx-int8-cpu", "onnx-fp32-cpu"
        grids = [*cells(REFERENCE, *noise), *cells(int8, *(n / 2 for n in noise)), *cells(fp32, *noise[::-1])]
        found = {cell.backend: cell for cell in summarise(replace(record, grids=tuple(grids))).grid}
        assert found[int8].speed
        assert found[int8].speed.estimate == pytest.approx(2)
        assert {name: cell.verdict for name, cell in found.items()} == {
            REFERENCE: "cannot tell", int8: "faster", fp32: "cannot tell"
        }  # fmt: skip
        lonely = summarise(replace(record, grids=tuple(cells(int8, *noise)))).grid
        assert [(cell.speed, cell.verdict) for cell in lonely] == [(None, "cannot tell")]

    def test_each_range_of_lengths_is_compared_on_its_own_calls(self) -> None:
        """The candidate is twice as fast on short reviews and half as fast on long ones."""
        record, rng = make_record(), np.random.default_rng(0)
        base = replace(record.singles[0], tokens=(10, 10, 90, 90))
        singles = []
        for generation in range(4):
            times = np.exp(rng.normal(0, 0.01, 4))
            before = replace(base, backend=REFERENCE, generation=generation, total_s=tuple(times.tolist()))
            after = tuple((times * [0.5, 0.5, 2, 2]).tolist())
            singles += [before, replace(before, backend="onnx-int8-cpu", total_s=after)]
        found = speeds_by_length(
            replace(record, singles=tuple(singles)), "onnx-int8-cpu", [(1, 50), (51, 99), (100, 200)]
        )
        assert [speed and round(speed.estimate, 6) for speed in found] == [2, 0.5, None]

    def test_memory_that_grows_is_told_from_memory_that_jumps(self) -> None:
        record = make_record()

        def growth(rss: Sequence[int]) -> Any:
            soak = Soak(REFERENCE, (9,) * len(rss), tuple(rss))
            row = summarise(replace(record, soaks=(soak,))).row(REFERENCE)
            assert row
            return row.growth_bytes

        leak = growth([10**8 + 4096 * i for i in range(200)])
        assert (leak.low, leak.estimate, leak.high) == pytest.approx((4096,) * 3)
        jump = growth([10**8 + 10**6 * (i > 150) for i in range(200)])
        assert jump.low == jump.estimate == 0
        assert growth([]) is None

    def test_users_lengths_decide_the_expected_percentile(self) -> None:
        tokens = list(range(10, 160))
        seconds = [n / 1000 for n in tokens]
        assert expected_percentile(tokens, seconds, [20] * 50, 0.95) == pytest.approx(0.022, abs=0.003)
        assert expected_percentile(tokens, seconds, [20] * 90 + [100] * 10, 0.95) == pytest.approx(0.1, abs=0.003)
        assert expected_percentile(tokens, seconds, [5000], 0.95) == pytest.approx(0.159, abs=0.001)

    def test_of_equally_long_reviews_all_count_and_few_tell_nothing(self) -> None:
        seconds = [i / 100 for i in range(1, 201)]
        random.Random(0).shuffle(seconds)
        assert expected_percentile([512] * 200, seconds, [512, 512], 0.95) == pytest.approx(1.9, abs=0.011)
        assert expected_percentile([512] * 20, seconds[:20], [512], 0.95) is None


def verdict_of(record: BenchRecord, **limits: Any) -> Any:
    record = replace(record, config=replace(record.config, **limits))
    return recommend(record, summarise(record))


class TestVerdict:
    def test_the_fastest_within_the_limits_is_named_with_what_it_costs_and_brings(self) -> None:
        found = verdict_of(make_record(), price_per_hour=0.5)
        assert found.backend == "onnx-int8-cpu"
        assert re.fullmatch(
            r"Ship `onnx-int8-cpu`: 2\.\d\d× \[.*\] the speed of `pytorch-fp32-cpu`, accuracy \+0\.20 points \[.*\], "
            r"67\.9 MB, \d+\.\d\d per million reviews\.",
            found.sentence,
        )
        assert any(line.startswith("`onnx-fp32-cpu`: 2.") and "slower" in line for line in found.rejected)

    @pytest.mark.parametrize(
        ("limits", "ships", "why_not_int8"),
        [
            ({"max_size_mb": 60.0}, None, "67.9 MB, above `--max-size-mb 60`"),
            ({"max_drop": 0.1}, "onnx-fp32-cpu", "2,000 reviews cannot tell whether it stays within 0.1 points"),
            ({"max_p95_ms": 1.0}, None, "above `--max-p95-ms 1`"),
            ({"max_p95_ms": 1000.0}, "onnx-int8-cpu", ""),
            ({"device": "cuda"}, None, ""),
        ],
    )
    def test_limits_are_kept(self, limits: dict[str, Any], ships: str | None, why_not_int8: str) -> None:
        found = verdict_of(make_record(), **limits)
        assert found.backend == ships
        assert not why_not_int8 or any(
            line.startswith("`onnx-int8-cpu`") and why_not_int8 in line for line in found.rejected
        )

    def test_what_loses_more_than_the_budget_is_not_shipped(self) -> None:
        record = make_record()
        changed = tuple(
            replace(a, change=replace(a.change, lower=-0.03, change=-0.02, upper=-0.01))
            if a.backend == "onnx-int8-cpu" and a.change
            else a
            for a in record.accuracies
        )
        found = verdict_of(replace(record, accuracies=changed))
        assert found.backend == "onnx-fp32-cpu"
        assert "accuracy -2.00 points [-3.00, -1.00], beyond the 0.5 points of `--max-drop`" in found.rejected[0]

    def test_undecided_is_shipped_where_the_export_was_told_to(self) -> None:
        record = replace(make_record(), accept_undecided=True)
        assert verdict_of(record, max_drop=0.1).backend == "onnx-int8-cpu"

    def test_of_two_that_cannot_be_told_apart_the_smaller_is_shipped(self) -> None:
        record = make_record()
        same = {s.generation: s for s in record.singles if s.backend == "onnx-int8-cpu"}
        singles = tuple(
            replace(same[s.generation], backend=s.backend) if s.backend == "onnx-fp32-cpu" else s
            for s in record.singles
        )
        found = verdict_of(replace(record, singles=singles))
        assert found.backend == "onnx-int8-cpu"
        assert "`onnx-fp32-cpu`: not told apart in speed, and larger: 340 MB with its packages" in found.rejected

    def test_int8_is_not_shipped_where_nothing_in_fp32_was_measured(self) -> None:
        record = make_record()
        alone = tuple(info for info in record.backends if info.name == "onnx-int8-cpu")
        found = verdict_of(replace(record, backends=alone, reference="onnx-int8-cpu", again=None))
        assert found.backend is None
        assert "compared with nothing" in found.rejected[0]


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
        assert [row["backend"] for row in rows] == [row.info.name for row in summary.rows]
        int8 = next(row for row in rows if row["backend"] == "onnx-int8-cpu")
        found = summary.row("onnx-int8-cpu")
        assert found
        assert found.latency
        assert float(int8["latency_s"]) == found.latency.total_s.median
        assert float(int8["speed_low"]) < float(int8["speed"]) < float(int8["speed_high"])
        assert float(int8["p99_s"]) > float(int8["p90_s"])
        assert int8["p99.9_s"] == ""


class TestOverTime:
    def test_the_same_record_is_no_worse(self) -> None:
        differences = compare(make_record(), make_record(1))
        assert not any(d.is_slower or d.is_less_accurate for d in differences)
        refuse_worse(differences, Path("old.json"))

    def test_a_backend_that_became_slower_or_less_accurate_is_named(self) -> None:
        before = make_record()
        slow = tuple(
            replace(s, total_s=tuple(1.3 * t for t in s.total_s)) if s.backend == "onnx-int8-cpu" else s
            for s in before.singles
        )
        wrong = tuple(
            replace(
                a, predicted=tuple(1 - p if i < 40 and p == before.labels[i] else p for i, p in enumerate(a.predicted))
            )
            if a.backend == "onnx-fp32-cpu"
            else a
            for a in before.accuracies
        )
        differences = {d.backend: d for d in compare(before, replace(before, singles=slow, accuracies=wrong))}
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
            replace(b, seconds=tuple(1.3 * t for t in b.seconds)) if b.backend == "onnx-int8-cpu" else b
            for b in before.bulks
        )
        differences = compare(before, replace(before, bulks=slow))
        assert [d.backend for d in differences if d.is_slower] == ["onnx-int8-cpu"]
        assert "one by one 1.00× [" in render(differences)
        assert "bulk 0.77× [" in render(differences)

    def test_another_machine_is_refused_unless_told_to(self, tmp_path: Path) -> None:
        record = make_record()
        write_record(tmp_path / "bench.json", record)
        path, here = tmp_path / "bench.json", replace(record.environment, cpu="Another CPU")
        with pytest.raises(UserError, match="another machine: cpu Intel"):
            load_earlier(path, BenchConfig(), here)
        anywhere = BenchConfig(against=path, any_machine=True)
        assert load_earlier(path, anywhere, here) == record
        assert load_earlier(path, BenchConfig(), record.environment) == record

    def test_what_cannot_be_compared_is_refused_before_anything_is_measured(self, tmp_path: Path) -> None:
        record, path = make_record(), tmp_path / "bench.json"
        write_record(path, record)
        gone = replace(record, reference="onnx-fp32-cpu")  # PyTorch could not be used then
        write_record(path, gone)
        assert load_earlier(path, BenchConfig(), record.environment) == gone
        write_record(path, record)
        with pytest.raises(UserError, match="compares with `pytorch-fp32-cpu`, this one with `onnx-fp32-cpu`"):
            load_earlier(path, BenchConfig(backends=("onnx-int8-cpu", "onnx-fp32-cpu")), record.environment)
        write_record(path, replace(record, is_complete=False))
        with pytest.raises(UserError, match="did not finish"):
            load_earlier(path, BenchConfig(), record.environment)

    def test_other_references_or_reviews_are_not_compared(self) -> None:
        record = make_record()
        with pytest.raises(UserError, match="compares with"):
            compare(record, replace(record, reference="onnx-fp32-cpu"))
        assert all(d.accuracy is None for d in compare(record, replace(record, labels=record.labels[1:])))
        assert all(d.accuracy is None for d in compare(record, replace(record, evaluation_sha256="other")))

    def test_what_cannot_be_measured_any_more_is_worse_and_what_was_not_asked_for_is_not(self) -> None:
        record = make_record()
        fewer = replace(record, backends=tuple(info for info in record.backends if info.name != "onnx-int8-cpu"))
        assert not any(d.is_worse for d in compare(record, fewer))
        broken = replace(fewer, skipped=(*record.skipped, Skipped("onnx-int8-cpu", "it died")))
        differences = compare(record, broken)
        assert [d.backend for d in differences if d.is_gone] == ["onnx-int8-cpu"]
        assert f"{'onnx-int8-cpu':<28} NOT MEASURED NOW" in render(differences)
        with pytest.raises(UserError, match="worse than"):
            refuse_worse(differences, Path("old.json"))


class TestBackends:
    def test_unknown_names_are_refused(self) -> None:
        with pytest.raises(UserError, match="no backend `nope`"):
            choose_specs(["nope"])
        assert choose_specs(None) == list(SPECS)
        assert choose_specs(None, peers=True) == [*SPECS, *PEERS]

    def test_reasons(self, exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
        specs = {spec.name: spec for spec in (*SPECS, *PEERS)}
        export = load_export(exported)
        assert why_unusable(specs["onnx-int8-cpu"], exported, export, None) is None
        assert why_unusable(specs["pytorch-bf16-cuda"], exported, export, None) == "no CUDA device"
        assert why_unusable(specs["pytorch-bf16-cuda"], exported, export, "H100") is None
        assert "onnxruntime-gpu" in (why_unusable(specs["onnx-fp32-cuda"], exported, export, "H100") or "")
        assert "--target cuda" in (why_unusable(specs["onnx-fp16-cuda"], exported, export, "H100") or "")
        without = replace(export, artifacts=export.artifacts[:2])
        assert "--quantize" in (why_unusable(specs["onnx-int8-cpu"], exported, without, None) or "")
        run = copy_of(exported)
        (run.adapter / "adapter_config.json").unlink()
        assert "merged checkpoint" in (why_unusable(specs["adapter-fp32-cpu"], run, export, None) or "")

    def test_cuda_in_onnxruntime_is_refused_where_it_would_fall_back(self, exported: RunDir) -> None:
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime has CUDA")
        (spec,) = choose_specs(["onnx-fp32-cuda"])
        with pytest.raises(UserError, match="no `CUDAExecutionProvider`"):
            load_backend(spec, exported, 1)

    @pytest.mark.parametrize("name", [spec.name for spec in PEERS if spec.peer != "OpenVino"])
    def test_peers_answer_about_as_our_adapter_does(self, exported: RunDir, name: str) -> None:
        from trainer.data import read_examples

        (spec,) = choose_specs([name])
        reviews = read_examples(exported.evaluation, exported.load().label_names)
        peer = load_backend(spec, exported, torch.get_num_threads())  # of this process: others' sums depend on it
        alone, together = peer.score(reviews.texts[:5], 1), peer.score(reviews.texts[:5], 4)
        np.testing.assert_allclose(peer.score(reviews.texts[:1], 1), alone[:1], atol=1e-4)
        assert softmax(alone).sum(-1) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(softmax(together), softmax(alone), atol=0.05)
        right = np.mean(peer.score(reviews.texts, 8).argmax(-1) == reviews.labels)
        assert right > 0.6  # chance is 0.25


def test_limits_are_those_of_the_graphs_own_products(exported: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.limits.LEAST_S", 0.001)
    model = exported.export / "onnx-fp32" / "model.onnx"
    shapes = product_shapes(model)
    # In each layer query, key and value in one matrix, the output and two of the feed-forward; two of the head.
    assert sorted(shapes) == sorted([(32, 96), (32, 32), (32, 64), (64, 32)] * 2 + [(32, 32), (32, 4)])
    machine = measure_machine(None, model, torch.get_num_threads())
    assert machine
    assert machine.product_weights == sum(a * b for a, b in shapes)
    assert machine.flops_per_token == sum(2 * a * b for a, b in shapes)
    assert machine.flops_per_token_squared == 4 * 2 * 32
    assert {limit.precision for limit in machine.limits} == {"fp32", "int8", "bf16"}
    assert all(limit.flops > 0 for limit in machine.limits)
    assert machine.bytes_per_s > 1e6


class TestCores:
    def test_threads_get_a_physical_core_each_before_two_share_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for core, siblings in {0: "0-1", 1: "0-1", 2: "2,3", 3: "2,3"}.items():
            (tmp_path / f"cpu{core}" / "topology").mkdir(parents=True)
            (tmp_path / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(siblings + "\n")
        monkeypatch.setattr(bench.cores, "TOPOLOGY", tmp_path)
        assert choose_cores({0, 1, 2, 3}, 2) == {0, 2}
        assert choose_cores({0, 1, 2, 3}, 3) == {0, 1, 2}
        assert choose_cores({1, 2, 3, 9}, 2) == {2, 9}  # of core 9 nothing is known
        assert choose_cores({5}, 4) == {5}

    @pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say where a process may run")
    def test_a_process_stays_on_as_many_cores_as_it_has_threads(self) -> None:
        where = "import os; from bench.cores import pin; pin(1); print(len(os.sched_getaffinity(0)))"
        assert subprocess.run([sys.executable, "-c", where], capture_output=True, text=True, check=True).stdout == "1\n"


def test_the_size_of_packages_counts_what_they_require() -> None:
    numpy, onnxruntime = packages_bytes(("numpy",)), packages_bytes(("onnxruntime",))
    assert 5e6 < numpy < onnxruntime
    assert packages_bytes(("onnxruntime", "NumPy", "numpy")) == onnxruntime
    assert packages_bytes(("no-such-package",)) == 0


def test_a_cold_start_is_a_new_process_in_parts(exported: RunDir) -> None:
    found = cold_start("onnx-fp32-cpu", exported.path, 1, "soup")
    assert found
    assert set(found) == {"total_s", "import_s", "load_s", "first_s"}
    assert found["total_s"] > found["import_s"] + found["load_s"] + found["first_s"] > found["first_s"] > 0
    assert cold_start("onnx-fp32-cpu", exported.path, 1, "soup " * 50_000)  # longer than a command's argument may be
    assert cold_start("onnx-fp32-cpu", exported.path / "gone", 1, "soup") is None


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmark without processes, where torch is imported already: for tests that are about something else."""

    class Worker(Here):
        def __init__(self, _: str, load: Callable[[], Any], threads: int) -> None:  # noqa: ARG002
            super().__init__(load())

        def close(self) -> None:
            pass

    monkeypatch.setattr(bench.generation, "Worker", Worker)
    monkeypatch.setattr(bench.backends, "pin", lambda _: None)
    monkeypatch.setattr(bench.run, "_machine", lambda *_: None)


def check_reports(run: RunDir, record: BenchRecord, out: str) -> None:
    """Hold the files and the console to what the record says."""
    summary = summarise(record)
    recommendation = recommend(record, summary)
    assert run.bench_report.read_text() == markdown(record, summary, recommendation)
    page = run.bench_report.with_suffix(".html")
    assert "</html>" in page.read_text()
    assert out.endswith(f"{recommendation.sentence}\n\nreport: {page}\n")
    assert "per million reviews" in recommendation.sentence


@pytest.mark.usefixtures("in_this_process")
def test_the_whole_benchmark(
    exported: RunDir,
    copy_of: Callable[[RunDir], RunDir],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench.generation, "COLD_STARTS", 1)
    run = copy_of(exported)
    own = write_csv(tmp_path / "mine.csv", [("soup and bread", "food"), ("a goal again", "sport")])
    flags = ["--restarts", 2, "--calls", 5, "--soak-calls", 30, "--texts", own, "--price-per-hour", 0.4]
    threads = ["--threads", torch.get_num_threads()]  # of this process: others' sums depend on it
    status, out, _ = command(bench.__main__.main, "--run-dir", run.path, *flags, *threads)
    assert status == 0
    record = read_record(run.bench_record, BenchRecord)
    assert record.is_complete
    names = [info.name for info in record.backends]
    assert sorted(names) == sorted(CPU)
    assert [s.backend for s in record.skipped] == ["all backends on CUDA"]
    both = [*names, AGAIN]
    assert {(s.backend, len(s.total_s), len(s.run_s)) for s in record.singles} == {(n, 5, 5) for n in both}
    assert sorted((b.backend, sum(b.reviews)) for b in record.bulks) == sorted([(n, 16) for n in both] * 2)
    tried = {(n, how) for n in names for how in measure.TOKEN_BATCHES}
    assert {(t.backend, t.batching) for t in record.batching_trials} == tried
    cells = {(n, generation, b, 24) for n in names for generation in (0, 1) for b in (1, 8)}
    assert {(g.backend, g.generation, g.batch, g.length) for g in record.grids} == cells
    assert sorted(c.backend for c in record.cold_starts) == sorted(names)
    assert all((m.peak_bytes or 0) >= (m.loaded_bytes or 0) > 1e6 for m in record.memories)
    assert [(s.backend, len(s.tokens), len(s.rss_bytes)) for s in record.soaks] == [
        (s.backend, 30, 30) for s in record.soaks
    ]
    assert {s.backend for s in record.soaks} == set(names)
    assert len(record.own_tokens) == 2
    training = run.load().training
    assert training
    for scores in record.accuracies:
        assert scores.reviews == 32
        assert scores.accuracy == pytest.approx(training.best.accuracy, abs=0.07)
    loss = next(a.loss for a in record.accuracies if a.backend == REFERENCE)
    assert loss == pytest.approx(training.best.loss, abs=1e-4)
    check_reports(run, record, out)


@pytest.mark.usefixtures("in_this_process")
def test_fewer_backends_and_reviews_on_request_and_all_over_again(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], command: Command
) -> None:
    run = copy_of(exported)
    config = BenchConfig(
        run.path,
        backends=("onnx-int8-cpu",),
        restarts=2,
        calls=3,
        grid_calls=0,
        soak_calls=0,
        max_eval_samples=7,
        threads=1,
    )
    record = run_bench(config)
    assert [scores.reviews for scores in record.accuracies] == [7]
    assert [(s.backend, s.generation) for s in record.singles if s.backend == record.reference] == [
        ("onnx-int8-cpu", 0), ("onnx-int8-cpu", 1)
    ]  # fmt: skip
    assert (record.skipped, record.grids, record.soaks, record.environment.threads) == ((), (), (), 1)
    flags = ["--run-dir", run.path, "--backends", "onnx-int8-cpu", *QUICK, "--threads", 1]
    status, out, _ = command(bench.__main__.main, *flags, "--against", run.bench_record)
    assert status == 0
    assert f"against {run.bench_record}:\nspeed over the reference, as a multiple of what it was:\nonnx-int8-cpu" in out
    status, _, err = command(bench.__main__.main, *flags[:-1], 2, "--against", run.bench_record)
    assert status == 2
    assert "was measured on another machine: threads 1, here 2" in err


@pytest.mark.usefixtures("in_this_process")
def test_what_is_timed_has_to_answer_as_what_was_scored(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.generation, "SAME_ANSWER", -1.0)
    config = BenchConfig(copy_of(exported).path, backends=("onnx-fp32-cpu",), restarts=1, calls=2, grid_calls=0)
    with pytest.raises(UserError, match="not one backend") as error:
        run_bench(config)
    assert "answers otherwise when it is timed than when it is scored" in error.value.hint


def fail_when_timed(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Let a backend fail once it is timed, though it has loaded."""
    call = bench.generation.Guarded.call

    def fails(self: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        if function is timed and self._name == backend:
            raise bench.generation.BackendFailedError(self._name, UserError("out of memory", ""))
        return call(self, function, *arguments)

    monkeypatch.setattr(bench.generation.Guarded, "call", fails)


TWO = {"backends": ("onnx-int8-cpu", "onnx-fp32-cpu"), "calls": 2, "grid_lengths": (1, 1000), "soak_calls": 2}


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("fails", "stays"), [("onnx-int8-cpu", "onnx-fp32-cpu"), ("onnx-fp32-cpu", "onnx-int8-cpu")])
def test_a_backend_that_fails_on_the_way_is_dropped_and_the_others_go_on(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch, fails: str, stays: str
) -> None:
    """Even the reference, before anything is compared with it."""
    fail_when_timed(monkeypatch, fails)
    record = run_bench(BenchConfig(copy_of(exported).path, restarts=1, **TWO))
    assert [info.name for info in record.backends] == [stays]
    assert record.skipped == (Skipped(fails, "out of memory"),)
    assert {s.backend for s in record.singles} == {stays, f"{stays} (again)"}
    assert {m.backend for m in record.memories} | {s.backend for s in record.soaks} == {stays}
    assert record.reference == stays
    assert {cell.length for cell in record.grids} == {3, 24}  # a word between its two special tokens, and the longest
    assert {bulk.batching for bulk in record.bulks} == {record.bulks[0].batching}  # both processes batch alike


@pytest.mark.usefixtures("in_this_process")
def test_a_backend_that_fails_once_is_asked_once_more(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = bench.generation.Generation.measure, []

    def fails_first(self: Any) -> None:
        begun.append(self._number)
        begin(self)
        if begun == [0, 1]:  # what it has measured by now is not to count twice
            raise bench.generation.BackendFailedError("onnx-int8-cpu", UserError("out of memory", ""))

    monkeypatch.setattr(bench.generation.Generation, "measure", fails_first)
    record = run_bench(BenchConfig(copy_of(exported).path, restarts=2, **TWO))
    assert begun == [0, 1, 1]
    assert record.skipped == ()
    assert sorted((s.backend, s.generation) for s in record.singles if s.backend == "onnx-int8-cpu") == [
        ("onnx-int8-cpu", 0), ("onnx-int8-cpu", 1)
    ]  # fmt: skip


@pytest.mark.usefixtures("in_this_process")
def test_without_its_reference_a_benchmark_ends_and_what_was_compared_with_it_is_kept(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(exported)
    done = bench.run.Progress.done

    def fails_from_now_on(self: Any, share: float) -> None:
        fail_when_timed(monkeypatch, "onnx-fp32-cpu")
        done(self, share)

    monkeypatch.setattr(bench.run.Progress, "done", fails_from_now_on)
    with pytest.raises(UserError, match="out of memory"):
        run_bench(BenchConfig(run.path, restarts=2, **TWO))
    kept = read_record(run.bench_record, BenchRecord)
    assert not kept.is_complete
    assert {s.generation for s in kept.singles} == {0}


def test_memory_on_a_gpu_is_the_drivers_where_pytorch_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\necho '1, 700'\necho '{os.getpid()}, 312'\necho '9, [N/A]'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert measure.gpu_bytes() == 312 * 2**20
    assert measure._driver_bytes(9) is None
    monkeypatch.setenv("PATH", "")
    assert measure.gpu_bytes() is None


def test_not_one_usable_backend_is_an_error(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(exported)
    with pytest.raises(UserError, match="not one backend"):
        run_bench(BenchConfig(run.path, backends=("onnx-fp16-cuda",)))
    assert not run.bench_record.exists()


def test_benchmarking_before_exporting_is_an_error(trained: RunDir, command: Command, tmp_path: Path) -> None:
    status, _, err = command(bench.__main__.main, "--run-dir", trained.path)
    assert status == 2
    assert "error: no export in" in err
    assert "hint: run `python -m exporter --quantize` first" in err
    status, _, err = command(bench.__main__.main, "--run-dir", tmp_path)
    assert status == 2
    assert "error: no trained run in" in err


def test_a_changed_artifact_is_an_error_even_where_another_backend_could_be_measured(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(exported)
    (run.export / "onnx-fp32" / "model.onnx").write_bytes(b"x")
    with pytest.raises(IntegrityError):
        run_bench(BenchConfig(run.path, backends=("onnx-int8-cpu", "onnx-fp32-cpu"), calls=2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.export_record.write_text(run.export_record.read_text()[:-40]), "cut short"),
        (lambda run: run.export_record.write_text(json.dumps({"kind": "ExportRecord", "schema": 99})), "schema 99"),
        (lambda run: (run.export / "onnx-fp32" / "model.onnx").write_bytes(b"x"), "changed after the export"),
    ],
)
def test_a_damaged_export_is_refused_or_skipped_with_its_reason(
    exported: RunDir,
    copy_of: Callable[[RunDir], RunDir],
    command: Command,
    damage: Callable[[RunDir], object],
    message: str,
) -> None:
    run = copy_of(exported)
    damage(run)
    status, _, err = command(bench.__main__.main, "--run-dir", run.path, "--backends", "onnx-fp32-cpu")
    assert status == 2
    assert message in err


@pytest.mark.parametrize(("moment", "is_kept"), [("measuring what", False), ("generation 2", True)])
def test_an_interrupted_benchmark_keeps_what_was_measured_and_leaves_no_process(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], moment: str, *, is_kept: bool
) -> None:
    run = copy_of(exported)
    quick = ["--calls", "3", "--restarts", "2", "--grid-calls", "0", "--soak-calls", "0"]
    command = [sys.executable, "-m", "bench", "--run-dir", str(run.path), "--backends", *CPU[2:], *quick]
    # A terminal sends Ctrl-C to the whole group: the workers must not answer it with tracebacks of their own.
    with start(command) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith(moment):
                time.sleep(0.2)
                os.killpg(process.pid, signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode in INTERRUPTED
    assert re.search(r"error: interrupted\n\nhint: .*\n$", rest)
    assert "Traceback" not in rest
    assert run.bench_record.exists() == is_kept
    if is_kept:
        assert not read_record(run.bench_record, BenchRecord).is_complete
        assert run.bench_report.read_text().startswith("**Partial")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process was left behind")
