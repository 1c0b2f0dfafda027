"""Failures end as `error:` and `hint:` on stderr with the right exit status."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from exporter.proof.verify import VerificationError
from trainer.errors import UserError, run_command


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
