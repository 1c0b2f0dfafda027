"""How fast engines are beside one another: asked in rounds, so that a drift of the machine hits all."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.text.texts import Text

Time = Callable[[Sequence[Text]], float]
"""Returns the seconds that an engine takes for texts as one batch."""


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles, in the unit of the samples."""

    low: float
    median: float
    high: float


def spread(samples: Sequence[float]) -> Spread:
    """Return the quartiles of `samples`, linearly interpolated.

    Raises:
        ValueError: there are none.
    """
    if not samples:
        raise ValueError("no samples")
    low, median, high = np.percentile(samples, [25, 50, 75])
    return Spread(float(low), float(median), float(high))


def speed_ratio(baseline_s: Sequence[float], candidate_s: Sequence[float]) -> Spread:
    """Return how many times faster the candidate was, call by call.

    Args:
        baseline_s: seconds of each call.
        candidate_s: seconds for the same work in the same round, so that a drift of the machine hits both.

    Raises:
        ValueError: the two do not pair up.
    """
    return spread([before / after for before, after in zip(baseline_s, candidate_s, strict=True)])


def draw_batches(texts: Sequence[Text], batch_size: int, calls: int, seed: int) -> list[list[Text]]:
    """Draw `calls` batches of texts at random; a text comes twice only when all have been drawn."""
    rng = random.Random(seed)
    drawn: list[Text] = []
    while len(drawn) < calls * batch_size:
        drawn += rng.sample(list(texts), len(texts))
    return [drawn[i * batch_size : (i + 1) * batch_size] for i in range(calls)]


def time_interleaved(
    engines: Mapping[str, Time], texts: Sequence[Text], *, batch_size: int, calls: int, warmup: int, seed: int
) -> dict[str, tuple[float, ...]]:
    """Time every engine on the same batches.

    Args:
        engines: what to time, by name.
        texts: real texts to draw from.
        batch_size: texts a call.
        calls: timed calls of each engine.
        warmup: calls of each engine before, not counted.
        seed: decides the texts and the order of the engines in each round.

    Returns:
        The seconds of each call, by name; sample i of each is the same batch in the same round.
    """
    rng = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in engines}
    for number, batch in enumerate(draw_batches(texts, batch_size, warmup + calls, seed)):
        for name in rng.sample(list(engines), len(engines)):
            seconds = engines[name](batch)
            if number >= warmup:
                samples[name].append(seconds)
    return {name: tuple(seconds) for name, seconds in samples.items()}
