"""What is timed, drawn and chosen while measuring: each part of a call, batchings, orders."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_worker import LocalWorker

from bench.measure.calls import MAX_WARMUP, Call, batch_time, best_batchings, rounds, timed, try_batchings, warm_up
from bench.measure.draws import deal, spread_out, start_order
from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching, Engine, ModelEngine
from trainer.tasks import SingleLabel
from trainer.text.encoding import Encoded, Encoder


class FakeModel:
    """Answers class 1, in a time that the test decides by moving the clock."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.now = encoder, 0.0

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> np.ndarray:
        self.now += 0.25 * sum(len(e) for e in batch) if length is None else length
        return np.float32([[0, 1]] * len(batch))


class Opaque:
    """Answers class 1; nobody looks inside. Batches of two texts are the fastest."""

    model = None
    batchings = (ONE_BY_ONE, Batching(texts=2), Batching(texts=3))

    def logits(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> np.ndarray:
        time.sleep(0.002 if batching == Batching(texts=2) else 0.02)
        return np.float32([[0, 1]] * len(texts))


def here(name: str, engine: Engine) -> LocalWorker:
    return LocalWorker(name, lambda: engine, 1)


class TestMeasuring:
    @pytest.fixture
    def model(self, checkpoint: Path) -> FakeModel:
        return FakeModel(Encoder.load(checkpoint, 24, "head", 0))

    def test_a_call_is_split_into_tokenising_running_and_the_rest(self, model: FakeModel) -> None:
        def clock() -> float:
            model.now += 0.5
            return model.now

        call = timed(ModelEngine(model), "soup bread", SingleLabel(2), clock)
        assert (call.tokenise_s, call.run_s, call.total_s) == (0.5, 0.25 * 4 + 0.5, 2.5)
        assert call.probabilities == pytest.approx(SingleLabel(2).probabilities(np.float32([[0, 1]]))[0])

    def test_an_opaque_engine_is_timed_as_a_whole(self) -> None:
        call = timed(Opaque(), "soup", SingleLabel(2))
        assert (call.tokenise_s, call.run_s) == (None, None)
        assert call.total_s >= 0.02

    def test_the_grid_times_the_model_alone_at_exactly_that_length(self, model: FakeModel) -> None:
        assert batch_time(ModelEngine(model), "soup bread", 3, 17, lambda: model.now) == 17

    def test_warming_up_ends_when_the_times_of_all_are_steady(self) -> None:
        class Cooling:
            def __init__(self, steady_after: int) -> None:
                self.calls, self.steady_after = 0, steady_after

            def call(self, *_: object) -> Call:
                self.calls += 1
                seconds = 1.1 ** max(0, self.steady_after - self.calls)
                return Call(seconds, None, None, ())

        def calls(*steady_after: int) -> int:
            return warm_up({str(n): Cooling(n) for n in steady_after}, "x", SingleLabel(2), random.Random(0))

        assert calls(0, 0) == 10
        assert calls(0, 12) == 20
        assert calls(60, 0) == MAX_WARMUP

        def beside_others(call_s: float, most_s: float = 20.0) -> int:
            engine = Cooling(60)
            workers, rng = {"x": engine}, random.Random(0)
            return warm_up(workers, "x", SingleLabel(2), rng, most_s, lambda: call_s * engine.calls)

        assert [beside_others(seconds) for seconds in (1.0, 2.0, 100.0)] == [20, 10, 5]
        assert beside_others(1.0, 8.0) == 10

    def test_the_fastest_batching_is_chosen_and_all_trials_are_kept(self) -> None:
        trials = try_batchings({"x": here("x", Opaque())}, {"x": ["soup"] * 3}, random.Random(0))
        assert sorted((t.batching, t.texts, len(t.seconds)) for t in trials) == [
            ("batches of 2 texts", 3, 3), ("batches of 3 texts", 3, 1), ("one by one", 3, 1)
        ]  # fmt: skip
        assert best_batchings(trials) == {"x": "batches of 2 texts"}
        clock = iter([0.0, 5.1]).__next__
        late = try_batchings({"x": here("x", Opaque())}, {"x": ["soup"] * 3}, random.Random(0), 5.0, clock)
        assert [len(t.seconds) for t in late] == [1, 1, 1]

    def test_every_second_restart_starts_in_the_opposite_order(self) -> None:
        orders = [start_order("abcd", restart, 0) for restart in range(10)]
        assert all(sorted(order) == list("abcd") for order in orders)
        for restart, order in enumerate(orders):  # an engine that is dropped leaves the others where they were
            assert start_order("abd", restart, 0) == [name for name in order if name != "c"]
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

    def test_all_are_asked_the_same_in_interleaved_rounds(self) -> None:
        asked: list[tuple[str, int]] = []

        def ask(name: str, task: int) -> int:
            asked.append((name, task))
            return 10 * task

        workers = {name: here(name, name) for name in "abc"}
        answers = rounds(workers, [(i,) for i in range(8)], ask, random.Random(0))
        assert answers == {name: [10 * i for i in range(8)] for name in "abc"}
        in_turns = [asked[i : i + 3] for i in range(0, len(asked), 3)]
        assert all({name for name, _ in turn} == set("abc") and len({t for _, t in turn}) == 1 for turn in in_turns)
        assert len({tuple(name for name, _ in turn) for turn in in_turns}) > 2
