"""All that a benchmark has measured so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.results import BatchingTrial, Bulk, ColdStart, Grid, Machine, Memory, Single, Skipped, Soak
from exporter.probabilities import FloatArray


@dataclass
class Samples:
    """Rows as they come in, to be put into a record; see `bench.results` for each."""

    machine: Machine | None = None
    skipped: list[Skipped] = field(default_factory=list)
    batching: dict[str, str] = field(default_factory=dict)
    """What was chosen for each backend."""
    batching_trials: list[BatchingTrial] = field(default_factory=list)
    logits: dict[str, dict[int, FloatArray]] = field(default_factory=dict)
    """By backend and review."""
    singles: list[Single] = field(default_factory=list)
    bulks: list[Bulk] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    cold_starts: list[ColdStart] = field(default_factory=list)
    memories: dict[str, Memory] = field(default_factory=dict)
    soaks: list[Soak] = field(default_factory=list)

    def forget_generation(self, generation: int) -> None:
        """Drop what a generation has measured that is to be measured again."""
        self.singles = [s for s in self.singles if s.generation != generation]
        self.bulks = [b for b in self.bulks if b.generation != generation]
        self.grids = [g for g in self.grids if g.generation != generation]
        self.soaks = []  # taken in the last generation alone

    def forget_backend(self, backend: str) -> None:
        """Drop all that a backend has measured."""
        self.singles = [s for s in self.singles if s.backend != backend]
        self.bulks = [b for b in self.bulks if b.backend != backend]
        self.grids = [g for g in self.grids if g.backend != backend]
        self.batching_trials = [t for t in self.batching_trials if t.backend != backend]
        self.cold_starts = [c for c in self.cold_starts if c.backend != backend]
        self.soaks = [s for s in self.soaks if s.backend != backend]
        self.memories.pop(backend, None)
        self.logits.pop(backend, None)
