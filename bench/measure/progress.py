"""Where a long measurement stands: a bar with the time left on a terminal, plain lines elsewhere. On stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from trainer.progress import left_text


class Progress:
    """Tells what is going on; a context manager.

    It draws only when it is told something: a bar that redraws itself takes time from what is being measured.

    Args:
        clock: tells the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Bar(
            *columns,
            console=console,
            transient=True,
            auto_refresh=False,
            speed_estimate_period=math.inf,  # of the default of 30 s, a restart may take more
            disable=not console.is_terminal,
        )
        self._console, self._clock = console, clock
        self._began, self._ends_at = clock(), math.nan
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, what: str) -> None:
        """Tell what is being done."""
        if self._console.is_terminal:
            self._bar.update(self._task, description=what, refresh=True)
        else:
            left = "" if math.isnan(self._ends_at) else left_text(self._ends_at - self._clock())
            self._console.print(f"{what}{left}", soft_wrap=True, markup=False)

    def done(self, share: float) -> None:
        """Tell how much of all is done, from 0 to 1; on a terminal the time left is known after the second."""
        if share:
            self._ends_at = self._began + (self._clock() - self._began) / share
        self._bar.update(self._task, completed=share, refresh=True)
