"""BenchConfig: the only home of benchmark defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.config import TrainConfig
from trainer.flags import check_at_least, out_of_range


@dataclass(frozen=True)
class BenchConfig:
    """What was asked of a benchmark. `python -m bench --help` explains each field.

    Raises:
        UserError: a value is out of its range.
    """

    run_dir: Path = TrainConfig.run_dir
    backends: tuple[str, ...] | None = None
    batch_sizes: tuple[int, ...] = (1, 8)
    calls: int = 64
    warmup: int = 3
    max_eval_samples: int = 0
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, {"calls": 1, "warmup": 0, "max_eval_samples": 0, "threads": 1})
        if min(self.batch_sizes) < 1:
            raise out_of_range("batch_sizes", min(self.batch_sizes), "at least 1")
