"""The output directory of a pretraining: where its files are, and what may be overwritten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer.errors import UserError
from trainer.locks import is_first_process
from trainer.pretrain.config import PretrainConfig, PretrainRecord, UnfinishedPretraining
from trainer.records import read_record, write_record
from trainer.run import PARTIAL, discard, holds_only_leftovers
from trainer.training.resume import check_same


class OutputDir:
    """Where a pretraining writes its checkpoint and its record, and keeps its state until it finishes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "pretrain.json"
        """PretrainRecord: that it exists means that the pretraining finished."""
        self.weights = path / "model.safetensors"
        self.checkpoints = path / "checkpoints"
        """What `--resume` needs; removed when the pretraining finishes."""
        self.unfinished = self.checkpoints / "pretrain.unfinished.json"
        """UnfinishedPretraining."""
        self.tokenizer = self.checkpoints / "tokenizer"
        """The tokenizer of a run from scratch while it is not finished."""

    def check(self, config: PretrainConfig) -> None:
        """Refuse to write over anything but a pretraining, or over one without `--overwrite`.

        Raises:
            UserError: that is the case, or there is no run to resume, or it was started with other flags.
        """
        finished, unfinished = _holds(self.record, PretrainRecord), _holds(self.unfinished, UnfinishedPretraining)
        if not (finished or unfinished or holds_only_leftovers(self.path, self.unfinished)):
            raise UserError(f"`{self.path}` is not empty and holds no pretraining", "choose another `--output-dir`")
        if config.resume:
            if not unfinished:
                raise UserError(f"no interrupted run in `{self.path}`", "leave out `--resume`")
            check_same(read_record(self.unfinished, UnfinishedPretraining).config, config, free=("output_dir",))
        elif (finished or unfinished) and not config.overwrite:
            what = "an interrupted run, which `--resume` continues" if unfinished else "a pretrained model"
            raise UserError(f"`{self.path}` holds {what}", "add `--overwrite`, or choose another `--output-dir`")

    def begin(self, given: UnfinishedPretraining) -> None:
        """Write down what a run was given, in the place of an interrupted one; a finished one stays until this one is.

        On `--resume` refuse the run if it is not given the same.
        """
        if not given.config.resume:
            discard(self.checkpoints)
            write_record(self.unfinished, given)
            return
        if replace(read_record(self.unfinished, UnfinishedPretraining), config=given.config) != given:
            raise UserError(
                "the text, the base model or the teacher is not that of the interrupted run",
                "restore them, or start again with `--overwrite`",
            )

    def new_results(self) -> OutputDir:
        """Return an empty place for a checkpoint and its record, which `settle` puts in place."""
        discard(self.path / PARTIAL)
        return OutputDir(self.path / PARTIAL)

    def settle(self) -> None:
        """Replace a checkpoint and its record by new ones that are complete; their record says so.

        The old weights go first and the new ones come last, for without weights a folder is no checkpoint. Whoever is
        killed on the way leaves the rest to the next command.
        """
        new = OutputDir(self.path / PARTIAL)
        if not (new.record.is_file() and is_first_process()):
            return
        if new.weights.exists():
            self.weights.unlink(missing_ok=True)
        last = (new.weights, new.record)
        for source in (*(path for path in new.path.iterdir() if path not in last), *last):
            if source.exists():  # otherwise it is in place already
                source.replace(self.path / source.name)
        discard(new.path)


def _holds(path: Path, kind: type) -> bool:
    """Return whether there is a record of ours at `path`, rather than another file of the same name."""
    return path.is_file() and kind.__name__ in path.read_text(errors="replace")
