"""The run directory: where each stage leaves its work, and what the trainer says of its own."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trainer.config import TrainConfig, Truncation
from trainer.data import Splits, write_examples
from trainer.encoding import Encoder
from trainer.errors import UserError
from trainer.records import file_sha256, read_record, write_record
from trainer.sources import Base, Source

CALIBRATION_REVIEWS = 64
"""Training texts left for the exporter, which measures ranges of activations on them."""


@dataclass(frozen=True)
class RunDir:
    """The paths inside one run directory. Nothing is read or written when it is made."""

    path: Path

    @property
    def record(self) -> Path:
        """TrainRecord, written last."""
        return self.path / "run.json"

    @property
    def adapter(self) -> Path:
        """The LoRA adapter with its head, and the tokenizer."""
        return self.path / "adapter"

    @property
    def evaluation(self) -> Path:
        """The evaluation texts as JSON Lines: the later stages measure on exactly these."""
        return self.path / "data" / "evaluation.jsonl"

    @property
    def calibration(self) -> Path:
        """Some of the training texts as JSON Lines, for the exporter to measure ranges of activations on."""
        return self.path / "data" / "calibration.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The state of an unfinished run, removed when it finishes."""
        return self.path / "checkpoints"

    @property
    def unfinished(self) -> Path:
        """The configuration of an unfinished run, against which `--resume` is checked."""
        return self.checkpoints / "config.json"

    @property
    def export(self) -> Path:
        """The exporter's artifacts, a folder each."""
        return self.path / "export"

    @property
    def export_record(self) -> Path:
        """ExportRecord, written last."""
        return self.path / "export.json"

    @property
    def bench_record(self) -> Path:
        """BenchRecord, written last."""
        return self.path / "bench.json"

    @property
    def bench_report(self) -> Path:
        """BenchRecord as a table."""
        return self.path / "bench.md"

    def load(self) -> TrainRecord:
        """Read the record of the finished run and check that what it describes is still there, unchanged.

        Raises:
            UserError: there is no finished run, or its files were changed since.
        """
        if not self.record.exists():
            raise UserError(f"no trained run in `{self.path}`", f"run `{TrainRecord.MADE_BY}` first")
        record = read_record(self.record, TrainRecord)
        adapter = {self.adapter / name: recorded for name, recorded in record.adapter_sha256.items()}
        data = {self.evaluation: record.evaluation_sha256, self.calibration: record.calibration_sha256}
        for path, recorded in (adapter | data).items():
            if not path.is_file() or file_sha256(path) != recorded:
                raise UserError(
                    f"`{path}` is not the file that `{self.record}` describes",
                    f"restore it, or run `{TrainRecord.MADE_BY} --overwrite` again",
                )
        return record

    def has_adapter(self) -> bool:
        """Tell whether there are LoRA weights to merge, or a checkpoint that was whole when it came here."""
        return (self.adapter / "adapter_config.json").is_file()

    def is_ours(self) -> bool:
        """Tell whether a run lives here, finished or not, rather than somebody's files of the same names."""
        records = ((self.record, TrainRecord), (self.unfinished, UnfinishedRun))
        return any(kind.__name__ in path.read_text(errors="replace") for path, kind in records if path.is_file())

    def clear_training(self) -> None:
        """Remove what a trainer left, its record first; what later stages made from it stays, and is stale."""
        self.record.unlink(missing_ok=True)
        for folder in (self.adapter, self.evaluation.parent, self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class EpochScores:
    """The scores on the evaluation texts after one epoch."""

    epoch: int
    accuracy: float
    f1_weighted: float
    loss: float


@dataclass(frozen=True)
class Training:
    """How the adapter of a run was trained."""

    config: TrainConfig
    train_texts: int
    duplicates_dropped: int
    trainable_parameters: int
    total_parameters: int
    epochs: tuple[EpochScores, ...]
    best_epoch: int
    device: str
    precision: str
    duration_s: float
    finished_at: str

    @property
    def best(self) -> EpochScores:
        """The scores of the epoch that was kept."""
        return next(scores for scores in self.epochs if scores.epoch == self.best_epoch)


@dataclass(frozen=True)
class TrainRecord:
    """What a run holds. Everything that the exporter needs to know about it stands here."""

    SCHEMA: ClassVar[int] = 4
    MADE_BY: ClassVar[str] = "python -m trainer"

    base: Source
    base_sha256: str
    dataset: Source
    label_names: tuple[str, ...]
    max_length: int
    truncation: Truncation
    pad_token_id: int
    evaluation_texts: int
    training: Training | None
    """None where adapter or checkpoint came from elsewhere."""
    versions: dict[str, str]
    adapter_sha256: dict[str, str]
    """Of every file in `adapter/`."""
    evaluation_sha256: str
    calibration_sha256: str


@dataclass(frozen=True)
class UnfinishedRun:
    """What was asked of a run that has not finished."""

    SCHEMA: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = "python -m trainer"

    config: TrainConfig
    base_sha256: str
    data_sha256: str
    """Of the training and the evaluation texts with their labels."""


def write_run(
    run: RunDir, base: Base, splits: Splits, encoder: Encoder, training: Training | None, versions: dict[str, str]
) -> None:
    """Write the texts that later stages need beside an adapter that is there already, and then the run's record.

    Args:
        run: where.
        base: what the adapter adapts, or the whole checkpoint where there is no adapter.
        splits: its texts; some of the training texts are kept for calibration.
        encoder: how it reads them.
        training: how it was trained, None where that was elsewhere.
        versions: of the packages that made it.
    """
    some = random.Random(0).sample(range(len(splits.train)), min(CALIBRATION_REVIEWS, len(splits.train)))
    write_examples(run.evaluation, splits.evaluation, splits.label_names)
    write_examples(run.calibration, splits.train.take(some), splits.label_names)
    record = TrainRecord(
        base=base.source,
        base_sha256=base.sha256(),
        dataset=splits.source,
        label_names=splits.label_names,
        max_length=encoder.max_length,
        truncation=encoder.truncation,
        pad_token_id=encoder.pad_token_id,
        evaluation_texts=len(splits.evaluation),
        training=training,
        versions=versions,
        adapter_sha256={path.name: file_sha256(path) for path in sorted(run.adapter.iterdir())},
        evaluation_sha256=file_sha256(run.evaluation),
        calibration_sha256=file_sha256(run.calibration),
    )
    write_record(run.record, record)
