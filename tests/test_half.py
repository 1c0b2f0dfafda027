"""Half precision where there is a GPU, with the CPU in its place: what is tried, judged, chosen and recorded."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_worker import LocalWorker

from exporter.bundle.artifact import CARD
from exporter.config import ExportConfig
from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching
from exporter.engines.onnxruntime import PROVIDERS
from exporter.engines.plan import fitting_plan, machine_kind, plan_path
from exporter.engines.shapes import FewShapes
from exporter.export import export
from exporter.half.attention import ASKS, kernels_of, open_telling
from exporter.half.device import usable_gpu
from exporter.half.ladder import Halves, Made
from exporter.half.recipes import HALF_RECIPES
from exporter.int8.paired import pair
from exporter.proof.reference import load_trained, open_merged
from exporter.records import ExportRecord, Variation, load_export
from exporter.report import summary
from exporter.runtime import Classifier
from trainer.errors import UserError
from trainer.run import RunDir
from trainer.tasks import SingleLabel


def on_the_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        return function(*("cpu" if argument == "cuda" else argument for argument in arguments))

    return call


@pytest.fixture(scope="module")
def stand_in() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROVIDERS, "cuda", "CPUExecutionProvider")
        patch.setattr("exporter.export.usable_gpu", lambda: "a card")
        patch.setattr("exporter.engines.plan.gpu_name", lambda: "a card")
        patch.setattr("exporter.steps.fp32.load_trained", on_the_cpu(load_trained))
        for step in ("fp32", "half"):
            patch.setattr(f"exporter.steps.{step}.open_merged", on_the_cpu(open_merged))
        yield


@pytest.fixture(scope="module")
def halved(trained: RunDir, tmp_path_factory: pytest.TempPathFactory, stand_in: None) -> ExportRecord:  # noqa: ARG001
    import shutil

    path = tmp_path_factory.mktemp("half") / "run"
    shutil.copytree(trained.path, path)
    config = ExportConfig(run_dir=path, target="cuda", verify_samples=8, max_drop=100)
    return export(config, LocalWorker, plan_seconds=0.1)


def test_every_recipe_is_judged_and_timed_beside_fp32_and_pytorch(halved: ExportRecord) -> None:
    names = [recipe.name for recipe in HALF_RECIPES]
    assert [c.recipe for c in halved.candidates] == names
    assert all(c.family == "half" and c.bulk and c.change.tried == len(names) for c in halved.candidates)
    assert [s.name for s in halved.gpu_speeds] == ["onnx-fp32", *names, "pytorch-fp16", "pytorch-bf16"]
    assert all(s.alone_ms.median > 0 and s.texts_per_s.median > 0 for s in halved.gpu_speeds)


def test_speeds_are_ratios_to_fp32_in_the_same_rounds() -> None:
    answers = pair(SingleLabel(2), np.array([0, 1]), np.array([0, 1]), np.array([0, 1]))
    made = Made("fp16-fused", 7, {}, answers, 0.0, Variation("in batches", 1, 0, 0.0))
    alone = {"onnx-fp32": (0.004, 0.006), "fp16-fused": (0.002, 0.002), "pytorch-fp16": (0.001, 0.001)}
    bulk = {"onnx-fp32": (1.0, 1.0), "fp16-fused": (0.5, 0.25), "pytorch-fp16": (2.0, 2.0)}
    halves = Halves((made,), (), alone, bulk, bulk_texts=100)
    (candidate,) = halves.candidates(max_drop=0.5)
    assert candidate.bulk
    assert (candidate.speed.median, candidate.bulk.median) == (2.5, 3.0)
    fp32, fused, torch = halves.speeds()
    assert (fp32.alone_ms.median, fp32.texts_per_s.median) == (5.0, 100.0)
    assert (fused.texts_per_s.median, torch.name, torch.texts_per_s.median) == (300.0, "pytorch-fp16", 50.0)


def test_the_best_is_kept_and_the_choice_follows_from_the_figures(halved: ExportRecord) -> None:
    run = RunDir(halved.config.run_dir)
    assert halved.gpu == "a card"
    (best,) = [c for c in halved.candidates if c.recipe == halved.fp16_recipe]
    faster = [
        c for c in halved.candidates if c.bulk and min(c.speed.high, c.bulk.high) >= 1 < max(c.speed.low, c.bulk.low)
    ]
    assert (halved.chosen == "onnx-fp16") == bool(faster)
    if faster:
        assert best == max(faster, key=lambda c: c.bulk.median if c.bulk else 0)
    assert load_export(run) == halved
    report = summary(halved)
    assert "recipes for half precision on a card" in report
    assert "pytorch-bf16" in report
    assert "a card" in (run.export / "onnx-fp16" / CARD).read_text()


def test_a_plan_for_the_gpu_lies_beside_that_for_the_cpu(halved: ExportRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunDir(halved.config.run_dir).export / halved.chosen
    assert plan_path(folder, "cuda") != plan_path(folder)
    plan = fitting_plan(folder, os.cpu_count() or 1, "cuda")
    assert plan is not None
    assert plan.cpu.startswith("a card, ")
    assert fitting_plan(folder, os.cpu_count() or 1) is None
    assert plan.way.batching.streams == 1
    for name in ("another card", None):
        monkeypatch.setattr("exporter.engines.plan.gpu_name", lambda name=name: name)
        assert fitting_plan(folder, os.cpu_count() or 1, "cuda") is None
    unknown = replace(plan, cpu=machine_kind("cuda"))
    assert not unknown.fits(plan.artifact_sha256, plan.threads, "cuda")  # it could be any card's


def test_a_classifier_on_the_gpu_answers_as_on_the_cpu(halved: ExportRecord) -> None:
    folder = RunDir(halved.config.run_dir).export / "onnx-fp16"
    texts = [f"{'a film that I ' * (i % 9)}liked {i}" for i in range(70)]
    gpu, cpu = (Classifier.load(folder, device=device) for device in ("cuda", "cpu"))
    assert [p.label for p in gpu.predict(texts)] == [p.label for p in cpu.predict(texts)]
    for batching in (ALL_AT_ONCE, ONE_BY_ONE, Batching(tokens=128)):
        np.testing.assert_allclose(gpu.engine.logits(texts, batching), cpu.logits(texts), atol=0.02)


def test_a_gpu_sees_few_sizes() -> None:
    shapes = FewShapes(longest=200)
    assert [shapes.size(1, 5), shapes.size(3, 64), shapes.size(9, 65), shapes.size(65, 193)] == [
        (1, 64),
        (8, 64),
        (64, 128),
        (256, 200),
    ]
    assert shapes.size(5, 300) == (8, 300)  # whoever asks for more gets it
    assert len({shapes.size(rows, width) for rows in range(1, 1025) for width in range(1, 201)}) == 5 * 4


@given(
    st.lists(st.integers(1, 200), max_size=400), st.sampled_from([None, 1, 20, 1024]), st.sampled_from([None, 64, 999])
)
def test_every_text_is_in_one_batch_of_a_size_that_is_allowed(
    lengths: list[int], texts: int | None, tokens: int | None
) -> None:
    shapes = FewShapes(longest=200)
    batches = shapes.batches(lengths, texts, tokens)
    assert sorted(i for batch in batches for i in batch) == [*range(len(lengths))]
    for batch in batches:
        rows, width = shapes.size(len(batch), max(lengths[i] for i in batch))
        assert texts is None or len(batch) <= texts
        assert tokens is None or rows * width <= tokens or rows == 1
        assert (rows - len(batch)) * width <= 2048 * len(batch)  # padding that single calls would not have


def test_a_long_text_does_not_make_many_others_wider() -> None:
    shapes = FewShapes(longest=200)
    assert shapes.batches([5, 190, 6] + [7] * 40, None, None)[-1] == [1]
    assert shapes.batches([5, 190, 6], None, None) == [[0, 2, 1]]
    assert [len(batch) for batch in shapes.batches([7] * 90, None, None)] == [64, 26]  # of 64: padding is cheap there
    assert [len(batch) for batch in shapes.batches([190] * 90, None, None)] == [64, 8, 8, 8, 2]
    assert [len(batch) for batch in shapes.batches([7] * 600, None, 32_768)] == [256, 256, 64, 24]


def test_the_kernels_are_those_that_onnxruntime_prints(capfd: pytest.CaptureFixture[str]) -> None:
    class Printing:
        def logits(self, texts: list[str], _: Batching) -> None:
            assert texts == ["a"]
            os.write(1, b"Operator=Attention SdpaKernel=CUDNN_FLASH_ATTENTION\nSdpaKernel=MATH\nother\n")

    def load() -> Any:
        assert os.environ[ASKS] == "1"
        return Printing()

    engine = open_telling(load)
    assert ASKS not in os.environ
    assert kernels_of(engine, ["a"], ONE_BY_ONE) == ("cudnn-flash-attention", "math")
    os.write(1, b"seen again\n")
    assert capfd.readouterr().out == "seen again\n"


def test_a_gpu_that_one_of_the_two_cannot_use_is_none(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert usable_gpu() is None
    assert "finds no CUDA device" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setitem(PROVIDERS, "cuda", "CUDAExecutionProvider")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert usable_gpu() is None
    assert "replace the package `onnxruntime` by `onnxruntime-gpu`" in capsys.readouterr().err


def test_a_provider_that_falls_back_is_an_error(halved: ExportRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "cuda", "CUDAExecutionProvider")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="has no `CUDAExecutionProvider`"):
        Classifier.load(RunDir(halved.config.run_dir).export / "onnx-fp16", device="cuda")
