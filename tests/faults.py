"""Faults on purpose: a function runs in a process of its own, which is killed where it changes files below a folder.

Changes are what Python announces to audit hooks: a file opened to be written, a folder made, a rename, a removal. Rust
and C++ write on their own between them. The processes are forked from one that has torch loaded, to start at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link")
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["trainer.train", "trainer.pretrain.train", "trainer.adopt.adopt", "exporter.export", "bench.run"]
)


EVERY = pytest.param(range(1, 1000), marks=pytest.mark.slow, id="every")
"""All moments at which a command could be killed."""


def is_killed(root: Path, at: int | str, function: Callable[..., Any], *arguments: object) -> bool:
    """Call a function in another process and kill that at a change below `root`.

    Args:
        root: the folder.
        at: the number of the change, from 1, or what the path of the first one to die at contains.
        function: importable, as its arguments have to be picklable.
        arguments: those of the function.

    Returns:
        Whether it got as far. Otherwise the function has returned: that it raised is an AssertionError.
    """
    process = PROCESSES.Process(target=_run, args=(root, at, function, arguments))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"{function} ended with status {process.exitcode}"
    return process.exitcode != 0


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


def _run(root: Path, at: int | str, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    count, place = 0, os.path.join(os.path.realpath(root), "")  # noqa: PTH118 -- the hook must not be slow

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        paths = [path for path in _changed(event, values) if os.path.join(path, "").startswith(place)]  # noqa: PTH118
        count += bool(paths)
        if paths and (count == at if isinstance(at, int) else any(at in path for path in paths)):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    function(*arguments)


def _changed(event: str, values: tuple[Any, ...]) -> list[str]:
    """Return the absolute paths that an event changes."""
    if event == "open":
        path, _, flags = values
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return [os.path.realpath(path)] if writes and isinstance(path, str | os.PathLike) else []
    if event not in CHANGES:
        return []
    below = values[-1] if event in ("os.remove", "os.rmdir") else -1  # shutil.rmtree names files below a descriptor
    folder = os.readlink(f"/proc/self/fd/{below}") if below >= 0 else ""  # noqa: PTH115
    names = (value for value in values[:2] if isinstance(value, str | os.PathLike))
    return [os.path.abspath(os.path.join(folder, name)) for name in names]  # noqa: PTH100, PTH118
