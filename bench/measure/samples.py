"""What a benchmark has measured so far: rows that are only ever added to, a whole restart at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from bench.measure.rations import Ration
from bench.results import BatchingTrial, Bulk, ColdStart, Company, Grid, Memory, Single, Skipped, Soak
from trainer.tasks import FloatArray


@dataclass(frozen=True)
class Answers:
    """One engine's logits for some of the evaluation texts."""

    engine: str
    texts: tuple[int, ...]
    """Their places in the evaluation file."""
    logits: FloatArray
    """[texts, classes]."""


@dataclass(frozen=True)
class Samples:
    """Rows of one restart, or of all so far; see `bench.results` for each."""

    answers: tuple[Answers, ...] = ()
    singles: tuple[Single, ...] = ()
    batching_trials: tuple[BatchingTrial, ...] = ()
    bulks: tuple[Bulk, ...] = ()
    grids: tuple[Grid, ...] = ()
    cold_starts: tuple[ColdStart, ...] = ()
    memories: tuple[Memory, ...] = ()
    soaks: tuple[Soak, ...] = ()
    companies: tuple[Company, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    rations: tuple[Ration, ...] = ()
    """Of the first restart, for all; none where there is time for everything."""
    once_s: float = 0.0
    """Seconds of what only the first restart does."""

    def plus(self, other: Samples) -> Samples:
        """Return these rows and those of another restart."""
        return replace(self, **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def without(self, engine: str) -> Samples:
        """Return the rows of the other engines."""
        rows = (f.name for f in fields(self) if f.name not in ("companies", "once_s"))
        kept: dict[str, Any] = {name: tuple(r for r in getattr(self, name) if r.engine != engine) for name in rows}
        return replace(self, **kept)

    def logits(self, engine: str) -> dict[int, FloatArray]:
        """Return an engine's logits by the place of the text."""
        rows = (row for row in self.answers if row.engine == engine)
        return {i: logits for row in rows for i, logits in zip(row.texts, row.logits, strict=True)}
