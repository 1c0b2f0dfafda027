"""An estimate with its confidence interval, and how it is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from exporter.int8.budget import ScoreChange
from exporter.int8.select import points

Verdict = Literal["faster", "slower", "cannot tell"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its confidence interval, in the unit of the estimate.

    Where there is too little to say how sure the estimate is, the interval holds everything and an end is infinite.
    """

    low: float
    estimate: float
    high: float

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Its ends, None where it holds everything."""
        return (self.low, self.high) if math.isfinite(self.low) and math.isfinite(self.high) else None


@dataclass(frozen=True)
class Speed(Interval):
    """How many times faster than the reference, and whether that is more than noise."""

    verdict: Verdict


def bounds_text(interval: Interval, shape: str = "{:.2f}") -> str:
    """Render the ends of an interval."""
    if interval.bounds is None:
        return "no interval"
    low, high = (shape.format(end) for end in interval.bounds)
    return f"[{low}, {high}]"


def ratio_text(ratio: Interval) -> str:
    """Render a ratio with its interval."""
    comma = "," if ratio.bounds is None else ""
    return f"{ratio.estimate:.2f}×{comma} {bounds_text(ratio)}"


def percent_text(confidence: float) -> str:
    """Render a confidence in percent, such as `99` or `99.67`."""
    return f"{100 * confidence:.2f}".rstrip("0").rstrip(".")


def change_text(change: ScoreChange) -> str:
    """Render a change of accuracy, in percentage points, with its interval."""
    return f"{points(change.change)} points [{points(change.lower)}, {points(change.upper)}]"
