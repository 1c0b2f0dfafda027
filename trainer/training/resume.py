"""What may be written over, and what has to be the same where an interrupted training is resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.flags import as_typed
from trainer.progress import say
from trainer.records import read_record, write_record, write_text
from trainer.run import RunDir, UnfinishedRun, discard

STATE = "trainer_state.json"
"""What transformers calls the state of its loop in a checkpoint."""
MERIT = "merit"
"""By which the best checkpoint is chosen: see `trainer.training.loop.scores_of`."""
WHOLE = "whole.json"
"""Written last into a checkpoint."""


def check_run_dir(run: RunDir, config: TrainConfig) -> None:
    """Refuse to train over anything but a run, or over a run without `--overwrite`.

    Raises:
        UserError: that is the case, or there is no run to resume, or it was started with other flags.
    """
    if not (run.is_ours() or run.is_vacant()):
        raise UserError(f"`{run.path}` is not empty and holds no run", "choose another `--run-dir`")
    if config.resume:
        if not run.unfinished.exists():
            raise UserError(f"no interrupted run in `{run.path}`", "leave out `--resume`")
        check_same(read_record(run.unfinished, UnfinishedRun).config, config, free=("run_dir",))
    elif config.overwrite:
        return
    elif run.unfinished.exists():
        beside = " and a trained one, which it is to replace" if run.record.exists() else ""
        raise UserError(
            f"`{run.path}` holds an interrupted run{beside}",
            "add `--resume` to continue after its last finished epoch, or `--overwrite` to start again",
        )
    elif run.record.exists():
        raise UserError(f"`{run.path}` already holds a trained run", "add `--overwrite`, or choose another `--run-dir`")


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
    """Write down what a run was given, in the place of an interrupted one; a finished one stays until this one is.

    On `--resume` refuse the run if it is not given the same.
    """
    if not inputs.config.resume:
        discard(run.checkpoints)
        write_record(run.unfinished, inputs)
        return
    before = read_record(run.unfinished, UnfinishedRun)
    if replace(before, config=inputs.config, precision=inputs.precision) != inputs:
        raise UserError(
            "the data, the base model or the teacher is not that of the interrupted run",
            "restore them, or start again with `--overwrite`",
        )


def checkpoint_path(checkpoints: Path, step: int) -> Path:
    """Return where the state after a step is saved."""
    return checkpoints / f"checkpoint-{step}"


def seal_checkpoint(checkpoint: Path) -> None:
    """Mark a checkpoint as whole, by the sizes of its files."""
    write_text(checkpoint / WHOLE, json.dumps(_sizes(checkpoint)))


def keep_checkpoints(checkpoints: Path, steps: Container[int | None]) -> None:
    """Remove the checkpoints that are not those after `steps`."""
    for step, checkpoint in _by_step(checkpoints).items():
        if step not in steps:
            discard(checkpoint)


def last_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that is whole, as is the best one before it, which training returns to.

    Raises:
        UserError: an older version chose that one, by another measure.
    """
    whole = {step: path for step, path in _by_step(checkpoints).items() if _is_whole(path)}
    for checkpoint in reversed(whole.values()):
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        best = state.get("best_global_step")
        if best is None or best in whole:
            unmeasured = (e for e in state["log_history"] if "eval_loss" in e and f"eval_{MERIT}" not in e)
            if best is not None and any(unmeasured):
                raise UserError(
                    "the interrupted run kept the epoch of the lowest loss, as older versions did",
                    "start again with `--overwrite`",
                )
            return str(checkpoint)
    say("no complete checkpoint to resume from: training starts at the beginning")
    return None


def _by_step(checkpoints: Path) -> dict[int, Path]:
    """Return the checkpoints in the order of their steps, whatever the clock said when they were written."""
    named = {path.name.removeprefix("checkpoint-"): path for path in checkpoints.glob("checkpoint-*")}
    return {int(step): named[step] for step in sorted(filter(str.isdecimal, named), key=int)}


def _is_whole(checkpoint: Path) -> bool:
    try:
        return bool(json.loads((checkpoint / WHOLE).read_text(encoding="utf-8")) == _sizes(checkpoint))
    except (OSError, ValueError):
        return False


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (path for path in sorted(checkpoint.rglob("*")) if path.is_file() and not path.name.startswith(f".{WHOLE}"))
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files if path.name != WHOLE}
