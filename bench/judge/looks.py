"""After which restarts a benchmark may end early, and how wide that makes its intervals. Pure functions.

Whoever looks at a result again and again, and ends when an interval leaves out what it should leave out, is wrong more
often than one interval is. So the looks are few and fixed beforehand, and the confidence is divided among them: by
Bonferroni's inequality the intervals of all looks hold together with what a single one would hold with, however many
looks there were in the end and whatever ended it.

Source: Pocock 1977, "Group sequential methods in the design and analysis of clinical trials", Biometrika 64, for looks
at equal confidence; with Bonferroni's bound in place of his constants, which suppose that deviations are known.
"""

from __future__ import annotations

from bench.config import LEAST_PAIRS, BenchConfig

SPEED_CONFIDENCE = 0.99
"""With which the intervals of one speed hold, at all looks together."""


def looks_of(config: BenchConfig) -> tuple[int, ...]:
    """Return after how many restarts a benchmark looks whether to end; after none without a budget of time."""
    if config.budget_minutes is None:
        return ()
    return tuple(range(2 * LEAST_PAIRS, config.restarts, 2))


def confidence_of(config: BenchConfig) -> float:
    """Return the confidence of each interval of a speed; the last restart is one more look."""
    return 1 - (1 - SPEED_CONFIDENCE) / (1 + len(looks_of(config)))
