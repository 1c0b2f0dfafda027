"""PretrainConfig: the only home of pretraining defaults, and the record of a finished pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from trainer import flags
from trainer.config import Device, Precision
from trainer.data.sources import Source
from trainer.errors import UserError
from trainer.flags import SEED, SHARE, WEIGHT_DECAY, Range, check_numbers, flag_of, out_of_range
from trainer.records import Upgrade

WordVectors = Literal["cooccurrence", "random"]
SavePrecision = Literal["fp32", "fp16"]

HEAD_WIDTH = 64
"""Of an attention head, as in BERT and DistilBERT."""

VOCABULARY, WIDTH, LAYERS = 8192, 256, 4
"""The defaults from scratch; the built-in checkpoint has the same shape, with a larger vocabulary."""
LEARNING_RATE = 1.5e-3
"""The default from scratch."""
LEARNING_RATE_CONTINUED = 1e-4
"""The default from a checkpoint, as in Gururangan et al. 2020 (table 13) for continuing on a task's own texts."""


@dataclass(frozen=True)
class PretrainConfig:
    """What was asked of a pretraining, as `python -m trainer.pretrain --help` explains; misuse is a UserError."""

    text: tuple[Path, ...] = ()
    text_column: str | None = None
    encoding: str = "utf-8"
    no_header: bool = False
    model: str | None = None
    teacher: str | None = None
    vocabulary: int | None = None
    width: int | None = None
    layers: int | None = None
    word_vectors: WordVectors | None = None
    epochs: float = 1.0
    max_length: int = 256
    batch_tokens: int = 4096
    mask_ratio: float = 0.15
    summary_weight: float = 3.0
    learning_rate: float | None = None
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    seed: int = 42
    device: Device = "auto"
    precision: Precision = "auto"
    save_precision: SavePrecision = "fp32"
    output_dir: Path = Path("runs/pretrained")
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)
        if not self.text:
            raise UserError("no text to train on", "give one or more files with `--text`")
        if self.width and self.width % HEAD_WIDTH:
            raise out_of_range("width", self.width, f"that is a multiple of {HEAD_WIDTH}")
        self._check_shape()
        if self.batch_tokens < self.max_length:
            raise out_of_range("batch_tokens", self.batch_tokens, f"of `--max-length` ({self.max_length}) or more")
        if self.resume and self.overwrite:
            raise UserError(
                "`--resume` and `--overwrite` cannot be combined",
                "use `--resume` to continue an interrupted run, or `--overwrite` to start it again",
            )

    def _check_shape(self) -> None:
        """Refuse flags that would have no effect."""
        of_a_new_model = {"model": ("vocabulary", "width", "layers", "word_vectors"), "teacher": ("vocabulary",)}
        for checkpoint, fields in of_a_new_model.items():
            for field in fields:
                if getattr(self, checkpoint) and getattr(self, field) is not None:
                    flag = flag_of(field)
                    raise UserError(f"`{flag}` has no effect with `--{checkpoint}`", f"leave out `{flag}`")

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate asked for, or else the one of the mode."""
        return self.learning_rate or (LEARNING_RATE if self.model is None else LEARNING_RATE_CONTINUED)


_RANGES = {
    "vocabulary": Range(256, 2**20),
    "width": Range(HEAD_WIDTH, 2**14),
    "layers": Range(1, 1000),
    "epochs": Range(0, 100_000, "low"),
    "max_length": Range(8),
    "batch_tokens": Range(8),
    "mask_ratio": Range(0, 1, "both"),
    "summary_weight": Range(0, 1e6),
    "learning_rate": flags.LEARNING_RATE,
    "warmup_ratio": SHARE,
    "weight_decay": WEIGHT_DECAY,
    "seed": SEED,
}


@dataclass(frozen=True)
class Evaluation:
    """The masked-language-model loss on held-out text after some training."""

    step: int
    tokens: int
    """Trained on so far, special tokens included."""
    loss: float
    """Mean cross-entropy of the masked tokens, in nats. Only runs with the same mask ratio, seed, tokenizer, text and
    number of tokens can be compared; the weights are those of training, before they are rounded to be saved."""


@dataclass(frozen=True)
class PretrainRecord:
    """What a pretraining did."""

    SCHEMA: ClassVar[int] = 2
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {}
    MADE_BY: ClassVar[str] = "python -m trainer.pretrain"

    config: PretrainConfig
    base: Source | None
    base_sha256: str | None
    teacher: Source | None
    teacher_sha256: str | None
    text_sha256: str
    """Of the distinct texts as the seed shuffles them, those trained on first."""
    texts: int
    held_out_texts: int
    tokens: int
    """In the texts trained on, counted once."""
    parameters: int
    """Of the encoder: the head that predicts masked tokens is not counted where it shares no weight with it."""
    learning_rate: float
    evaluations: tuple[Evaluation, ...]
    device: str
    precision: str
    duration_s: float
    """Of the process that finished it; time before `--resume` is not counted."""
    finished_at: str
    versions: dict[str, str]
    weights_sha256: str


@dataclass(frozen=True)
class UnfinishedPretraining:
    """What an unfinished pretraining was given."""

    SCHEMA: ClassVar[int] = 2
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {}
    MADE_BY: ClassVar[str] = "python -m trainer.pretrain"

    config: PretrainConfig
    text_sha256: str
    base_sha256: str | None
    teacher_sha256: str | None
