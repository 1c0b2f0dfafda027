"""The output directory of a pretraining: what lies where, and what may be written over."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError
from trainer.pretrain.config import PretrainConfig, PretrainRecord, UnfinishedPretraining
from trainer.records import read_record, write_record
from trainer.train import check_same


@dataclass(frozen=True)
class OutputDir:
    """Where a pretraining leaves its checkpoint and its record, and works while it is not finished."""

    path: Path

    @property
    def record(self) -> Path:
        """PretrainRecord: that it exists means that the pretraining finished."""
        return self.path / "pretrain.json"

    @property
    def checkpoints(self) -> Path:
        """What `--resume` needs; gone once the pretraining finished."""
        return self.path / "checkpoints"

    @property
    def unfinished(self) -> Path:
        """UnfinishedPretraining."""
        return self.checkpoints / "pretrain.unfinished.json"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of a run from scratch while it is not finished."""
        return self.checkpoints / "tokenizer"

    def check(self, config: PretrainConfig) -> None:
        """Refuse to write where nothing can be written, over anything but a pretraining, and over one unless told to.

        Raises:
            UserError: that is so, or there is no run to resume, or it was given other flags.
        """
        nearest = next(path for path in (self.path, *self.path.resolve().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(f"cannot write to `{nearest}`", "name another `--output-dir`")
        finished, unfinished = _holds(self.record, PretrainRecord), _holds(self.unfinished, UnfinishedPretraining)
        if not finished and not unfinished and self.path.exists() and any(self.path.iterdir()):
            raise UserError(f"`{self.path}` holds something else than a pretraining", "name another `--output-dir`")
        if config.resume:
            if not unfinished:
                raise UserError(f"no interrupted run in `{self.path}`", "leave out `--resume`")
            check_same(read_record(self.unfinished, UnfinishedPretraining).config, config, free=("output_dir",))
        elif (finished or unfinished) and not config.overwrite:
            what = "a pretrained model" if finished else "an interrupted run, which `--resume` continues"
            raise UserError(f"`{self.path}` holds {what}", "add `--overwrite`, or name another `--output-dir`")

    def begin(self, given: UnfinishedPretraining) -> None:
        """Make room for a run and write down what it was given; on `--resume` check that it is given the same.

        The note comes before an old record goes, so that whatever ends this half-way leaves a pretraining.

        Raises:
            UserError: the text, the base model or the teacher of the interrupted run was another.
        """
        if not given.config.resume:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            write_record(self.unfinished, given)
            for old in (self.record, self.path / "model.safetensors"):  # a run that is cut off leaves no checkpoint
                old.unlink(missing_ok=True)
            return
        before = read_record(self.unfinished, UnfinishedPretraining)
        if before.inputs != given.inputs:
            raise UserError(
                "the text, the base model or the teacher is not that of the interrupted run",
                "restore them, or start again with `--overwrite`",
            )


def _holds(path: Path, kind: type) -> bool:
    """Tell whether a record of ours lies at `path`, rather than somebody's file of the same name."""
    return path.is_file() and kind.__name__ in path.read_text(errors="replace")
