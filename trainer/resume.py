"""What may be written over, and what has to be the same where an interrupted training is resumed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.flags import as_typed
from trainer.records import read_record, write_record
from trainer.run import RunDir, UnfinishedRun


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
    """Raise a UserError where nothing can be written to the folder that `flag` chose, or it cannot be made."""
    nearest = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to `{nearest}`", f"choose another `{flag}`")


def check_same(before: object, now: object, *, free: Sequence[str]) -> None:
    """Raise a UserError where a run is resumed with other flags than it was started with.

    The fields in `free` may differ, and so may the device and the flags that control resuming.
    """
    for field, new in vars(now).items():
        old = getattr(before, field)
        if field not in {"resume", "overwrite", "device", *free} and old != new:
            raise UserError(
                f"the interrupted run had {as_typed(field, old)}, not {as_typed(field, new)}",
                "use the same flags, or start again with `--overwrite`",
            )


def begin(run: RunDir, inputs: UnfinishedRun) -> None:
    """Make room for a run and write down what it was given; on `--resume` refuse it if it is not given the same."""
    if not inputs.config.resume:
        run.clear_training()
        write_record(run.unfinished, inputs)
        return
    if replace(read_record(run.unfinished, UnfinishedRun), config=inputs.config) != inputs:
        raise UserError(
            "the data or the base model is not that of the interrupted run",
            "restore them, or start again with `--overwrite`",
        )


def last_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that was saved completely: its `trainer_state.json` is written last."""
    complete = [path.parent for path in checkpoints.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None
