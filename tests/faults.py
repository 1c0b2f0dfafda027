"""Faults on purpose: a function runs in a process of its own, which is killed where it changes files, or cannot.

Changes are what Python announces to audit hooks: a file opened to be written, a folder made, a rename, a removal. Rust
and C++ write on their own between them. The processes are forked from one that has torch loaded, to start at once.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import run_command

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["trainer.training.train", "trainer.pretrain.train", "trainer.adopt.adopt", "exporter.export", "bench.run"]
)


KILL, FULL, READ_ONLY, VANISHED = 0, errno.ENOSPC, errno.EROFS, errno.ENOENT
"""The process dies; from a change on nothing can be written; or changed; or one file that is opened is not there."""
GROWING = ("os.mkdir", "os.truncate", "os.symlink", "os.link")
CHANGES = (*GROWING, "os.rename", "os.remove", "os.rmdir")
MET = {KILL: CHANGES, FULL: GROWING, READ_ONLY: CHANGES, VANISHED: ()}
"""Beside the opening of files: the events that meet a fault."""
SURVIVED = 100
"""The status of a command that succeeded in spite of a fault."""


def faults(killed: Iterable[int]) -> pytest.MarkDecorator:
    """Give a test its `fault` and `moments`: those at which it is killed, and slowly all of every fault."""
    by_name = {"killed": KILL, "full": FULL, "read-only": READ_ONLY, "vanished": VANISHED}
    slow = pytest.mark.slow
    every = [pytest.param(f, range(1, 1000), marks=slow, id=f"{name} at every") for name, f in by_name.items()]
    return pytest.mark.parametrize(("fault", "moments"), [pytest.param(KILL, killed, id="killed"), *every])


def meets(fault: int, root: Path, at: int | str, function: Callable[..., Any], *arguments: object) -> bool:
    """Call a function in another process, with a fault where it changes or opens something below `root`.

    Args:
        fault: which one.
        root: the folder.
        at: the number of the change, from 1, or what the path of the first one to die at contains.
        function: importable, as its arguments have to be picklable.
        arguments: those of the function.

    Returns:
        Whether it got as far. That it ended in anything but success or an error in words is an AssertionError.
    """
    process = PROCESSES.Process(target=_run, args=(fault, root, at, function, arguments))
    process.start()
    process.join()
    expected = (0, -signal.SIGKILL) if fault == KILL else (0, 2, 3, SURVIVED)
    assert process.exitcode in expected, f"{function} ended with status {process.exitcode}"
    return process.exitcode != 0


is_killed = partial(meets, KILL)


def is_killed_after(seconds: float, function: Callable[..., Any], *arguments: object) -> bool:
    """Call a function in another process, kill that after some time, and return whether it was still at work.

    This reaches also what Rust and C++ write.
    """
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"{function} ended with status {process.exitcode}"
    return process.exitcode != 0


def _run(fault: int, root: Path, at: int | str, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    count, is_met, place = 0, False, os.path.join(os.path.realpath(root), "")  # noqa: PTH118 -- the hook must not be slow

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count, is_met
        paths = [path for path in _touched(event, values, fault) if os.path.join(path, "").startswith(place)]  # noqa: PTH118
        count += bool(paths)
        is_place = count == at if isinstance(at, int) else any(at in path for path in paths)
        if not paths or not (is_place or (is_met and fault != VANISHED)):
            return
        if fault == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        is_met = True
        raise OSError(fault, os.strerror(fault), paths[0])

    sys.addaudithook(hook)
    if fault == KILL:
        function(*arguments)
    else:
        sys.exit(run_command(partial(function, *arguments), if_interrupted="again") or SURVIVED * is_met)


def _touched(event: str, values: tuple[Any, ...], fault: int) -> list[str]:
    """Return the absolute paths below which an event can meet a fault."""
    if event == "open":
        path, _, flags = values
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        is_path = isinstance(path, str | os.PathLike)
        return [os.path.realpath(path)] if is_path and bool(writes) != (fault == VANISHED) else []
    if event not in MET[fault]:
        return []
    below = values[-1] if event in ("os.remove", "os.rmdir") else -1  # shutil.rmtree names files below a descriptor
    folder = os.readlink(f"/proc/self/fd/{below}") if below >= 0 else ""  # noqa: PTH115
    names = (value for value in values[:2] if isinstance(value, str | os.PathLike))
    return [os.path.abspath(os.path.join(folder, name)) for name in names]  # noqa: PTH100, PTH118
