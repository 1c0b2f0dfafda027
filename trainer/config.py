"""TrainConfig: the only home of training defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.errors import UserError
from trainer.flags import LEARNING_RATE, SEED, SHARE, WEIGHT_DECAY, Range, check_numbers, check_text_column, flag_of

Truncation = Literal["head", "tail", "head-tail"]
TruncationOrAuto = Literal["auto", Truncation]
TaskName = Literal["single-label", "multi-label"]
Device = Literal["auto", "cpu", "cuda", "mps"]
ClassWeights = Literal["equal", "balanced"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

SMALL = "small"
"""The model that is made of layers of a teacher."""
LORA_RATE = 1e-3
"""The peak learning rate for LoRA."""
FULL_RATE = 1e-4
"""The same for all weights; no other was tried."""
LORA_FIELDS = ("lora_r", "lora_alpha", "lora_dropout", "lora_targets")
"""Those that mean something only with LoRA."""
TEACHER_FIELDS = ("temperature", "unlabelled")
"""Those that mean something only with a teacher."""


@dataclass(frozen=True)
class TrainConfig:
    """What was asked of a training run, as `python -m trainer --help` explains; misuse is a UserError."""

    model: str | None = None
    dataset: str | None = None
    eval_dataset: str | None = None
    task: TaskName | None = None
    """None for the teacher's, or else `single-label`."""
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
    learning_rate: float | None = None
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
    full: bool | None = None
    teacher: Path | None = None
    student_layers: int | None = None
    temperature: float = 2.0
    unlabelled: str | None = None
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
        if self.trains_all:
            self._check_unset(LORA_FIELDS, "--no-full", " to train LoRA")
        if self.teacher is None:
            self._check_unset(TEACHER_FIELDS, "--teacher RUN", "")
        self._check_student()

    @property
    def trains_all(self) -> bool:
        """Whether all weights are trained, rather than LoRA's: those of a student by default."""
        return self.teacher is not None if self.full is None else self.full

    @property
    def task_name(self) -> TaskName:
        """The task of a run without a teacher, or that settled by one."""
        return self.task or "single-label"

    @property
    def peak_learning_rate(self) -> float:
        """The peak learning rate."""
        return self.learning_rate or (FULL_RATE if self.trains_all else LORA_RATE)

    @property
    def takes_layers(self) -> bool:
        """Whether the model is made of layers of its teacher."""
        return self.teacher is not None and self.model in (None, SMALL)

    def _check_unset(self, fields: tuple[str, ...], needed: str, purpose: str) -> None:
        for name in fields:
            if getattr(self, name) != getattr(type(self), name):
                raise UserError(f"`{flag_of(name)}` needs `{needed}`", f"add `{needed}`{purpose}, or leave it out")

    def _check_student(self) -> None:
        if self.model == SMALL and self.teacher is None:
            raise UserError("`--model small` takes its layers from a teacher", "add `--teacher RUN`")
        if self.student_layers is not None and not self.takes_layers:
            raise UserError("`--student-layers` is for `--model small`", "leave it out")
        if self.teacher is not None and self.class_weights != "equal":
            raise UserError("`--class-weights` is for labels, and a student learns from probabilities", "leave it out")


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
    "student_layers": Range(1),
    "temperature": Range(0, 1000, "low"),
}
