"""ExportConfig: the only home of export defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.flags import Range, check_numbers, flag_of

Quantize = Literal["auto", "dynamic", "static", "weight-only"]
Target = Literal["native", "portable", "cuda"]
Exporter = Literal["torch", "optimum"]


@dataclass(frozen=True)
class ExportConfig:
    """What was asked of an export. `python -m exporter --help` explains each field.

    Raises:
        UserError: a value is out of its range, or needs another one.
    """

    run_dir: Path = TrainConfig.run_dir
    quantize: Quantize | None = None
    against_run: Path | None = None
    max_drop: float = 0.5
    accept_undecided: bool = False
    require_int8: bool = False
    budget_minutes: float = 20.0
    target: Target = "native"
    exporter: Exporter = "torch"
    no_fuse: bool = False
    verify_samples: int = 256
    no_cascade: bool = False
    stack: bool = False
    shift: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)
        if self.quantize and self.target == "cuda":
            raise UserError(
                "int8 is for CPUs: onnxruntime has no fast int8 operators on CUDA",
                "leave out `--quantize`; `--target cuda` makes fp16",
            )
        if self.stack and self.no_cascade:
            raise UserError("`--stack` adds what the first stage says, and `--no-cascade` leaves it out", "choose one")
        if self.quantize is None:
            for field in NEED_INT8 if self.target == "cuda" else NEED_QUANTIZE:
                if field == "max_drop" and self.against_run:
                    continue
                if getattr(self, field) != getattr(type(self), field):
                    raise UserError(f"`{flag_of(field)}` needs `--quantize`", "add `--quantize`")
            if self.target == "portable":
                raise UserError("`--target portable` needs `--quantize`", "add `--quantize`")


NEED_INT8 = ("require_int8", "budget_minutes", "no_cascade", "stack")
NEED_QUANTIZE = ("max_drop", "accept_undecided", *NEED_INT8)
"""The first two are for half precision on a GPU, too, and the first for another run."""
_RANGES = {"verify_samples": Range(1), "budget_minutes": Range(0, 1_000_000), "max_drop": Range(0, 100, "low")}
