"""How much each engine is asked where time is short: settled once, by calls that do not count. Pure functions.

Each gets about as much time, instead of as many texts: one that takes ten times as long would otherwise take most of
it, and its interval be told apart long before. Those that can be recommended, and the reference, get twice the time of
the others. How often an engine was asked says nothing of how fast it is: see `docs/method.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SINGLES, BULK, GRID = 0.5, 0.35, 0.15
"""Of the time for measuring: calls with one text, bulk scoring, and the grid."""
LEAST_CALLS, LEAST_TEXTS = 8, 16
"""That every engine is asked in a restart."""


@dataclass(frozen=True)
class Ration:
    """What one engine is asked in each restart."""

    engine: str
    every: int = 1
    """It takes part in every so manieth round of calls with one text."""
    share: float = 1.0
    """Of the texts that the restart scores in bulk."""


@dataclass(frozen=True)
class Pilot:
    """What an engine took before anything counted."""

    single_s: float
    """For one text."""
    text_s: float
    """For each text in bulk."""
    weight: float
    """How much time it gets, in relation to others."""


def ration(pilots: Mapping[str, Pilot], calls: int, texts: int, most_s: float) -> tuple[Ration, ...]:
    """Divide the time for measuring.

    Args:
        pilots: of each engine.
        calls: with one text, that each would make if there were time.
        texts: that each would score.
        most_s: seconds for all engines together.
    """
    weights = {name: pilot.weight for name, pilot in pilots.items()}
    single = divide({name: calls * pilot.single_s for name, pilot in pilots.items()}, weights, SINGLES * most_s)
    bulk = divide({name: texts * pilot.text_s for name, pilot in pilots.items()}, weights, BULK * most_s)
    least = min(1.0, LEAST_TEXTS / texts)
    return tuple(Ration(name, _every(single[name], calls), max(bulk[name], least)) for name in pilots)


def divide(costs: Mapping[str, float], weights: Mapping[str, float], most: float) -> dict[str, float]:
    """Return which share of its costs each can spend, so that together they spend `most`, or all that they need.

    Whoever needs less than its part by weight leaves the rest to the others.
    """
    shares, left, waiting = {}, most, sum(weights[name] for name in costs)
    for name in sorted(costs, key=lambda name: costs[name] / weights[name]):
        spent = min(costs[name], left * weights[name] / waiting)
        shares[name] = spent / costs[name]
        left, waiting = left - spent, waiting - weights[name]
    return shares


def _every(share: float, calls: int) -> int:
    """Return a power of two: so each round of a slower engine is one of every faster engine, too."""
    every = 1
    while every * share < 1 and 2 * every * LEAST_CALLS <= calls:
        every *= 2
    return every
