"""Which of several ways is the fastest: all take turns, and one that is told to be slower drops out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from exporter.bundle.artifact import EngineName
from exporter.engines.engine import MOST_TEXTS, ONE_BY_ONE, Batching, usual_batching
from exporter.engines.onnxruntime import GPU_BATCHING
from exporter.engines.plan import Trial, Way
from exporter.engines.spec import Device
from exporter.proof.timing import draw_batches, speed_ratio
from trainer.text.texts import Text

Score = Callable[[Sequence[Text], Way], object]
"""Scores texts in a way."""
Clock = Callable[[], float]

TOKENS = (256, 512, 1024, 2048)
"""In a call at most, beside one by one."""
GPU_TOKENS = (4096, 8192, 16_384, 32_768, 65_536)
"""The same on a GPU."""
ROUNDS = 15
SURE_ROUNDS = 3
"""From which on a way is taken for a median alone."""
MARGIN = 0.02
"""By this share a way's lower quartile has to be slower than the fastest's to drop out; by 1 / n² after few rounds."""
SHARE = 6
"""The first round of all ways takes about one part in so many of the time."""
TEXTS_A_STREAM = 8
MOST_TEXTS_A_ROUND = 256
GPU_TEXTS_A_ROUND = 1024
"""On a GPU, which takes hundreds in a call, and to which every new size of a call is slow once."""


def usual_way(threads: int, engine: EngineName = "onnxruntime", device: Device = "cpu") -> Way:
    """Return the way that is taken where nothing was measured."""
    return Way(usual_batching(threads) if device == "cpu" else GPU_BATCHING, engine)


def plain(usual: Way) -> Way:
    """Return the way that nothing may be slower than: one by one, with the engine that is taken without a plan."""
    return Way(ONE_BY_ONE, usual.engine)


def ways(threads: int, engines: Sequence[EngineName] = ("onnxruntime",), device: Device = "cpu") -> list[Way]:
    """Return the ways worth trying on so many threads with some engines, first the usual one of the first engine."""
    if device != "cpu":
        tried = [replace(GPU_BATCHING, tokens=tokens) for tokens in GPU_TOKENS]
        return list(dict.fromkeys([usual_way(threads, device=device), *map(Way, [ONE_BY_ONE, *tried])]))
    calls = [ONE_BY_ONE, *(Batching(texts=MOST_TEXTS, tokens=tokens) for tokens in TOKENS)]
    streams = sorted({1, min(2, threads), threads})
    all_ = [Way(replace(c, streams=s), engine) for engine in engines for s in streams for c in calls]
    return list(dict.fromkeys([usual_way(threads, engines[0]), *all_]))


def try_ways(
    tried: Sequence[Way],
    score: Score,
    texts: Sequence[Text],
    *,
    seconds: float,
    device: Device = "cpu",
    clock: Clock = time.perf_counter,
    seed: int = 0,
) -> tuple[int, tuple[Trial, ...]]:
    """Score the same texts in every way, round after round, until one is told apart or time is up.

    Args:
        tried: the ways.
        score: scores texts in one of them.
        texts: real texts to draw from.
        seconds: after which no other round begins.
        device: where.
        clock: tells the time, in seconds.
        seed: decides the texts and the order of the ways in each round.

    Returns:
        The number of texts in a round, and each way with its seconds.
    """
    rng, deadline = random.Random(seed), clock() + seconds
    left, taken = list(tried), dict[Way, tuple[float, ...]](dict.fromkeys(tried, ()))

    def timed(way: Way, batch: Sequence[Text]) -> float:
        start = clock()
        score(batch, way)
        return clock() - start

    smallest = TEXTS_A_STREAM * max(way.batching.streams for way in tried) if device == "cpu" else GPU_TEXTS_A_ROUND
    (first,) = draw_batches(texts, smallest, 1, seed)
    for way in tried:  # opens what it needs; not counted
        timed(way, first[: max(1, smallest // TEXTS_A_STREAM)] if device == "cpu" else first)
    a_text = timed(tried[0], first) / smallest
    affordable = int(seconds / SHARE / len(tried) / max(a_text, 1e-9))
    size = max(smallest, min(affordable, MOST_TEXTS_A_ROUND))
    for batch in draw_batches(texts, size, ROUNDS, seed):
        found: dict[Way, float] = {}
        for way in rng.sample(left, len(left)):
            if clock() < deadline:
                found[way] = timed(way, batch)
        if len(found) < len(left):  # time is up: a part of a round would compare nothing
            break
        taken |= {way: (*taken[way], took) for way, took in found.items()}
        fastest = _fastest({way: taken[way] for way in left})
        left = [way for way in left if not _is_slower(taken[way], taken[fastest])]
        if len(left) == 1:
            break
    return size, tuple(Trial(way, taken[way]) for way in tried)


def choose(trials: Sequence[Trial], usual: Way) -> Way:
    """Choose the fastest way, or the usual one where nothing was told to be faster.

    What was measured to be slower than one by one is never chosen.
    """
    rounds = max((len(trial.seconds) for trial in trials), default=0)
    left = {trial.way: trial.seconds for trial in trials if len(trial.seconds) == rounds}
    ratio = ratio_to(trials, usual, plain(usual))
    is_safe = usual in left and not (ratio is not None and ratio < 1 - MARGIN)
    if rounds == 0 or (is_safe and rounds < SURE_ROUNDS):
        return usual
    fastest = _fastest(left)
    return usual if is_safe and not _is_slower(left[usual], left[fastest]) else fastest


def ratio_to(trials: Sequence[Trial], way: Way, baseline: Way) -> float | None:
    """Return how many times faster a way was than another, by the median of the rounds that both were in."""
    seconds = {trial.way: trial.seconds for trial in trials}
    pairs = list(zip(seconds.get(baseline, ()), seconds.get(way, ()), strict=False))
    return median(before / after for before, after in pairs) if pairs else None


def _fastest(taken: Mapping[Way, Sequence[float]]) -> Way:
    """Return the way with the lowest median, each round's seconds being shares of what all took in it."""
    rounds = [sum(round_) for round_ in zip(*taken.values(), strict=True)]
    return min(taken, key=lambda way: median(s / all_ for s, all_ in zip(taken[way], rounds, strict=True)))


def _is_slower(seconds: Sequence[float], fastest: Sequence[float]) -> bool:
    """Tell whether a way is told to be slower than the fastest, in the rounds of both."""
    return speed_ratio(seconds, fastest).low > 1 + max(MARGIN, 1 / len(seconds) ** 2)
