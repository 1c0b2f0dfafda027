"""A run, a bundle and a benchmark made by an early version (commit 1218b36) still predict, export and compare."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from local_worker import LocalWorker

import exporter.__main__
import exporter.predict
from bench.config import BenchConfig
from bench.judge.against import compare, load_earlier
from bench.judge.summarise import summarise
from bench.results import BenchRecord
from exporter.export import export
from exporter.records import load_export
from exporter.runtime import Classifier
from trainer.records import file_sha256, read_record
from trainer.run import RunDir

DATA = Path(__file__).parent / "data"
OLD = RunDir(DATA / "run-1218b36")
EXPECTED = json.loads((OLD.path / "expected.json").read_text())


@pytest.fixture
def old(tmp_path: Path) -> RunDir:
    """A copy whose base model lies where this machine has it: a run names its base by an absolute path."""
    run = RunDir(Path(shutil.copytree(OLD.path, tmp_path / "run")))
    before = file_sha256(run.record)
    run.record.write_text(run.record.read_text().replace("/toy/checkpoint", str(DATA / "checkpoint-1218b36")))
    run.export_record.write_text(run.export_record.read_text().replace(before, file_sha256(run.record)))
    return run


@pytest.mark.parametrize(("name", "tolerance"), [("onnx-fp32", 1e-3), ("onnx-int8", 0.3)])
def test_a_bundle_answers_as_it_did(name: str, tolerance: float) -> None:
    """Int8 within what another CPU and another batch may move it by."""
    found = Classifier.load(OLD.export / name).logits(EXPECTED["texts"])
    np.testing.assert_allclose(found, EXPECTED[name], atol=tolerance)
    assert (found.argmax(-1) == np.argmax(EXPECTED[name], -1)).all()


def test_a_run_predicts_with_the_artifact_that_was_chosen(command: object, old: RunDir) -> None:
    status, out, _ = command(exporter.predict.main, "--run-dir", old.path, *EXPECTED["texts"])  # type: ignore[operator]
    assert status == 0
    names = load_export(old).artifacts[0].label_names
    labels = [names[i] for i in np.argmax(EXPECTED["onnx-fp32"], -1)]
    assert [line.split()[0] for line in out.splitlines()] == labels


def test_a_run_is_exported_again(command: object, old: RunDir) -> None:
    main = partial(exporter.__main__.main, partial(export, start=LocalWorker))
    status, _, _ = command(main, "--run-dir", old.path, "--verify-samples", 8)  # type: ignore[operator]
    assert status == 0
    found = Classifier.load(old.export / "onnx-fp32").logits(EXPECTED["texts"])
    np.testing.assert_allclose(found, EXPECTED["onnx-fp32"], atol=1e-3)


def test_a_benchmark_is_compared_with() -> None:
    record = read_record(OLD.bench_record, BenchRecord)
    summary = summarise(record)
    shippable = {row.info.name for row in summary.rows if row.info.can_ship}
    assert shippable == {"pytorch-fp32-cpu", "onnx-fp32-cpu", "onnx-int8-cpu"}
    assert (summary.restarts, summary.calls) == (2, 3)
    earlier = load_earlier(OLD.bench_record, BenchConfig(against=OLD.bench_record), record.environment)
    differences = {d.engine: d for d in compare(earlier, summary)}
    assert set(differences) == {"adapter-fp32-cpu", "pytorch-fp32-cpu", "onnx-fp32-cpu", "onnx-int8-cpu"}
    assert not any(d.is_worse for d in differences.values())
    accuracy = differences["onnx-int8-cpu"].accuracy
    assert accuracy
    assert (accuracy.harmful, accuracy.helpful, accuracy.texts) == (0, 0, 32)
