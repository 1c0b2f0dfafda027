"""Errors that a user can fix, and the one place that prints them."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

TRAIN_EXTRA = ("accelerate", "datasets", "huggingface_hub", "onnx", "optimum", "peft", "plotly", "rich", "safetensors",
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


def run_command(main: Callable[[], None], *, if_interrupted: str) -> int:
    """Run a command and turn its failure into `error:` and `hint:` lines on stderr.

    Args:
        main: the command; an exception that is not handled here is a bug of ours and keeps its traceback.
        if_interrupted: the hint after Ctrl-C.

    Returns:
        The exit status: 0, the error's own (2 unless it says otherwise), or 130 after Ctrl-C.
    """
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", if_interrupted, 130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN_EXTRA:
            raise
        return _fail(f"the package `{error.name}` is not installed", "run `pip install 'lora2onnx[train]'`", 2)
    except Exception as error:
        if not _is_disk_full(error):
            raise
        return _fail("no space left on the disk", "free some space and run the command again", 2)
    return 0


def _fail(message: str, hint: str, exit_code: int) -> int:
    sys.stderr.write(f"error: {message}\n\nhint: {hint}\n")
    return exit_code


def _is_disk_full(error: BaseException | None) -> bool:
    """Return whether `error`, or an error that caused it, is a full disk.

    safetensors and ONNX report it as text inside an exception of their own; PyTorch's checkpoints report only that
    less was written than expected.
    """
    signs = (os.strerror(errno.ENOSPC), "inline_container.cc")
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or any(sign in str(error) for sign in signs):
            return True
        error = error.__cause__ or error.__context__
    return False
