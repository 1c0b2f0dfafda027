"""How long each backend takes, asked in rounds: the same reviews to all, in random order, so that drift hits all."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from bench.results import Timing


class Timed(Protocol):
    """Something that can be asked how long it takes."""

    def time(self, texts: Sequence[str]) -> float:
        """Return the seconds it takes for `texts` as one batch."""


def draw_batches(texts: Sequence[str], batch_size: int, calls: int, seed: int) -> list[list[str]]:
    """Draw `calls` batches of reviews at random; a review comes twice only when all have been drawn."""
    rng = random.Random(seed)
    drawn: list[str] = []
    while len(drawn) < calls * batch_size:
        drawn += rng.sample(list(texts), len(texts))
    return [drawn[i * batch_size : (i + 1) * batch_size] for i in range(calls)]


def time_backends(
    backends: Mapping[str, Timed], texts: Sequence[str], *, batch_size: int, calls: int, warmup: int, seed: int
) -> list[Timing]:
    """Time every backend on the same batches.

    Args:
        backends: what to time, by name.
        texts: real reviews to draw from.
        batch_size: reviews a call.
        calls: timed calls of each backend.
        warmup: calls of each backend before, not counted.
        seed: decides the reviews and the order of the backends in each round.

    Returns:
        One timing a backend; sample i of each is the same batch in the same round.
    """
    rng = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in backends}
    for number, batch in enumerate(draw_batches(texts, batch_size, warmup + calls, seed)):
        for name in rng.sample(list(backends), len(backends)):
            seconds = backends[name].time(batch)
            if number >= warmup:
                samples[name].append(seconds)
    return [Timing(name, batch_size, tuple(taken)) for name, taken in samples.items()]
