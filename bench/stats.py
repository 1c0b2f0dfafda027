"""Statistics of raw samples. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def flips(labels: Sequence[int], before: Sequence[int], after: Sequence[int]) -> tuple[int, int]:
    """Count the answers that changed from right to wrong, and from wrong to right.

    Raises:
        ValueError: the three differ in length.
    """
    rows = list(zip(labels, before, after, strict=True))
    harmful = sum(old == truth != new for truth, old, new in rows)
    helpful = sum(old != truth == new for truth, old, new in rows)
    return harmful, helpful
