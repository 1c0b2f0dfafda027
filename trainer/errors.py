"""Errors that a user can fix, and the one place that prints them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from trainer.text.characters import visible

TRAIN_EXTRA = ("accelerate", "datasets", "huggingface_hub", "onnx", "peft", "plotly", "rich", "safetensors",
               "scipy", "sklearn", "torch", "transformers")  # fmt: skip
"""What the extra `train` installs and a deployed classifier does not need."""


class UserError(Exception):
    """A failure caused by the input or the machine, with a hint how to get past it.

    Args:
        message: what went wrong and where; lower case, names in backticks, no full stop.
        hint: the next thing to try, in the same style.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)  # both, so that it can be pickled to another process
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class Terminated(KeyboardInterrupt):
    """SIGTERM, which stops a command as Ctrl-C does."""


def run_command(main: Callable[[], None], *, if_interrupted: str) -> int:
    """Run a command and turn its failure into `error:` and `hint:` lines on stderr.

    Args:
        main: the command; an exception that is not handled here is a bug of ours and keeps its traceback.
        if_interrupted: the hint after Ctrl-C and after SIGTERM.

    Returns:
        The exit status: 0, the error's own (2 unless it says otherwise), 130 after Ctrl-C, or 143 after SIGTERM.
    """
    try:
        with _sigterm_interrupts():
            main()
            sys.stdout.flush()
    except UserError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except KeyboardInterrupt as interrupt:
        return _fail("interrupted", if_interrupted, 143 if isinstance(interrupt, Terminated) else 130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN_EXTRA:
            raise
        return _fail(f"the package `{error.name}` is not installed", "run `pip install 'lora2onnx[train]'`", 2)
    except Exception as error:
        if (reason := _reason_outside(error)) is None:
            raise
        return _fail(*reason, 2)
    return 0


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise Terminated in this process; its children still end by it."""
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if os.getpid() != process:
            os._exit(128 + number)
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread, which alone may ask for signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str, hint: str, exit_code: int) -> int:
    sys.stderr.write(f"error: {visible(message)}\n\nhint: {visible(hint)}\n")  # they quote files of strangers
    return exit_code


FULL = "no space left on the disk", "free some space and run the command again"
SIGNS_OF_FULL = (os.strerror(errno.ENOSPC), "inline_container.cc", "iostream error")
MEMORY = "not enough memory", "close other programs, or give smaller values for batches, lengths and sizes"
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What a file may answer that may not be written or read."""


def _reason_outside(failure: BaseException) -> tuple[str, str] | None:
    """Return message and hint where `failure`, or an error that caused it, comes from the disk or the memory.

    safetensors and ONNX report a full disk as text inside an exception of their own; PyTorch's checkpoints report only
    that less was written than expected.
    """
    error: BaseException | None = failure
    while error is not None:
        number, path, text = getattr(error, "errno", None), getattr(error, "filename", None), str(error)
        if number in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in SIGNS_OF_FULL):
            return FULL
        if isinstance(error, MemoryError) or "not enough memory" in text or type(error).__name__ == "OutOfMemoryError":
            return MEMORY
        if number in DENIED or any(f"(os error {code})" in text for code in DENIED):
            where = f"`{path}`" if path else "a file"
            return f"{where} cannot be opened: {os.strerror(number or errno.EACCES).lower()}", "check its permissions"
        if number == errno.ENAMETOOLONG:
            return f"the name `{str(path)[:60]}…` is too long", "check it"
        if error is failure and number == errno.ENOENT and path:
            return f"`{path}` is missing or was removed meanwhile", "restore it, and run the command again"
        error = error.__cause__ or error.__context__
    return None
