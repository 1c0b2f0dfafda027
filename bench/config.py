"""BenchConfig: the only home of benchmark defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.engines.spec import Device
from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.flags import SEED, Range, check_numbers, check_text_column, flag_of, out_of_range

LEAST_PAIRS = 3
"""Pairs of restarts from which on speeds are compared pair by pair: two would give Student's t a single degree."""
LEAST_RESTARTS = 3
"""From which on a speed has an interval, for the same reason: that of two reaches 64 standard errors."""


@dataclass(frozen=True)
class BenchConfig:
    """What was asked of a benchmark. `python -m bench --help` explains each field.

    Raises:
        UserError: a value is out of its range, or belongs to something that is not asked for.
    """

    run_dir: Path = TrainConfig.run_dir
    engines: tuple[str, ...] | None = None
    peers: bool = False
    restarts: int = 10
    budget_minutes: float | None = None
    calls: int = 67
    grid_batches: tuple[int, ...] = (1, 8)
    grid_lengths: tuple[int, ...] = (32, 128, 512)
    grid_calls: int = 1
    soak_calls: int = 200
    cold_starts: int = 5
    max_eval_samples: int = 0
    threads: int | None = None
    seed: int = 0
    texts: Path | None = None
    text_column: tuple[str, ...] | None = None
    encoding: str = "utf-8"
    no_header: bool = False
    device: Device = "cpu"
    max_drop: float = 0.5
    max_p95_ms: float | None = None
    max_size_mb: float | None = None
    price_per_hour: float | None = None
    against: Path | None = None
    any_machine: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)
        if self.restarts >= 2 * LEAST_PAIRS and self.restarts % 2:
            raise out_of_range("restarts", self.restarts, f"even from {2 * LEAST_PAIRS} on, since they come in pairs")
        check_text_column(self.text_column)
        needed = (("text_column", "texts"), ("encoding", "texts"), ("no_header", "texts"), ("any_machine", "against"))
        for field, needs in needed:
            if getattr(self, field) != getattr(BenchConfig, field) and not getattr(self, needs):
                raise UserError(f"`{flag_of(field)}` needs `{flag_of(needs)}`", f"add `{flag_of(needs)}`")


_RANGES = {
    "restarts": Range(1),
    "budget_minutes": Range(0, 1_000_000, "low"),
    "calls": Range(2),
    "grid_batches": Range(1, 2**16),
    "grid_lengths": Range(1, 2**16),
    "grid_calls": Range(0),
    "soak_calls": Range(0),
    "cold_starts": Range(0),
    "max_eval_samples": Range(0),
    "threads": Range(1, 4096),
    "seed": SEED,
    "max_drop": Range(0, 100, "low"),
    "max_p95_ms": Range(0, 1e9, "low"),
    "max_size_mb": Range(0, 1e9, "low"),
    "price_per_hour": Range(0, 1e9, "low"),
}
