"""What takes a CUDA device: `python -m pytest -m gpu`, a part of `make gpu`."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.config import BenchConfig
from bench.run import bench
from exporter.config import ExportConfig
from exporter.engines.engine import ONE_BY_ONE
from exporter.engines.onnxruntime import GPU_BATCHING, PROVIDERS
from exporter.export import export
from exporter.half.recipes import HALF_RECIPES
from exporter.records import load_export
from exporter.runtime import Classifier
from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.run import RunDir
from trainer.training.train import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CALLS = 2000
GROWTH = 64 * 2**20
"""In bytes, of the whole card: less than one copy of what any batch takes."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of the built-in sample, trained and exported on the card."""
    path = tmp_path_factory.mktemp("gpu") / "run"
    train(TrainConfig(path, model="sample", dataset="sample", device="cuda", epochs=1))
    export(ExportConfig(path, target="cuda", max_drop=100), plan_seconds=3)
    return RunDir(path)


def texts_of_all_lengths(number: int) -> list[str]:
    rng = random.Random(0)
    words = ["film", "good", "bad", "never", "again", "plot", "I", "liked", "it"]
    return [" ".join(rng.choices(words, k=rng.randint(1, 400))) for _ in range(number)]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "auto"])
def test_it_trains_in_every_precision(toy_config: TrainConfig, tmp_path: Path, precision: str) -> None:
    result = train(replace(toy_config, device="cuda", precision=precision, run_dir=tmp_path / "run"))  # type: ignore[arg-type]
    assert result is not None
    assert np.isfinite(result.training.best.loss)
    assert result.training.device == torch.cuda.get_device_name()


def test_half_precision_is_judged_and_timed_there(run: RunDir) -> None:
    record = load_export(run)
    assert record.gpu
    assert [c.recipe for c in record.candidates] == [recipe.name for recipe in HALF_RECIPES]
    assert record.chosen in ("onnx-fp16", "onnx-fp32")
    assert record.attention
    speeds = {s.name: s.texts_per_s.median for s in record.gpu_speeds}
    assert {"onnx-fp32", "pytorch-fp16", "pytorch-bf16", *(c.recipe for c in record.candidates)} == {*speeds}
    if record.chosen == "onnx-fp16":
        assert speeds[record.fp16_recipe or ""] > 0.9 * speeds["onnx-fp32"]


@pytest.mark.parametrize("artifact", ["onnx-fp32", "onnx-fp16"])
def test_a_classifier_answers_as_on_the_cpu(run: RunDir, artifact: str) -> None:
    texts = texts_of_all_lengths(200)
    on = {device: Classifier.load(run.export / artifact, device=device) for device in ("cpu", "cuda")}  # type: ignore[arg-type]
    rows = {
        device: np.array([[*p.probabilities.values()] for p in classifier.predict(texts)])
        for device, classifier in on.items()
    }
    np.testing.assert_allclose(rows["cuda"], rows["cpu"], atol=0.02)


def test_memory_does_not_grow(run: RunDir) -> None:
    classifier = Classifier.load(run.export / "onnx-fp16", device="cuda")
    texts = texts_of_all_lengths(CALLS)
    for batching in (ONE_BY_ONE, GPU_BATCHING):  # every size once
        classifier.engine.logits(texts, batching)
    before, _ = torch.cuda.mem_get_info()
    for text in texts:
        classifier.engine.logits([text])
    classifier.engine.logits(texts, GPU_BATCHING)
    after, _ = torch.cuda.mem_get_info()
    assert before - after < GROWTH


def test_every_row_on_the_card_is_measured(run: RunDir) -> None:
    names = ("onnx-fp32-cuda", "onnx-fp16-cuda", "pytorch-fp32-cuda", "pytorch-bf16-cuda", "pytorch-fp16-cuda")
    config = BenchConfig(run.path, engines=names, calls=5, restarts=1, cold_starts=1, soak_calls=20)
    record = bench(config)
    assert not record.skipped
    scores = {accuracy.engine: accuracy.accuracy for accuracy in record.accuracies}
    assert all(scores[name] == pytest.approx(scores["pytorch-fp32-cuda"], abs=0.07) for name in names)


def test_a_provider_that_falls_back_is_an_error(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "cuda", "TensorrtExecutionProvider")  # it comes with the package, its library not
    with pytest.raises(UserError, match="fell back from `TensorrtExecutionProvider`"):
        Classifier.load(run.export / "onnx-fp16", device="cuda")
