"""ExportConfig: the only home of export defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.config import TrainConfig, Truncation
from trainer.errors import UserError
from trainer.flags import check_at_least, flag_of, out_of_range

Quantize = Literal["auto", "dynamic", "static", "weight-only"]
Target = Literal["native", "portable", "cuda"]


@dataclass(frozen=True)
class ExportConfig:
    """What was asked of an export. `python -m exporter --help` explains each field.

    Raises:
        UserError: a value is out of its range, or belongs to something that is not asked for.
    """

    run_dir: Path = TrainConfig.run_dir
    quantize: Quantize | None = None
    max_drop: float = 0.5
    accept_undecided: bool = False
    require_int8: bool = False
    budget_minutes: float = 20.0
    target: Target = "native"
    no_fuse: bool = False
    verify_samples: int = 256
    adapter: Path | None = None
    model: str | None = None
    dataset: str | None = None
    eval_dataset: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    label_names: tuple[str, ...] | None = None
    max_eval_samples: int = 0
    max_length: int | None = None
    truncation: Truncation = "head"

    def __post_init__(self) -> None:
        check_at_least(self, {"verify_samples": 1, "budget_minutes": 0, "max_eval_samples": 0, "max_length": 4})
        if not 0 < self.max_drop <= 100:
            raise out_of_range("max_drop", self.max_drop, "above 0, in percentage points")
        if self.quantize and self.target == "cuda":
            raise UserError(
                "int8 is for CPUs: onnxruntime has no fast int8 operators on CUDA",
                "leave out `--quantize`; `--target cuda` makes fp16",
            )
        if self.quantize is None:
            self._refuse(ABOUT_INT8, "is about int8", "add `--quantize`")
            if self.target == "portable":
                raise UserError("`--target portable` is about int8", "add `--quantize`")
        if self.adapter is None:
            self._refuse(ABOUT_ADAPTER, "is about an adapter from elsewhere", "add `--adapter`")
        elif self.dataset is None:
            raise UserError(
                "an adapter from elsewhere cannot be proved without texts",
                "add `--dataset` with labelled texts that it was not trained on",
            )

    def _refuse(self, fields: tuple[str, ...], why: str, hint: str) -> None:
        """Refuse fields that were given for something that is not asked for."""
        for field in fields:
            if getattr(self, field) != getattr(type(self), field):
                raise UserError(f"`{flag_of(field)}` {why}", hint)


ABOUT_INT8 = ("max_drop", "accept_undecided", "require_int8", "budget_minutes")
ABOUT_ADAPTER = (
    "model",
    "dataset",
    "eval_dataset",
    "text_column",
    "label_column",
    "label_names",
    "max_eval_samples",
    "max_length",
    "truncation",
)
