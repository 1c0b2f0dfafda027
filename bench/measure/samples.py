"""All that a benchmark has measured so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.results import BatchingTrial, Bulk, ColdStart, Grid, Machine, Memory, Single, Skipped, Soak
from exporter.bundle.probabilities import FloatArray


@dataclass
class Samples:
    """Rows as they come in, to be put into a record; see `bench.results` for each."""

    machine: Machine | None = None
    skipped: list[Skipped] = field(default_factory=list)
    batching: dict[str, str] = field(default_factory=dict)
    """What was chosen for each engine."""
    batching_trials: list[BatchingTrial] = field(default_factory=list)
    logits: dict[str, dict[int, FloatArray]] = field(default_factory=dict)
    """By engine and text."""
    singles: list[Single] = field(default_factory=list)
    bulks: list[Bulk] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    cold_starts: list[ColdStart] = field(default_factory=list)
    memories: dict[str, Memory] = field(default_factory=dict)
    soaks: list[Soak] = field(default_factory=list)

    def forget_restart(self, restart: int) -> None:
        """Drop what a restart has measured that is to be measured again."""
        self.singles = [s for s in self.singles if s.restart != restart]
        self.bulks = [b for b in self.bulks if b.restart != restart]
        self.grids = [g for g in self.grids if g.restart != restart]
        self.soaks = []  # taken in the last restart alone

    def forget_engine(self, engine: str) -> None:
        """Drop all that an engine has measured."""
        self.singles = [s for s in self.singles if s.engine != engine]
        self.bulks = [b for b in self.bulks if b.engine != engine]
        self.grids = [g for g in self.grids if g.engine != engine]
        self.batching_trials = [t for t in self.batching_trials if t.engine != engine]
        self.cold_starts = [c for c in self.cold_starts if c.engine != engine]
        self.soaks = [s for s in self.soaks if s.engine != engine]
        self.memories.pop(engine, None)
        self.logits.pop(engine, None)
