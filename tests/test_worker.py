"""A classifier in a process of its own answers as it does here, and says what went wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from exporter.engines.engine import ALL_AT_ONCE, Batching
from exporter.engines.onnxruntime import load_engine
from exporter.proof.reference import load_merged
from exporter.proof.worker import Worker, timed_call
from trainer.errors import UserError
from trainer.run import RunDir


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

    assert timed_call(Slow(), ["a", "b"], clock) == 0.5


def test_it_answers_as_the_engine_does_here(exported: RunDir) -> None:
    load = partial(load_engine, exported.export / "onnx-fp32", threads=1)
    texts = ["goal race team", "soup"]
    worker = Worker("onnx", load, threads=1)
    try:
        expected = load().logits(texts)
        np.testing.assert_allclose(worker.logits(texts, Batching(tokens=4096)), expected, atol=1e-5)
        assert 0 < worker.time(texts) < 10
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
