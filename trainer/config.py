"""TrainConfig: the only home of training defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.errors import UserError
from trainer.flags import LEARNING_RATE, SEED, SHARE, WEIGHT_DECAY, Range, check_numbers, check_text_column

Truncation = Literal["head", "tail", "head-tail"]
TruncationOrAuto = Literal["auto", Truncation]
TaskName = Literal["single-label", "multi-label"]
Device = Literal["auto", "cpu", "cuda", "mps"]
ClassWeights = Literal["equal", "balanced"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainConfig:
    """What was asked of a training run, as `python -m trainer --help` explains; misuse is a UserError."""

    model: str | None = None
    dataset: str | None = None
    eval_dataset: str | None = None
    task: TaskName = "single-label"
    text_column: tuple[str, ...] | None = None
    label_column: tuple[str, ...] | None = None
    label_separator: str | None = None
    label_names: tuple[str, ...] | None = None
    encoding: str = "utf-8"
    no_header: bool = False
    max_train_samples: int = 10_000
    max_eval_samples: int = 2_000
    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    gradient_accumulation_steps: int = 1
    early_stopping_patience: int | None = None
    class_weights: ClassWeights = "equal"
    max_length: int = 256
    truncation: TruncationOrAuto = "auto"
    seed: int = 42
    device: Device = "auto"
    precision: Precision = "auto"
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] | None = None
    resume: bool = False
    run_dir: Path = Path("runs/default")
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)
        check_text_column(self.text_column)
        if self.resume and self.overwrite:
            raise UserError(
                "`--resume` and `--overwrite` cannot be combined",
                "use `--resume` to continue an interrupted run, or `--overwrite` to start it again",
            )


_RANGES = {
    "max_train_samples": Range(0),
    "max_eval_samples": Range(0),
    "epochs": Range(1, 100_000),
    "batch_size": Range(1, 2**20),
    "learning_rate": LEARNING_RATE,
    "warmup_ratio": SHARE,
    "weight_decay": WEIGHT_DECAY,
    "gradient_accumulation_steps": Range(1, 2**20),
    "early_stopping_patience": Range(1),
    "max_length": Range(4),
    "seed": SEED,
    "lora_r": Range(1, 2**16),
    "lora_alpha": Range(1, 2**16),
    "lora_dropout": SHARE,
}
