"""Every statistic follows from the samples, and an interval holds what it says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bench_records import REFERENCE, SECOND, make_record, make_summary

from bench.judge.interval import Interval
from bench.judge.latency import expected_percentile
from bench.judge.speed import speed_of, widen
from bench.judge.stats import verdict
from bench.judge.summarise import summarise
from bench.results import BenchRecord, Grid, Limit, Machine, Soak


class TestSummary:
    def test_the_reference_is_compared_with_itself_and_a_second_process_gives_the_noise(self) -> None:
        summary = make_summary()
        first, noise = summary.rows[0], summary.single_noise
        assert (first.info.name, first.is_reference) == (REFERENCE, True)
        assert first.latency
        speed = first.latency.speed
        assert (speed.low, speed.high, speed.verdict) == (1, 1, "cannot tell")
        assert noise.second_process
        assert verdict(noise.second_process, noise.floor) == "cannot tell"
        assert noise.floor >= max(0.02, noise.second_process.estimate - 1)
        assert summary.second_process
        assert summary.second_process.name == SECOND

    def test_parts_add_up_and_percentiles_need_their_samples(self) -> None:
        row = make_summary().row("onnx-int8-cpu")
        assert row
        assert row.latency
        assert len(row.latency.total_s.samples) == 670
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
        one = replace(record, machine=machine, singles=(single,), second_process=None, bulks=())

        def attainable(record: BenchRecord) -> float | None:
            row = summarise(record).row(single.engine)
            assert row
            assert row.latency
            return row.latency.attainable

        assert attainable(one) == pytest.approx((2e6 * 100 + 1e3 * 100**2) / 1e9 / 0.5)
        short = replace(one, machine=replace(machine, flops_per_text=5e7))  # done once, however many tokens there are
        assert attainable(short) == pytest.approx((2e6 * 100 + 5e7 + 1e3 * 100**2) / 1e9 / 0.5)
        slow = replace(machine, bytes_per_s=4e6 / 0.4)
        assert attainable(replace(one, machine=slow)) == pytest.approx(0.4 / 0.5)  # reading the weights takes longer
        assert attainable(replace(one, machine=replace(machine, limits=()))) is None

    def test_the_share_of_the_product_rate_is_that_of_all_texts_in_bulk(self) -> None:
        """In half a second, 100 tokens in four texts; fp32 at 1e9 operations a second."""
        record = make_record()
        machine = Machine((Limit("fp32", 1e9),), 1e12, 2e6, 1e3, product_weights=10**6, flops_per_text=1e6)
        bulk = replace(record.bulks[0], engine=REFERENCE, texts=(1, 3), tokens=(40, 60), seconds=(0.2, 0.3))

        def share(machine: Machine | None) -> float | None:
            row = summarise(replace(record, machine=machine, bulks=(bulk,), second_process=None)).row(REFERENCE)
            assert row
            assert row.throughput
            return row.throughput.product_share

        assert share(machine) == pytest.approx((2e6 * 100 + 1e6 * 4) / 1e9 / 0.5)
        assert share(replace(machine, limits=())) is None
        assert share(None) is None

    def test_an_interrupted_record_is_compared_where_both_have_samples(self) -> None:
        record = make_record()
        cut = tuple(s for s in record.singles if s.restart < 5 or s.engine == REFERENCE)
        summary = summarise(replace(record, singles=cut, bulks=(), accuracies=(), is_complete=False))
        row = summary.row("onnx-int8-cpu")
        assert row
        assert row.latency
        assert len(row.latency.total_s.samples) == 5 * 67
        assert row.latency.speed.bounds
        assert row.throughput is None
        without = [s for s in record.singles if s.engine != REFERENCE]
        assert all(row.latency is None for row in summarise(replace(record, singles=tuple(without))).rows)

    def test_what_a_process_loses_by_its_place_in_the_start_is_no_noise(self) -> None:
        """The candidate is as fast, but 10 % slower or faster in turns, as it starts before or behind the other."""
        rng = np.random.default_rng(0)
        baseline = {g: np.exp(rng.normal(0, 0.01, 40)) for g in range(10)}
        placed = {g: seconds * np.exp(rng.normal(0, 0.01, 40) + 0.1 * (-1) ** g) for g, seconds in baseline.items()}
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
        lucky = widen(Interval(1.99, 2.0, 2.01), again)
        assert (math.log(lucky.high / 2), math.log(lucky.low / 2)) == pytest.approx((least, -least))
        wide = Interval(1.5, 2.0, 2.6)
        assert widen(wide, again) == wide
        assert widen(wide, None) == wide
        assert widen(wide, Interval(0, 1, math.inf)) == wide
        record = make_record()
        record = replace(record, grids=(), soaks=(), bulks=())
        noisy = tuple(
            replace(s, total_s=tuple(t * (1 + 0.2 * (s.restart // 2 % 2)) for t in s.total_s))
            if s.engine == SECOND
            else s
            for s in record.singles
        )
        before, after = (summarise(r).row("onnx-int8-cpu") for r in (record, replace(record, singles=noisy)))
        assert before
        assert before.latency
        assert after
        assert after.latency
        assert after.latency.speed.high / after.latency.speed.low > before.latency.speed.high / before.latency.speed.low

    @pytest.mark.parametrize("restarts", [1, 2, 3])
    def test_an_interval_takes_three_restarts(self, restarts: int) -> None:
        """Ten times as fast in each call."""
        rng = np.random.default_rng(0)
        before = {g: rng.uniform(1, 1.2, 27).tolist() for g in range(restarts)}
        speed = speed_of(before, {g: [s / 10 for s in seconds] for g, seconds in before.items()})
        assert speed
        assert speed.estimate == pytest.approx(10)
        assert (speed.bounds is not None) == (verdict(speed, 0.02) == "faster") == (restarts == 3)

    @pytest.mark.parametrize("spread", [1.1, 9.0, 1e200])
    def test_restarts_that_differ_beyond_measure_give_no_interval(self, spread: float) -> None:
        """Three, of which the last is so many times slower."""
        after = {0: [1.0] * 9, 1: [1.0] * 9, 2: [spread] * 9}
        speed = speed_of(dict.fromkeys(range(3), [1.0] * 9), after)
        assert speed
        assert (speed.bounds is not None) == (spread < 2)
        assert verdict(speed, 0.02) == "cannot tell"

    @pytest.mark.parametrize(("restarts", "most"), [(4, 1.4), (6, 1.2), (10, 1.06)])
    def test_the_interval_keeps_its_confidence_whatever_the_places_in_the_start_cost(
        self, restarts: int, most: float
    ) -> None:
        """Simulated: processes differ by 3 %, and by 5 % more for their place; 99 % less what 300 trials leave open."""
        rng = np.random.default_rng(restarts)
        covered, reach = 0, []
        for _ in range(300):
            before = {g: np.exp(rng.normal(0, 0.1, 12)) for g in range(restarts)}
            own = {g: rng.normal(0, 0.03) + 0.05 * (-1) ** g for g in before}
            after = {g: seconds * np.exp(own[g] + rng.normal(0, 0.03, 12)) for g, seconds in before.items()}
            speed = speed_of({g: list(s) for g, s in before.items()}, {g: list(s) for g, s in after.items()})
            assert speed
            covered += speed.low <= 1 <= speed.high
            reach.append(speed.high / speed.estimate)
        assert covered / 300 > 0.97
        assert np.median(reach) < most

    def test_a_cell_of_the_grid_has_an_interval(self) -> None:
        record = make_record()

        def cells(name: str, *seconds: float) -> list[Grid]:
            return [Grid(engine=name, restart=g, batch=8, length=32, samples_s=(s,)) for g, s in enumerate(seconds)]

        noise = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98)
        int8, fp32 = "onnx-int8-cpu", "onnx-fp32-cpu"
        grids = [*cells(REFERENCE, *noise), *cells(int8, *(n / 2 for n in noise)), *cells(fp32, *noise[::-1])]
        speeds = {cell.engine: cell.speed for cell in summarise(replace(record, grids=tuple(grids))).grid}
        assert speeds[int8]
        assert speeds[int8].estimate == pytest.approx(2)
        assert {name: speed and speed.verdict for name, speed in speeds.items()} == {
            REFERENCE: "cannot tell", int8: "faster", fp32: "cannot tell"
        }  # fmt: skip
        alone = summarise(replace(record, grids=tuple(cells(int8, *noise)))).grid
        assert [cell.speed for cell in alone] == [None]

    def test_each_range_of_lengths_is_compared_on_its_own_calls(self) -> None:
        """The candidate is twice as fast on short texts, half as fast on long ones, and alone on some."""
        record, rng = make_record(), np.random.default_rng(0)
        base = replace(record.singles[0], tokens=(10,) * 10 + (90,) * 10, tokenise_s=(), run_s=())
        singles = []
        for restart in range(4):
            seconds = np.exp(rng.normal(0, 0.01, 20))
            before = replace(base, restart=restart, total_s=tuple(seconds.tolist()))
            after = tuple((seconds * ([0.5] * 10 + [2] * 10)).tolist())
            singles += [before, replace(before, engine="onnx-int8-cpu", total_s=after)]
        short = replace(base, engine="onnx-fp32-cpu", tokens=(10,) * 10, total_s=(0.1,) * 10)
        shorts = [replace(short, restart=4), replace(short, restart=4, engine=REFERENCE)]
        long_without_reference = replace(short, restart=5, tokens=(90,) * 10)
        singles += [*shorts, long_without_reference]
        summary = summarise(replace(record, singles=tuple(singles), second_process=None, grids=(), bulks=(), soaks=()))
        assert summary.length_ranges == ((10, 10), (90, 90))
        rows = {row.info.name: row.latency.by_length for row in summary.rows if row.latency}
        speeds = {
            name: [(at.least, at.tokens, at.speed and round(at.speed.estimate, 6)) for at in ranges]
            for name, ranges in rows.items()
        }
        assert speeds == {
            REFERENCE: [(10, 10, None), (90, 90, None)],
            "onnx-int8-cpu": [(10, 10, 2), (90, 90, 0.5)],
            "onnx-fp32-cpu": [(10, 10, 1), (90, 90, None)],
        }

    def test_memory_that_grows_is_distinguished_from_memory_that_jumps(self) -> None:
        record = replace(make_record(), singles=(), bulks=(), grids=())

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

    def test_of_equally_long_texts_all_count_and_few_tell_nothing(self) -> None:
        seconds = [i / 100 for i in range(1, 201)]
        random.Random(0).shuffle(seconds)
        assert expected_percentile([512] * 200, seconds, [512, 512], 0.95) == pytest.approx(1.9, abs=0.011)
        assert expected_percentile([512] * 20, seconds[:20], [512], 0.95) is None
