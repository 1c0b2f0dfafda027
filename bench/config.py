"""BenchConfig: the only home of benchmark defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError
from trainer.run import DEFAULT_RUN_DIR


@dataclass(frozen=True)
class BenchConfig:
    """What was asked of a benchmark. `python -m bench --help` explains each field.

    Raises:
        UserError: a value is out of its range.
    """

    run_dir: Path = DEFAULT_RUN_DIR
    backends: tuple[str, ...] | None = None
    batch_sizes: tuple[int, ...] = (1, 8)
    calls: int = 64
    warmup: int = 3
    max_eval_samples: int = 0
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for field, least in (("calls", 1), ("warmup", 0), ("max_eval_samples", 0), ("threads", 1)):
            value = getattr(self, field)
            if value is not None and value < least:
                flag = "--" + field.replace("_", "-")
                raise UserError(f"`{flag} {value}` is out of range", f"give `{flag}` a value of at least {least}")
        if min(self.batch_sizes) < 1:
            raise UserError("a batch holds at least one review", "give `--batch-sizes` values of at least 1")
