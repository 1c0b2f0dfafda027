"""The output directory of a pretraining: where its files are, and what may be overwritten."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from trainer.errors import UserError
from trainer.pretrain.config import PretrainConfig, PretrainRecord, UnfinishedPretraining
from trainer.records import read_record, write_record
from trainer.resume import check_same, check_writable


class OutputDir:
    """Where a pretraining writes its checkpoint and its record, and keeps its state until it finishes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "pretrain.json"
        """PretrainRecord: that it exists means that the pretraining finished."""
        self.checkpoints = path / "checkpoints"
        """What `--resume` needs; removed when the pretraining finishes."""
        self.unfinished = self.checkpoints / "pretrain.unfinished.json"
        """UnfinishedPretraining."""
        self.tokenizer = self.checkpoints / "tokenizer"
        """The tokenizer of a run from scratch while it is not finished."""

    def check(self, config: PretrainConfig) -> None:
        """Refuse to write where that cannot be, over anything but a pretraining, or over one without `--overwrite`.

        Raises:
            UserError: that is the case, or there is no run to resume, or it was started with other flags.
        """
        check_writable(self.path, "--output-dir")
        finished, unfinished = _holds(self.record, PretrainRecord), _holds(self.unfinished, UnfinishedPretraining)
        if not finished and not unfinished and self.path.exists() and any(self.path.iterdir()):
            raise UserError(f"`{self.path}` is not empty and holds no pretraining", "choose another `--output-dir`")
        if config.resume:
            if not unfinished:
                raise UserError(f"no interrupted run in `{self.path}`", "leave out `--resume`")
            check_same(read_record(self.unfinished, UnfinishedPretraining).config, config, free=("output_dir",))
        elif (finished or unfinished) and not config.overwrite:
            what = "a pretrained model" if finished else "an interrupted run, which `--resume` continues"
            raise UserError(f"`{self.path}` holds {what}", "add `--overwrite`, or choose another `--output-dir`")

    def begin(self, given: UnfinishedPretraining) -> None:
        """Make room for a run and write down what it was given; on `--resume` refuse it if it is not given the same.

        The note is written before an old record is removed, so that an interruption in between leaves a pretraining.
        """
        if not given.config.resume:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            write_record(self.unfinished, given)
            for old in (self.record, self.path / "model.safetensors"):  # a run that is cut off leaves no checkpoint
                old.unlink(missing_ok=True)
            return
        if replace(read_record(self.unfinished, UnfinishedPretraining), config=given.config) != given:
            raise UserError(
                "the text, the base model or the teacher is not that of the interrupted run",
                "restore them, or start again with `--overwrite`",
            )


def _holds(path: Path, kind: type) -> bool:
    """Return whether there is a record of ours at `path`, rather than another file of the same name."""
    return path.is_file() and kind.__name__ in path.read_text(errors="replace")
