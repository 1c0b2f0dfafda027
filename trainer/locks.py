"""The lock on a folder that a command writes: two commands in one run directory would mix their files.

The lock is the kernel's, so that a process takes its own with it when it dies, however it dies. The text in the file
only tells the next one who holds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import UserError
from trainer.text.characters import is_unicode

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
"""The name of the lock in its folder; whoever lists the folder ignores it."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What some network file systems answer, where nobody can be refused."""
_HELD: set[Path] = set()
"""The folders that this process holds."""


def is_first_process() -> bool:
    """Return whether this is the only process of a command, or the first of a distributed training."""
    return os.environ.get("RANK", "0") == "0"


def is_held(folder: Path) -> bool:
    """Return whether this process holds `folder`."""
    return folder.resolve() in _HELD


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock on `folder`, which is made if it is missing, while the `with` block runs.

    Of a distributed training, the first process holds it for all. On Windows there is no lock.

    Raises:
        UserError: another command holds it, or the folder cannot be written.
    """
    if sys.platform == "win32" or not is_first_process():
        yield
        return
    was_there, key = folder.exists(), folder.resolve()
    lock = _acquire(folder)
    _HELD.add(key)
    try:
        yield
    finally:
        _HELD.discard(key)
        # Removed while the lock is held: afterwards the path may already be the next holder's.
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
            if not was_there:
                folder.rmdir()  # where nothing was written
        os.close(lock)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file for this process; return False if another one holds it, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def _acquire(folder: Path) -> int:
    """Return a descriptor of the locked file."""
    if not is_unicode(str(folder.resolve())):  # it will stand in records and reports
        raise UserError(f"the name of `{folder.resolve()}` is not valid UTF-8", "choose another folder")
    while True:
        lock = _open(folder)
        if try_lock(lock) is False:
            holder = os.pread(lock, 2000, 0).decode(errors="replace") or "one that has just started"
            os.close(lock)
            raise UserError(
                f"`{folder}` is used by another command: {holder}",
                "wait until it has ended or stop it, or choose another folder",
            )
        if _is_still(folder / LOCK, lock):
            os.truncate(lock, 0)
            os.pwrite(lock, _myself().encode("utf-8", "surrogateescape"), 0)
            return lock
        os.close(lock)  # its holder removed it between our opening and locking


def _open(folder: Path) -> int:
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            # Its holder may have removed the folder, too.
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                if not stat.S_ISREG(os.fstat(lock).st_mode):
                    os.close(lock)
                    raise OSError(errno.EINVAL, f"{LOCK} is not a regular file")
                return lock
    except OSError as error:
        raise UserError(
            f"`{folder}` cannot be written: {(error.strerror or str(error)).lower()}",
            "make it a folder that you may write, or choose another one",
        ) from None


def _is_still(path: Path, lock: int) -> bool:
    """Return whether `path` is the file that was locked."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(lock))
    except FileNotFoundError:
        return False


def _myself() -> str:
    """Return this process in words, printable."""
    command = "".join(c if c.isprintable() else "?" for c in shlex.join(sys.orig_argv))
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_started()))
    return f"`{command}` (process {os.getpid()}, started {started})"


def _started() -> float:
    """Return when this process started; where the system does not say, now."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return time.time()
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
