"""One text at a time through buffers that stay where they are, as a CUDA graph asks for; here on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from exporter.engines import onnxruntime as engine
from exporter.engines.captured import Captured
from exporter.engines.onnxruntime import PROVIDERS, OnnxModel, open_engine
from exporter.records import load_export
from trainer.run import RunDir

TEXTS = ["a", "goal race team " * 30, "soup", "goal", "soup and race " * 9, ""]


class OnCpu(Captured):
    """Takes the CPU for the GPU."""

    def __init__(self, open_session: Callable[[], onnxruntime.InferenceSession], labels: int | None) -> None:
        super().__init__(open_session, labels, "cpu")


@pytest.fixture
def model(exported: RunDir, monkeypatch: pytest.MonkeyPatch) -> OnnxModel:
    monkeypatch.setitem(PROVIDERS, "cuda", "CPUExecutionProvider")
    monkeypatch.setattr(engine, "Captured", OnCpu)
    artifact = next(a for a in load_export(exported).artifacts if a.name == "onnx-fp32")
    return open_engine(exported.export / "onnx-fp32", artifact, device="cuda", threads=1).model


def test_answers_are_those_of_a_call_that_is_not_recorded(model: OnnxModel) -> None:
    assert model._captured
    encoded = [*model.encoder.encode(TEXTS)] * 2
    expected = [
        model.session.run(None, model.feeds([e], model.shapes.size(1, len(e))[1]))[0] for e in encoded if model.shapes
    ]
    for e, row in zip(encoded, expected, strict=True):
        np.testing.assert_array_equal(model.run([e]), row)
    together = model.run(encoded)
    np.testing.assert_allclose(together, np.concatenate(expected), atol=1e-5)


def test_there_is_one_recording_a_width(model: OnnxModel) -> None:
    assert model._captured
    for encoded in [*model.encoder.encode(TEXTS)] * 2:
        kept = model.run([encoded]).copy()
        model.run(model.encoder.encode(["another"]))
        np.testing.assert_array_equal(model.run([encoded]), kept)
    widths = {model.shapes.size(1, len(e))[1] for e in model.encoder.encode(TEXTS) if model.shapes}
    assert {*model._captured._slots} == widths


def test_a_model_that_cannot_be_recorded_is_run_as_usual(
    exported: RunDir, model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("a step of this model runs on the host")

    monkeypatch.setattr(OnCpu, "_run_one", refuse)
    plain = OnnxModel(exported.export / "onnx-fp32" / "model.onnx", model.encoder, device="cuda", threads=1)
    assert plain._captured is None
    encoded = model.encoder.encode(TEXTS)
    np.testing.assert_array_equal(plain.run(encoded), model.run(encoded))


def test_what_is_returned_is_not_overwritten(model: OnnxModel) -> None:
    first, second = model.encoder.encode(["goal", "soup"])
    row = model.run([first])
    kept = row.copy()
    model.run([second])
    np.testing.assert_array_equal(row, kept)


def test_a_width_that_cannot_be_recorded_is_run_as_usual(model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    captured, encoded = model._captured, model.encoder.encode([TEXTS[1]])
    assert captured
    expected, asked = model.run(encoded), []

    def refuse(width: int, _: object) -> None:
        asked.append(width)
        raise RuntimeError("no memory is left for this width")

    captured._slots.clear()
    monkeypatch.setattr(captured, "_slot", refuse)
    for _ in range(2):
        np.testing.assert_allclose(model.run(encoded), expected, atol=1e-5)
    assert len(asked) == 1


def test_all_runs_are_in_one_thread_whoever_asks(model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = model._captured
    assert captured
    seen, run = set(), captured._run

    def watched(feeds: dict[str, np.ndarray]) -> np.ndarray:
        seen.add(threading.get_ident())
        return run(feeds)

    monkeypatch.setattr(captured, "_run", watched)
    encoded = model.encoder.encode(TEXTS)
    expected = [model.run([e]) for e in encoded]
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda e: model.run([e]), encoded * 5)]
    for row, same in zip(found, expected * 5, strict=True):
        np.testing.assert_array_equal(row, same)
    assert len(seen) == 1
    assert threading.get_ident() not in seen
