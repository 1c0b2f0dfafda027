"""ExportConfig: the only home of export defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError
from trainer.run import DEFAULT_RUN_DIR


@dataclass(frozen=True)
class ExportConfig:
    """What was asked of an export. `python -m exporter --help` explains each field.

    Raises:
        UserError: a value is out of its range.
    """

    run_dir: Path = DEFAULT_RUN_DIR
    quantize: bool = False
    verify_samples: int = 256

    def __post_init__(self) -> None:
        if self.verify_samples < 1:
            raise UserError("nothing to verify with", "give `--verify-samples` a value of at least 1")
