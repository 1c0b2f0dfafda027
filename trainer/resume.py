"""What may be written over, and what has to be the same where an interrupted training is resumed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.flags import as_typed
from trainer.records import read_record, write_record
from trainer.run import RunDir, UnfinishedRun

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


def check_run_dir(run: RunDir, config: TrainConfig) -> None:
    """Refuse to train where nothing can be written, over anything but a run, or over a run without `--overwrite`.

    Raises:
        UserError: that is the case, or there is no run to resume, or it was started with other flags.
    """
    check_writable(run.path, "--run-dir")
    if run.path.exists() and any(run.path.iterdir()) and not run.is_ours():
        raise UserError(f"`{run.path}` is not empty and holds no run", "choose another `--run-dir`")
    if config.resume:
        if run.record.exists() or not run.unfinished.exists():
            raise UserError(f"no interrupted run in `{run.path}`", "leave out `--resume`")
        check_same(read_record(run.unfinished, UnfinishedRun).config, config, free=("run_dir",))
    elif config.overwrite:
        return
    elif run.record.exists():
        raise UserError(f"`{run.path}` already holds a trained run", "add `--overwrite`, or choose another `--run-dir`")
    elif run.unfinished.exists():
        raise UserError(
            f"`{run.path}` holds an interrupted run",
            "add `--resume` to continue after its last finished epoch, or `--overwrite` to start again",
        )


def check_writable(folder: Path, flag: str) -> None:
    """Refuse a folder that does not exist and cannot be made, or in which nothing can be written.

    Args:
        folder: where the work is to be left.
        flag: by which it was chosen.

    Raises:
        UserError: it is such a folder.
    """
    nearest = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to `{nearest}`", f"choose another `{flag}`")


def check_same(before: C, now: C, *, free: Sequence[str]) -> None:
    """Refuse to resume with other flags than the run was started with.

    Args:
        before: the configuration it was started with.
        now: the one it is to continue with.
        free: fields that may differ, besides the device and the flags that control resuming.

    Raises:
        UserError: another field differs.
    """
    for field in dataclasses.fields(now):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if field.name not in {"resume", "overwrite", "device", *free} and old != new:
            raise UserError(
                f"the interrupted run had {as_typed(field.name, old)}, not {as_typed(field.name, new)}",
                "use the same flags, or start again with `--overwrite`",
            )


def begin(run: RunDir, inputs: UnfinishedRun) -> None:
    """Make room for a run and write down what it was given; on `--resume` check that it is given the same.

    Raises:
        UserError: the data or the base model has changed since the run was interrupted.
    """
    if not inputs.config.resume:
        run.clear_training()
        write_record(run.unfinished, inputs)
        return
    before = read_record(run.unfinished, UnfinishedRun)
    if (before.base_sha256, before.data_sha256) != (inputs.base_sha256, inputs.data_sha256):
        raise UserError(
            "the data or the base model is not that of the interrupted run",
            "restore them, or start again with `--overwrite`",
        )


def last_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that was saved completely: its `trainer_state.json` is written last."""
    complete = [path.parent for path in checkpoints.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None
