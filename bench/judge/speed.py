"""How much faster one engine is than another, over all restarts. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bench.config import LEAST_PAIRS, LEAST_RESTARTS
from bench.judge.interval import Interval, Speed
from bench.judge.looks import SPEED_CONFIDENCE
from bench.judge.stats import Rounds, noise_floor, speed_ratio_interval, verdict
from bench.judge.summary import Noise

ByRestart = Mapping[int, Sequence[float | None]]
"""The seconds of each round, by restart; None where an engine was not asked in a round."""
MOST_REACH = 100
"""How many times the estimate an interval may reach to; one that reaches farther says nothing."""


def compare_with_reference(
    seconds: Mapping[str, ByRestart],
    reference: str,
    second_process: str | None,
    confidence: float = SPEED_CONFIDENCE,
    *,
    is_crowded: bool = False,
) -> tuple[dict[str, Speed], Noise]:
    """Compare every engine with the reference, and measure the noise with the reference's second process, `second`.

    Each interval has a `confidence`. Where it was crowded, no difference counts as more than noise.

    Returns:
        The speed of each engine that shares a restart with the reference, and the noise.
    """
    baseline = seconds.get(reference, {})
    ratios = {name: ratio for name, own in seconds.items() if (ratio := speed_of(baseline, own, confidence))}
    second = ratios.pop(second_process or "", None)
    noise = Noise(noise_floor(second), second)
    floor = math.inf if is_crowded else noise.floor
    speeds = {
        name: with_verdict(ratio if name == reference else widen(ratio, second), floor)
        for name, ratio in ratios.items()
    }
    return speeds, noise


def speed_of(baseline: ByRestart, candidate: ByRestart, confidence: float = SPEED_CONFIDENCE) -> Interval | None:
    """Return how many times faster the candidate is, with an interval that a rerun of the benchmark agrees with.

    Two restarts that start the processes in opposite orders form a pair: what a process loses by starting before
    another, it gains back in the other restart. From three pairs on, the interval is computed over pairs, and a restart
    without its partner is left out; below that, over single restarts. Two do not show how much restarts differ: there
    the interval holds everything, as where restarts differ beyond all measure. Both sides did the same work in the same
    rounds; one in which only one of them was asked does not count.

    Returns:
        None where the two share no restart.
    """
    numbers = sorted(baseline.keys() & candidate.keys())
    shared = {number: both for number in numbers if (both := _shared(baseline[number], candidate[number]))}
    common = list(shared)
    pairs = [(number, number + 1) for number in common if number % 2 == 0 and number + 1 in common]
    units = pairs if len(pairs) >= LEAST_PAIRS else [(number,) for number in common]
    if not units:
        return None
    before = [[s for number in unit for s in shared[number][0]] for unit in units]
    after = [_level(*zip(*(shared[number] for number in unit), strict=True)) for unit in units]
    ratio = speed_ratio_interval(before, after, confidence=confidence)
    return within_reach(ratio) if len(units) >= LEAST_RESTARTS else without_bounds(ratio.estimate)


def within_reach(ratio: Interval) -> Interval:
    """Return a ratio as it is, or without bounds where they are so far apart that they say nothing."""
    return ratio if ratio.low > 0 and ratio.high <= MOST_REACH * ratio.estimate else without_bounds(ratio.estimate)


def without_bounds(estimate: float) -> Interval:
    """Return a ratio of which it is not known how sure it is."""
    return Interval(0.0, estimate, math.inf)


def widen(speed: Interval, second: Interval | None) -> Interval:
    """Widen the interval of a speed to what the noise of the reference alone allows.

    A comparison of the reference with itself has its noise twice; one with another engine has it once, and the other's.
    Five pairs may agree by luck, and what they say of all engines counts for more than what they say of one.
    """
    if second is None or second.bounds is None or speed.bounds is None:
        return speed
    reach = math.log(second.high / second.low) / 2 / math.sqrt(2)
    low, high = speed.estimate * math.exp(-reach), speed.estimate * math.exp(reach)
    return Interval(min(speed.low, low), speed.estimate, max(speed.high, high))


def with_verdict(ratio: Interval, floor: float) -> Speed:
    """Say of a ratio whether it is more than noise."""
    return Speed(ratio.low, ratio.estimate, ratio.high, verdict(ratio, floor))


def _shared(
    baseline: Sequence[float | None], candidate: Sequence[float | None]
) -> tuple[list[float], list[float]] | None:
    """Return the seconds of both in the rounds in which both were asked, None where there is none."""
    both = [(b, c) for b, c in zip(baseline, candidate, strict=False) if b is not None and c is not None]
    return ([b for b, _ in both], [c for _, c in both]) if both else None


def _level(baseline: Rounds, candidate: Rounds) -> list[float]:
    """Return the candidate's seconds, with the restarts' medians of the ratio moved to their mean.

    Otherwise the median of two groups that lie apart would be any value between them.
    """
    logs = [np.log(after) - np.log(before) for before, after in zip(baseline, candidate, strict=True)]
    medians = [np.median(ratios) for ratios in logs]
    factors = [float(np.exp(np.mean(medians) - own)) for own in medians]
    return [factor * seconds for factor, after in zip(factors, candidate, strict=True) for seconds in after]
