"""Timing is interleaved and paired, and its statistics are what they say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.proof.timing import Spread, draw_batches, speed_ratio, spread, time_interleaved


def test_quartiles_by_hand() -> None:
    assert spread([4, 1, 3, 2, 5]) == Spread(2, 3, 4)
    assert spread([1, 2]) == Spread(1.25, 1.5, 1.75)
    with pytest.raises(ValueError, match="no samples"):
        spread([])


@given(st.lists(st.floats(1e-6, 1e3), min_size=1))
def test_an_engine_is_as_fast_as_itself(samples: list[float]) -> None:
    assert speed_ratio(samples, samples) == Spread(1, 1, 1)


def test_speed_is_compared_call_by_call() -> None:
    # The machine slows down tenfold after two calls: the candidate is twice as fast all the same.
    assert speed_ratio([2, 2, 20, 20], [1, 1, 10, 10]) == Spread(2, 2, 2)
    with pytest.raises(ValueError, match="zip"):
        speed_ratio([1, 2], [1])


def test_all_get_the_same_texts_in_interleaved_rounds_and_warm_up_is_not_counted() -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def time(self, texts: Sequence[str]) -> float:
            asked.append((self.name, tuple(texts)))
            return float(len(asked))

    names = ["a", "b", "c"]
    texts = [str(i) for i in range(50)]
    samples = time_interleaved({n: Fake(n).time for n in names}, texts, batch_size=2, calls=10, warmup=3, seed=1)
    assert {name: len(taken) for name, taken in samples.items()} == dict.fromkeys(names, 10)
    rounds = [asked[i : i + 3] for i in range(0, len(asked), 3)]
    assert len(rounds) == 13
    assert all({name for name, _ in r} == set(names) and len({texts for _, texts in r}) == 1 for r in rounds)
    assert len({tuple(name for name, _ in r) for r in rounds}) > 2  # the order changes
    assert min(map(min, samples.values())) > 9  # the first three rounds are gone


@given(count=st.integers(1, 20), batch_size=st.integers(1, 8), calls=st.integers(1, 20))
def test_texts_repeat_only_when_all_were_drawn(count: int, batch_size: int, calls: int) -> None:
    drawn = draw_batches([str(i) for i in range(count)], batch_size, calls, seed=0)
    assert [len(batch) for batch in drawn] == [batch_size] * calls
    flat = [text for batch in drawn for text in batch]
    for first in range(0, len(flat), count):
        part = flat[first : first + count]
        assert len(set(part)) == len(part)
