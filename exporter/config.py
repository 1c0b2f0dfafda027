"""ExportConfig: the only home of export defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.config import TrainConfig
from trainer.flags import check_at_least


@dataclass(frozen=True)
class ExportConfig:
    """What was asked of an export. `python -m exporter --help` explains each field.

    Raises:
        UserError: a value is out of its range.
    """

    run_dir: Path = TrainConfig.run_dir
    quantize: bool = False
    verify_samples: int = 256

    def __post_init__(self) -> None:
        check_at_least(self, {"verify_samples": 1})
