"""When a benchmark ends: by its restarts, by its time, or as all is told apart; and that its intervals allow for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from bench_records import RESTARTS, make_record, with_restarts
from hypothesis import given
from hypothesis import strategies as st
from local_worker import LOCAL, Alone

from bench.config import BenchConfig
from bench.judge.looks import SPEED_CONFIDENCE, confidence_of, looks_of
from bench.judge.speed import speed_of, within_reach
from bench.judge.stats import verdict
from bench.judge.summarise import summarise
from bench.measure.progress import Progress
from bench.pace import Pace
from bench.report.tables import markdown
from bench.results import BenchRecord
from bench.run import bench
from trainer.records import read_record
from trainer.run import RunDir

FLOOR = 0.02


def budgeted(restarts: int = RESTARTS, minutes: float | None = 60) -> BenchConfig:
    return BenchConfig(restarts=restarts, budget_minutes=minutes)


@lru_cache
def told_apart_after(count: int) -> BenchRecord:
    record = replace(make_record(), config=budgeted(), batching_trials=(), grids=(), soaks=())
    return with_restarts(count, record)


@lru_cache
def undecided_after(count: int) -> BenchRecord:
    """As it is where one engine is as fast as the reference."""
    record = told_apart_after(count)
    same = {(s.restart): s for s in record.singles if s.engine == record.reference}
    singles = (replace(same[s.restart], engine=s.engine) if s.engine == "onnx-fp32-cpu" else s for s in record.singles)
    return replace(record, singles=tuple(singles))


class TestWhenItEnds:
    def ends(self, config: BenchConfig, record: Callable[[int], BenchRecord], restart_s: float) -> tuple[int, str]:
        """Return after how many restarts of so many seconds a benchmark ends, and why."""
        now = [0.0]
        pace = Pace(config, lambda: now[0])
        now[0] += 30
        pace.begin_restarts()
        for number in range(1, config.restarts + 1):
            assert pace.share <= number / config.restarts or config.budget_minutes
            now[0] += restart_s
            if end := pace.end(record(number)):
                return number, end
        pytest.fail("it never ends")

    def test_without_a_budget_it_has_all_its_restarts(self) -> None:
        assert self.ends(budgeted(minutes=None), told_apart_after, 1e6) == (RESTARTS, "restarts")

    def test_no_restart_begins_that_would_end_too_late(self) -> None:
        assert self.ends(budgeted(), undecided_after, 1.0) == (RESTARTS, "restarts")
        assert self.ends(budgeted(minutes=10.5), undecided_after, 120) == (5, "time")
        assert self.ends(budgeted(minutes=10.4), undecided_after, 120) == (4, "time")
        assert self.ends(budgeted(minutes=0.1), undecided_after, 120) == (1, "time")

    def test_it_looks_after_whole_pairs_and_ends_where_all_is_told_apart(self) -> None:
        assert looks_of(budgeted()) == (6, 8)
        assert self.ends(budgeted(), told_apart_after, 1.0) == (6, "told apart")
        assert self.ends(budgeted(6), told_apart_after, 1.0) == (6, "restarts")

    def test_the_first_restart_has_more_to_do_and_says_little_of_the_others(self) -> None:
        now = [0.0]
        pace = Pace(budgeted(minutes=4.9), lambda: now[0])
        pace.begin_restarts()
        ends = []
        for seconds in (140, 40, 40, 40):
            now[0] += seconds
            ends.append(pace.end(undecided_after(1)))
        assert ends == [None, None, None, "time"]
        assert pace.share == pytest.approx(260 / 294)

    def test_what_only_the_first_restart_does_is_not_expected_of_the_second(self) -> None:
        for once_s, end in ((0.0, "time"), (100.0, None)):
            now = [0.0]
            pace = Pace(budgeted(minutes=4), lambda now=now: now[0])
            pace.begin_restarts()
            now[0] += 150
            assert pace.end(undecided_after(1), once_s) == end

    def test_speeds_beside_too_much_company_tell_nothing_apart(self) -> None:
        from test_bench_company import company

        assert summarise(told_apart_after(6)).recommendation.is_told_apart
        crowded = replace(told_apart_after(6), companies=(company(0, 20.0),))
        assert not summarise(crowded).recommendation.is_told_apart

    def test_the_report_says_what_it_allows_for(self) -> None:
        record = replace(told_apart_after(6), ended_by="told apart", evaluation_texts=2000)
        text = markdown(summarise(record))
        assert "It ended after 6 of at most 10 restarts, since all that can be shipped was told apart." in text
        assert "with 99.67 % each, intervals hold with 99 % whenever it ends" in text
        assert "with a 99.67 % interval" in text
        assert "all 2,000 evaluation texts" in text
        late = markdown(summarise(replace(record, ended_by="time", evaluation_texts=2100)))
        assert "2,000 of 2,100 evaluation texts, for the others there was no time" in late
        plain = markdown(summarise(replace(record, ended_by="restarts", config=budgeted(minutes=None))))
        assert "with a 99 % interval" in plain
        assert "ended" not in plain


class TestItsIntervals:
    @given(st.integers(1, 20).map(lambda n: n if n < 6 else n + n % 2), st.booleans())
    def test_the_confidences_of_all_looks_add_up(self, restarts: int, has_budget: bool) -> None:
        config = budgeted(restarts, 5 if has_budget else None)
        looks = {*looks_of(config), restarts}
        assert len(looks) * (1 - confidence_of(config)) == pytest.approx(1 - SPEED_CONFIDENCE)

    @pytest.mark.parametrize("true", [np.log(1 + FLOOR), 0.0, 0.05])
    def test_they_hold_the_truth_as_often_as_they_say_although_they_decide_when_to_end(self, true: float) -> None:
        """20,000 benchmarks of at most 16 restarts, whose pairs differ by 3 %, and end when a verdict is reached.

        At the edge of the noise, intervals of 99 % would miss the truth more than twice as often as they say.
        """
        config = budgeted(16)
        logs = true + np.random.default_rng(0).normal(size=(20_000, 8)) * 0.03
        missed = {conf: missed_by(logs, true, conf) for conf in (SPEED_CONFIDENCE, confidence_of(config))}
        assert missed[confidence_of(config)] <= 1 - SPEED_CONFIDENCE
        assert (missed[SPEED_CONFIDENCE] > 0.019) == (true == np.log(1 + FLOOR))

    def test_the_simulation_has_the_benchmarks_own_intervals(self) -> None:
        """Both restarts of a pair have the pair's ratio here, in a round each."""
        logs = np.random.default_rng(1).normal(size=(4,)) * 0.03
        confidence = confidence_of(budgeted(16))
        baseline = {i: [float(np.exp(logs[i // 2]))] for i in range(8)}
        interval = speed_of(baseline, {i: [1.0] for i in range(8)}, confidence)
        assert interval
        middle, reach = student(logs[None], confidence)
        assert np.log([interval.low, interval.high]) == pytest.approx([(middle - reach)[0], (middle + reach)[0]])
        assert within_reach(interval) == interval
        assert verdict(interval, FLOOR) == "cannot tell"


def student(logs: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle and the reach of Student's interval of each row."""
    from scipy.stats import t

    count = logs.shape[1]
    reach = t.ppf((1 + confidence) / 2, count - 1) * logs.std(axis=1, ddof=1) / np.sqrt(count)
    return logs.mean(axis=1), reach


def missed_by(logs: np.ndarray, true: float, confidence: float) -> float:
    """Return how often the interval misses the truth in which a benchmark ends, [benchmarks, pairs]."""
    is_running, missed, floor = np.ones(len(logs), dtype=bool), 0, np.log(1 + FLOOR)
    for count in range(3, logs.shape[1] + 1):
        middle, reach = student(logs[:, :count], confidence)
        ends = is_running & ((np.abs(middle) - reach > floor) | (count == logs.shape[1]))
        missed += int((np.abs(middle - true) > reach)[ends].sum())
        is_running &= ~ends
    return missed / len(logs)


def test_a_whole_benchmark_keeps_to_its_time(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    """By a clock that goes three minutes with each restart."""
    run, now = copy_of(exported), [0.0]

    def watch(threads: int) -> Alone:
        now[0] += 180
        return Alone(threads)

    engines = ("onnx-fp32-cpu", "onnx-int8-cpu")
    config = BenchConfig(
        run.path, engines=engines, restarts=10, budget_minutes=12, calls=2, grid_calls=0, soak_calls=3, cold_starts=1
    )
    bench(config, replace(LOCAL, clock=lambda: now[0], watch=watch))
    record = read_record(Path(run.bench_record), BenchRecord)
    assert record.is_complete
    assert record.ended_by == "time"
    restarts = sorted({single.restart for single in record.singles})
    assert 1 < len(restarts) < 6
    assert [c.restart for c in record.companies] == restarts
    assert len(record.cold_starts) == len(record.soaks) == len(engines)
    assert len(record.labels) < record.evaluation_texts
    assert f"{len(record.labels)} of {record.evaluation_texts} evaluation texts" in run.bench_report.read_text()


def test_lines_of_progress_say_how_much_time_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with Progress(lambda: now[0]) as progress:
        progress.step("loading")
        now[0] = 60
        progress.done(0.2)
        progress.step("scoring")
        now[0] = 250
        progress.step("the rest")
    assert capsys.readouterr().err.split("\n") == [
        "loading", "scoring, about 4 min left", "the rest, about 50 s left", ""
    ]  # fmt: skip
