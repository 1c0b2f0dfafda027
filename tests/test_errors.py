"""Failures end as `error:` and `hint:` on stderr with the right exit status."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE

import pytest
from safetensors import SafetensorError

from exporter.proof.verify import VerificationError
from trainer.errors import UserError, run_command

WAITING = """
import os, signal, sys, time
from pathlib import Path
from trainer.errors import run_command

def main():
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)  # by the child: Python drops a signal that comes just after a fork
        time.sleep(60)
    try:
        print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        time.sleep(60)
    finally:
        Path(sys.argv[1], "cleaned").touch()

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(run_command(main, if_interrupted="go on"))
"""


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("broken", "fix it"), 2),
        (VerificationError("different", "look"), 3),
        (KeyboardInterrupt(), 130),
        (RuntimeError("basic_ios::clear: iostream error"), 2),
        (MemoryError(), 2),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4000000000000 bytes."), 2),
        (PermissionError(errno.EACCES, "Permission denied", "runs/default/run.json"), 2),
        (OSError(errno.EROFS, "Read-only file system", "runs/default/run.json"), 2),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "texts.csv"), 2),
        (SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 71936 vs 71828"), 2),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 2),
    ],
)
def test_exit_status(error: BaseException, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(error), if_interrupted="again") == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "\n\nhint: " in err


def test_a_cause_deep_down_is_found() -> None:
    def main() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("could not write") from error

    assert run_command(main, if_interrupted="") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_what_can_clean_up_and_spares_the_children(number: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path)], stdout=PIPE, stderr=PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        child = int(process.stdout.readline())
        os.kill(child, signal.SIGTERM)
        assert process.stdout.readline() == f"child ended with {signal.SIGTERM + 128}\n"
        process.send_signal(number)
        assert process.wait() == 128 + number
        assert process.stderr.read() == "error: interrupted\n\nhint: go on\n"
    assert (tmp_path / "cleaned").exists()


def test_a_command_outside_of_the_main_thread_takes_no_signals() -> None:
    with ThreadPoolExecutor() as pool:
        assert pool.submit(run_command, lambda: None, if_interrupted="").result() == 0


def test_our_own_defects_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), if_interrupted="")


def test_a_package_of_the_train_extra_that_is_absent_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModuleNotFoundError("No module named 'sklearn.metrics'", name="sklearn.metrics")
    assert run_command(raising(error), if_interrupted="") == 2
    assert "pip install 'lora2onnx[train]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):
        run_command(raising(ModuleNotFoundError(name="trainer.nonsense")), if_interrupted="")


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: None, if_interrupted="") == 0
    assert capsys.readouterr() == ("", "")
