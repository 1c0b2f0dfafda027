"""What a comparison of two ways to train was asked for, and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import ClassVar

from bench.results import Environment
from trainer.config import TrainConfig
from trainer.flags import Range, check_numbers
from trainer.records import Upgrade


@dataclass(frozen=True)
class TrainingSpeedConfig:
    """What was asked of `python -m bench.training`, as its `--help` explains."""

    run_dir: Path = TrainConfig.run_dir
    minutes: float = 3.0

    def __post_init__(self) -> None:
        check_numbers(self, {"minutes": Range(0, 1_000, "low")})


@dataclass(frozen=True, kw_only=True)
class TrainingSpeed:
    """Seconds for the same texts, in turns; `training_speed.json` in the run's folder."""

    SCHEMA: ClassVar[int] = 1
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {}
    MADE_BY: ClassVar[str] = "python -m bench.training"

    config: TrainingSpeedConfig
    run_sha256: str
    """Of the run's record: texts, base model and flags of the training are those of that run."""
    environment: Environment
    device: str
    precision: str
    """Of ours; the plain training is in fp32."""
    texts: int
    """Of each round."""
    batch_size: int
    max_length: int
    ours_s: tuple[float, ...]
    """Of each round."""
    plain_s: tuple[float, ...]
    finished_at: str

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast ours was, in each round."""
        return tuple(plain / ours for ours, plain in zip(self.ours_s, self.plain_s, strict=True))


def table(speed: TrainingSpeed) -> str:
    """Render the medians of the rounds, and how far these lie apart."""
    ours, plain = (speed.texts / median(seconds) for seconds in (speed.ours_s, speed.plain_s))
    ratios = speed.ratios
    where = speed.environment.cpu if speed.device == "cpu" else speed.device
    return "\n".join(
        (
            f"{'':42}{'texts/s':>10}",
            f"{'plain Trainer and peft, fp32':42}{plain:>10,.1f}",
            f"{f'python -m trainer, {speed.precision}':42}{ours:>10,.1f}",
            f"{median(ratios):.2f}x as fast [{min(ratios):.2f}, {max(ratios):.2f}] in {len(ratios)} rounds of "
            f"{speed.texts:,} texts, {speed.batch_size} a batch, up to {speed.max_length} tokens, on {where}",
        )
    )
