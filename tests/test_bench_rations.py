"""Under a budget of time each engine is asked about as long, not as often: what is left out, and that it is honest."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from local_worker import LOCAL, LocalWorker
from scipy.stats import t as student

from bench.config import BenchConfig
from bench.engines.table import ENGINES
from bench.judge.latency import by_round
from bench.judge.speed import speed_of
from bench.judge.summarise import summarise
from bench.measure.calls import rounds, soak
from bench.measure.draws import in_spread_order
from bench.measure.progress import Progress
from bench.measure.rations import BULK, LEAST_CALLS, SINGLES, Pilot, Ration, divide, ration
from bench.measure.restart import Restart
from bench.measure.samples import Samples
from bench.measure.workload import Workload
from bench.record import make_record
from bench.results import BatchingTrial
from exporter.engines.engine import ModelEngine, usual_batching
from trainer.run import RunDir
from trainer.tasks import SingleLabel

Array = npt.NDArray[np.float64]

costs_of = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(0.01, 100), st.sampled_from([0.5, 1, 2])))


class TestDividing:
    @given(costs_of.filter(bool), st.floats(0.01, 200))
    def test_all_time_is_given_and_none_that_nobody_needs(
        self, asked: dict[str, tuple[float, float]], most: float
    ) -> None:
        costs, weights = ({name: pair[i] for name, pair in asked.items()} for i in (0, 1))
        shares = divide(costs, weights, most)
        spent = {name: shares[name] * costs[name] for name in costs}
        assert sum(spent.values()) == pytest.approx(min(most, sum(costs.values())))
        assert all(0 < share <= 1 + 1e-9 for share in shares.values())
        short = {spent[name] / weights[name] for name in costs if shares[name] < 1 - 1e-9}
        assert not short or max(short) == pytest.approx(min(short))  # those that are cut get equal time by weight
        assert all(spent[name] / weights[name] <= max(short) * (1 + 1e-9) for name in costs if short)

    def test_where_there_is_time_everybody_is_asked_everything(self) -> None:
        pilots = {"fast": Pilot(0.001, 0.001, 1), "slow": Pilot(0.1, 0.05, 1)}
        assert ration(pilots, 64, 300, 1e3) == (Ration("fast"), Ration("slow"))

    def test_an_engine_far_behind_is_asked_less_and_never_nothing(self) -> None:
        pilots = {"fast": Pilot(0.001, 0.0002, 1), "slow": Pilot(0.1, 0.05, 1), "peer": Pilot(0.1, 0.05, 0.5)}
        fast, slow, peer = ration(pilots, 64, 300, 8.0)
        assert fast == Ration("fast")
        assert (slow.every, peer.every) == (4, 8)
        assert slow.share == pytest.approx(2 * peer.share)
        assert 300 * (0.0002 + 0.05 * (slow.share + peer.share)) == pytest.approx(BULK * 8)
        assert SINGLES * 8 == 4
        least = ration(pilots, 64, 300, 1e-6)
        assert {own.every for own in least} == {64 // LEAST_CALLS}
        assert {round(own.share * 300) for own in least} == {16}
        assert {own.every for own in ration(pilots, 5, 3, 1e-6)} == {1}

    @given(st.lists(st.integers(1, 512), min_size=1, max_size=200), st.integers(1, 200), st.integers(0, 9))
    def test_every_beginning_of_the_order_is_spread_over_all_sizes(
        self, sizes: list[int], count: int, seed: int
    ) -> None:
        order = in_spread_order(sizes, random.Random(seed))
        assert sorted(order) == list(range(len(sizes)))
        distinct = in_spread_order(range(len(sizes)), random.Random(seed))[:count]
        gaps = np.diff([*sorted(distinct), min(distinct) + len(sizes)])
        assert max(gaps) <= 4 * len(sizes) / min(count, len(sizes))


class TestAsking:
    def test_a_slower_engines_rounds_are_rounds_of_the_faster_ones(self) -> None:
        workers = {name: LocalWorker(name, lambda: None, 1) for name in "abc"}
        tasks = [(i,) for i in range(10)]
        asked = rounds(workers, tasks, lambda _, i: i, random.Random(0), {"b": 2, "c": 4})
        assert asked == {"a": list(range(10)), "b": [0, 2, 4, 6, 8], "c": [0, 4, 8]}

    def test_only_rounds_that_both_were_asked_in_are_compared(self) -> None:
        base = {n: [1.0, 9.0, 2.0, 9.0] for n in range(3)}
        half = {n: by_round([0.5, 1.0], 2) for n in range(3)}
        assert half[0] == [0.5, None, 1.0, None]
        found = speed_of(base, half)
        assert found
        assert (found.low, found.estimate, found.high) == pytest.approx((2, 2, 2))
        assert speed_of({0: [None, 1.0]}, {0: [1.0, None]}) is None

    def test_a_soak_ends_when_its_time_is_up(self) -> None:
        class Quiet:
            model = None

            def logits(self, texts: Any, _: Any) -> Any:
                return np.zeros((len(texts), 2), dtype=np.float32)

        ticks = iter(range(100))
        assert len(soak(Quiet(), ["a"] * 50, SingleLabel(2), 5, lambda: float(next(ticks)))) in (0, 5)  # 0: not known

    def test_a_restart_asks_each_engine_its_ration_and_the_record_pairs_what_both_were_asked(
        self, exported: RunDir, copy_of: Callable[[RunDir], RunDir], tmp_path: Path
    ) -> None:
        names = ("pytorch-fp32-cpu", "onnx-fp32-cpu", "adapter-fp32-cpu")
        engines = [spec for spec in ENGINES if spec.name in names]
        quick: dict[str, Any] = {"calls": 8, "grid_calls": 0, "soak_calls": 0, "cold_starts": 0}
        threads = torch.get_num_threads()
        config = BenchConfig(copy_of(exported).path, names, restarts=6, budget_minutes=9, threads=threads, **quick)
        workload, prepared = Workload.read(config), dict.fromkeys(names, tmp_path)
        rations = (Ration("pytorch-fp32-cpu", 2, 0.5), Ration("adapter-fp32-cpu", 4, 0.34))
        samples = Samples(rations=rations, batching_trials=tuple(BatchingTrial(n, ways(n), 1, (1.0,)) for n in names))
        samples = samples.plus(Restart(workload, engines, 0, samples, prepared, LOCAL, Progress(), 500.0).measure())
        assert {(s.engine, s.every, len(s.total_s), len(s.tokens)) for s in samples.singles} == {
            ("pytorch-fp32-cpu", 2, 4, 4),
            ("pytorch-fp32-cpu (again)", 2, 4, 4),
            ("onnx-fp32-cpu", 1, 8, 8),
            ("adapter-fp32-cpu", 4, 2, 2),
        }
        whole = len(workload.shares[0])
        texts = {b.engine: b.texts[0] for b in samples.bulks}
        assert texts == {
            "onnx-fp32-cpu": whole,
            "pytorch-fp32-cpu": -(-whole // 2),
            "pytorch-fp32-cpu (again)": -(-whole // 2),
            "adapter-fp32-cpu": -(-whole * 34 // 100),
        }
        record = make_record(workload, samples, engines, machine=None, prepared=prepared, skipped=())
        assert len(record.labels) == texts["adapter-fp32-cpu"]  # scored by all
        rows = {row.info.name: row for row in summarise(record).rows}
        for name in names[1:]:
            assert rows[name].latency
            assert rows[name].throughput


def ways(name: str) -> str:
    return usual_batching(torch.get_num_threads()).name if name.startswith("onnx") else ModelEngine.batchings[0].name


RUNS, RESTARTS, CALLS, TRUE = 10_000, 6, 64, 0.03


@lru_cache
def log_ratios() -> tuple[Array, Array]:
    """Simulate benchmarks of three pairs of restarts, whose processes differ by 1.5 % and calls by 10 %.

    Returns:
        The log ratio of each call, [benchmarks, restarts, calls], and the mean of five that do not count but were made
        by the first process as well.
    """
    rng = np.random.default_rng(0)
    own = TRUE + rng.normal(size=(RUNS, RESTARTS, 1)) * 0.015
    pilots = own[:, 0] + rng.normal(size=(RUNS, 5)) * 0.1
    return own + rng.normal(size=(RUNS, RESTARTS, CALLS)) * 0.1, pilots.mean(axis=1)


def missed(estimates: Array) -> float:
    """Return how often Student's interval of 99 % over the pairs misses the truth, [benchmarks, restarts]."""
    pairs = estimates.reshape(RUNS, -1, 2).mean(axis=2)
    reach = student.ppf(0.995, pairs.shape[1] - 1) * pairs.std(axis=1, ddof=1) / np.sqrt(pairs.shape[1])
    return float((np.abs(pairs.mean(axis=1) - TRUE) > reach).mean())


def every_of(log_ratio: float) -> int:
    """Return how often an engine is asked whose pilots showed this ratio: far more sensitive to it than any is."""
    single_s = 0.018 * float(np.exp(20 * (TRUE - log_ratio)))
    return ration({"x": Pilot(single_s, 0.001, 1)}, CALLS, 100, 1.0)[0].every


def test_rations_by_a_pilot_leave_the_intervals_their_confidence() -> None:
    """Chance alone decides here how often an engine is asked."""
    calls, pilots = log_ratios()
    every = np.array([every_of(pilot) for pilot in pilots])
    assert all(np.mean(every == n) > 0.1 for n in (1, 2, 4))
    cases = (1, 2, 4, 8)
    medians = [np.median(calls[:, :, ::n], axis=2) for n in cases]
    asked = np.select([every[:, None] == n for n in cases], medians)
    assert missed(asked) <= 0.0125  # 1 %, and what so many draws leave open
    assert abs(asked.mean() - TRUE) < 4e-4


def test_asking_until_the_answer_pleases_would_not() -> None:
    """If what counts decided: a restart that goes on until the engine looks faster, or its calls are over."""
    calls, _ = log_ratios()
    medians = np.stack([np.median(calls[:, :, :n], axis=2) for n in (8, 16, 32, 64)])
    pleases = medians > np.log(1.05)
    asked = np.take_along_axis(medians, np.where(pleases.any(axis=0), pleases.argmax(axis=0), 3)[None], axis=0)[0]
    assert asked.mean() > TRUE + 0.005
    assert missed(asked) > 0.0125
