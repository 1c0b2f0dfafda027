"""When a benchmark ends: after its restarts, when its time is up, or when all that it is asked for is told apart."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bench.config import BenchConfig
from bench.judge.looks import looks_of
from bench.judge.summarise import summarise
from bench.results import BenchRecord, End

Clock = Callable[[], float]


class Pace:
    """Keeps a benchmark to its restarts and to its time, from when it is made.

    Args:
        config: what was asked for.
        clock: tells the time, in seconds.
    """

    def __init__(self, config: BenchConfig, clock: Clock = time.monotonic) -> None:
        self._restarts, self._looks = config.restarts, looks_of(config)
        self._budget_s = None if config.budget_minutes is None else 60 * config.budget_minutes
        self._clock, self._began = clock, clock()
        self._ends: list[float] = []
        self._restarts_began = self._began

    def begin_restarts(self) -> None:
        """Note that all is prepared."""
        self._restarts_began = self._clock()

    def end(self, record: BenchRecord, once_s: float = 0.0) -> End | None:
        """Return why the benchmark ends with a restart that is in the record, None where another one follows.

        Time is up where another restart as long as the longest would end too late. The first has more to do than the
        others, for `once_s` seconds, and counts without them and only where it is the only one.
        """
        self._ends.append(self._clock())
        number = len(self._ends)
        if number == self._restarts:
            return "restarts"
        if number in self._looks and summarise(record).recommendation.is_told_apart:
            return "told apart"
        marks = [self._restarts_began, *self._ends]
        first, *others = (after - before for before, after in zip(marks, self._ends, strict=False))
        longest_s = max(others, default=first - once_s)
        is_late = self._budget_s is not None and self._passed_s + longest_s > self._budget_s
        return "time" if is_late else None

    @property
    def left_s(self) -> float:
        """How many seconds are left, infinite without a budget."""
        return math.inf if self._budget_s is None else max(0.0, self._budget_s - self._passed_s)

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1, if it ends by its restarts or its time."""
        of_time = self._passed_s / self._budget_s if self._budget_s else 0.0
        return min(1.0, max(len(self._ends) / self._restarts, of_time))

    @property
    def _passed_s(self) -> float:
        return self._clock() - self._began
