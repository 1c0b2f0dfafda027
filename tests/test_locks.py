"""One command at a time writes a folder; who holds it is told, and the dead hold nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.data.sources import Source
from trainer.errors import UserError
from trainer.locks import LOCK, hold, is_held
from trainer.run import RunDir

HOLD = """
import sys, time
from pathlib import Path
from trainer.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
COUNT = """
import sys
from pathlib import Path
from trainer.errors import UserError
from trainer.locks import hold
folder, counter, left = Path(sys.argv[1]), Path(sys.argv[2]), 40
while left:
    try:
        with hold(folder):
            counter.write_text(str(int(counter.read_text()) + 1))
            left -= 1
    except UserError:
        pass
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder), "a\nb"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_the_folder_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    with holder(folder) as process:
        with pytest.raises(UserError, match="is used by another command") as error, hold(folder):
            pass
        told = re.search(r": `(.*)` \(process (\d+), started \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\)$", error.value.message)
        assert told
        assert int(told[2]) == process.pid
        assert str(folder) in told[1]
        assert "\n" not in error.value.message
        process.send_signal(signal.SIGKILL)
    assert (folder / LOCK).exists()
    with hold(folder):
        assert f"process {os.getpid()}," in (folder / LOCK).read_text()
    assert folder.is_dir()
    assert not list(folder.iterdir())


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with hold(tmp_path / "empty"):
        assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "empty").exists()
    with hold(tmp_path / "full"):
        (tmp_path / "full" / "result").touch()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["result"]


def test_no_two_of_many_hold_it_at_once(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "folder"), str(counter)]
    for process in [subprocess.Popen(command) for _ in range(4)]:
        assert process.wait() == 0
    assert counter.read_text() == "160"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), hold(tmp_path / place):
        pass


def test_only_the_first_process_of_several_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with hold(tmp_path):
            pass
        monkeypatch.delenv("RANK")
        assert (tmp_path / LOCK).exists()


def test_a_lock_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(UserError, match="not a regular file"), hold(tmp_path):
        pass


def test_a_name_that_cannot_stand_in_a_record_is_refused_before_any_work(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    with pytest.raises(UserError, match="not valid UTF-8"), hold(folder):
        pass
    assert not folder.exists()
    with pytest.raises(UserError, match="not valid UTF-8"):
        Source(str(folder), None, None)


def test_a_run_that_is_not_in_place_yet_is_held_like_any_other(
    trained: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(trained)
    new = RunDir(run.path / "run.partial")
    new.path.mkdir()
    for path in (run.record, run.adapter, run.evaluation.parent):
        path.rename(new.path / path.name)
    with run.held():
        assert is_held(run.path)
    assert run.load()
