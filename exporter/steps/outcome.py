"""Outcome: which artifact an export ships, what there is beside `onnx-fp32`, and what was tried."""

from __future__ import annotations

from dataclasses import dataclass, field

from exporter.bundle.artifact import EngineName, Precision
from exporter.records import Candidate, FailedRecipe, GpuSpeed


@dataclass(frozen=True)
class Beside:
    """An artifact beside `onnx-fp32`, shipped or not."""

    name: str
    precision: Precision
    recipe: str
    """What made it, which is what its step in the proof is called."""
    rung: Candidate | None
    """What it measured; None for half precision where there is no GPU."""


@dataclass(frozen=True)
class Outcome:
    """Which artifact to ship, and what there is beside fp32."""

    chosen: str
    reason: str
    beside: tuple[Beside, ...] = ()
    """What else there is."""
    fp16_fused: dict[str, int] = field(default_factory=dict)
    gpu_speeds: tuple[GpuSpeed, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    failed: tuple[FailedRecipe, ...] = ()
    skipped: tuple[str, ...] = ()

    def rivals(self, engine: EngineName) -> int:
        """Return how many candidates there were for an engine: one is chosen among those for each."""
        return sum(candidate.engine == engine for candidate in self.candidates)

    def recipe_of(self, *artifacts: str) -> str | None:
        """Return the recipe of the artifact that is called so, None where there is none."""
        return next((other.recipe for other in self.beside if other.name in artifacts), None)
