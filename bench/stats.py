"""Statistics of raw samples. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence


def flips(labels: Sequence[int], before: Sequence[int], after: Sequence[int]) -> tuple[int, int]:
    """Count the answers that changed from right to wrong, and from wrong to right.

    Raises:
        ValueError: the three differ in length.
    """
    rows = list(zip(labels, before, after, strict=True))
    harmful = sum(old == truth != new for truth, old, new in rows)
    helpful = sum(old != truth == new for truth, old, new in rows)
    return harmful, helpful
