"""A classifier in a process of its own answers as it does here, and says what went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from exporter.engines.engine import ALL_AT_ONCE, Batching
from exporter.engines.onnxruntime import load_engine
from exporter.proof.reference import load_merged
from exporter.proof.worker import Spares, Worker, timed_call
from trainer.errors import UserError
from trainer.run import RunDir

ROOT = Path(__file__).parents[1]


def test_the_clock_is_read_around_the_call_alone() -> None:
    now = [0.0]

    class Slow:
        model, batchings = None, ()

        def logits(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> np.ndarray:
            assert batching == ALL_AT_ONCE
            now[0] += len(texts) * 0.25
            return np.zeros((len(texts), 2), dtype=np.float32)

    def clock() -> float:
        return now[0]

    assert timed_call(Slow(), ["a", "b"], clock=clock) == 0.5


def test_it_answers_as_the_engine_does_here(exported: RunDir) -> None:
    load = partial(load_engine, exported.export / "onnx-fp32", threads=1)
    texts = ["goal race team", "soup"]
    worker = Worker("onnx", load, threads=1, wait=False)
    try:
        expected = load().logits(texts)
        worker.wait()
        np.testing.assert_allclose(worker.logits(texts, Batching(tokens=4096)), expected, atol=1e-5)
        assert 0 < worker.time(texts) < 10
        worker.dismiss()
        deadline = time.monotonic() + 10
        while worker.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not worker.is_alive()
    finally:
        worker.close()


def test_an_engine_that_cannot_be_loaded_says_why(trained: RunDir) -> None:
    with pytest.raises(UserError, match="not an artifact"):
        Worker("onnx", partial(load_engine, trained.adapter, threads=1), threads=1)


def test_whatever_a_runtime_raises_is_told_in_a_line(exported: RunDir) -> None:
    with pytest.raises(UserError, match=r"`odd` failed: RuntimeError: .*nowhere"):
        Worker("odd", partial(load_merged, exported.export / "pytorch-fp32", "nowhere"), threads=1)


def test_a_process_that_dies_is_reported(exported: RunDir) -> None:
    worker = Worker("onnx", partial(load_engine, exported.export / "onnx-fp32", threads=1), threads=1)
    os.kill(worker._process.pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match="`onnx` died with status -9"):
        worker.logits(["a"])
    worker.close()


def sleep_well(_: object, seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes where Linux lists them")
def test_a_process_in_a_long_call_ends_when_the_one_that_started_it_is_killed() -> None:
    code = """
import os, sys
sys.path.insert(0, "tests")
from exporter.proof.worker import Worker
import test_worker
if __name__ == "__main__":
    worker = Worker("x", os.getpid, 1)
    print(worker.call(test_worker.own_pid), flush=True)
    worker.call(test_worker.sleep_well, 600.0)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{child}").exists():
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()


def own_pid(_: object) -> int:
    return os.getpid()


def pretend_to_import() -> None:
    os.environ["IMPORTED"] = str(os.getpid())


def imported_in(_: object) -> tuple[str, int]:
    return os.environ.get("IMPORTED", ""), os.getpid()


def load_slowly(name: str) -> str:
    return name


def test_processes_that_were_started_ahead_load_what_they_are_told_later() -> None:
    spares = Spares(1, [load_slowly], pretend_to_import, ahead=1, most=2)
    loads = [partial(load_slowly, "a"), partial(os.getenv, "b"), partial(load_slowly, "c"), partial(load_slowly, "d")]
    workers = []
    try:
        first = spares._waiting[0].process
        workers = [spares("x", load, 1) for load in loads]
        found = [worker.call(imported_in) for worker in workers]
        assert found[0] == (str(first.pid), first.pid)
        assert [bool(imported) for imported, _ in found] == [True, False, True, False]
        assert len({pid for _, pid in found}) == len(loads)
        assert not spares._waiting
    finally:
        spares.close()
        for worker in workers:
            worker.close()


def test_those_that_nobody_needed_are_ended() -> None:
    spares = Spares(1, [load_slowly], pretend_to_import, ahead=1, most=9)
    (waiting,) = spares._waiting
    worker = spares("x", partial(load_slowly, "a"), 2)  # other threads: not one of them
    assert worker.call(imported_in)[0] == ""
    worker.close()
    spares.close()
    assert not waiting.process.is_alive()


def test_what_goes_wrong_before_a_load_is_told_with_its_name() -> None:
    spares = Spares(1, [load_slowly], partial(int, "no number"), ahead=1, most=1)
    try:
        with pytest.raises(UserError, match=r"`y` failed: ValueError: .*no number"):
            spares("y", partial(load_slowly, "a"), 1)
    finally:
        spares.close()
