"""The benchmark: what it times, what it counts, what it prints, and what it does with a backend that is not there."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toys import INTERRUPTED, start

import bench.__main__
from bench.accuracy import score
from bench.backends import SPECS, choose_specs, load_backend, why_unusable
from bench.config import BenchConfig
from bench.report import render
from bench.results import Accuracy, BackendInfo, BenchRecord, Environment, Skipped, Timing
from bench.run import bench as run_bench
from exporter.artifacts import load_export
from exporter.budget import count_changes
from exporter.checksums import IntegrityError
from trainer.errors import UserError
from trainer.records import read_record, write_record
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]
CPU = ["adapter-fp32-cpu", "pytorch-fp32-cpu", "onnx-fp32-cpu", "onnx-int8-cpu"]


def test_changes_by_hand() -> None:
    assert count_changes([0, 0, 0, 1, 0], [0, 1, 1, 0, 1], truth=[0, 0, 1, 1, 2]) == (2, 1)


def test_a_confident_mistake_costs_what_it_should() -> None:
    assert score("x", np.float32([[0, 40], [0, 1]]), [0, 1]).loss == pytest.approx((40 + np.log(1 + np.exp(-1))) / 2)


def test_scores_are_those_of_scikit_learn() -> None:
    logits = np.log(np.float32([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2]]))
    scores = score("x", logits, [0, 1, 2])
    assert (scores.reviews, scores.predicted) == (3, (0, 1, 0))
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.f1_weighted == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.loss == pytest.approx(-np.log([0.7, 0.6, 0.2]).mean(), abs=1e-6)


def make_record() -> BenchRecord:
    """A record by hand: int8 is twice as fast, turns one answer wrong and two right."""
    names = ["pytorch-fp32-cpu", "onnx-int8-cpu"]
    answers = {names[0]: (0, 0, 0, 1), names[1]: (0, 1, 1, 0)}
    return BenchRecord(
        config=BenchConfig(run_dir=Path("runs/x"), batch_sizes=(1,), calls=3),
        export_sha256="0",
        chosen="onnx-int8",
        labels=(0, 1, 1, 1),
        label_names=("no", "yes"),
        environment=Environment("Linux x86_64", "A CPU", 4, 2, None, {"onnxruntime": "1.2"}),
        backends=(
            BackendInfo(names[0], "pytorch-fp32", "cpu", 268_000_000),
            BackendInfo(names[1], "onnx-int8", "cpu", 67_400_000),
        ),
        skipped=(Skipped("onnx-fp32-cuda", "no CUDA device"),),
        accuracies=(
            Accuracy(names[0], 4, 0.5, 0.45, 0.7, answers[names[0]]),
            Accuracy(names[1], 4, 0.75, 0.74, 0.6, answers[names[1]]),
        ),
        timings=(Timing(names[0], 1, (0.020, 0.022, 0.024)), Timing(names[1], 1, (0.010, 0.011, 0.012))),
        duration_s=1.0,
        finished_at="2026-01-01T00:00:00+00:00",
    )


class TestReport:
    def test_the_table_says_what_the_record_holds(self) -> None:
        header, rule, *rows = render(make_record()).splitlines()[:5]
        assert [cell.strip() for cell in header.split("|")[1:7]] == [
            "backend", "accuracy", "weighted F1", "loss", "worse / better", "MB"
        ]  # fmt: skip
        assert set(rule) == set("|-:")
        assert [cell.strip() for cell in rows[1].split("|")[1:-1]] == [
            "onnx-int8-cpu", "75.00%", "74.00%", "0.600", "1 / 2", "67.4", "11.0 [10.5, 11.5]", "2.00× [2.00, 2.00]"
        ]  # fmt: skip
        assert "1.00× [1.00, 1.00]" in rows[0]
        assert len({len(line) for line in (header, rule, *rows)}) == 1

    def test_the_verdict_names_folder_speed_accuracy_and_size(self) -> None:
        assert (
            "Ship `runs/x/export/onnx-int8`: 2.00× [2.00, 2.00] the speed of `pytorch-fp32-cpu` at batch 1, "
            "+25.00 points of accuracy on 4 reviews, 67.4 MB."
        ) in render(make_record())

    def test_what_was_not_measured_is_a_row_with_its_reason(self) -> None:
        text = render(make_record())
        assert "- `onnx-fp32-cuda`: no CUDA device" in text
        (row,) = [line for line in text.splitlines() if line.startswith("| onnx-fp32-cuda")]
        assert {cell.strip() for cell in row.split("|")[2:-1]} == {"–"}

    def test_without_the_usual_baseline_the_first_backend_is_it(self) -> None:
        record = make_record()
        text = render(replace(record, backends=record.backends[1:]))
        assert "times faster than `onnx-int8-cpu`" in text
        assert "Ship `runs/x/export/onnx-int8` (67.4 MB)." in text

    def test_a_record_round_trips(self, tmp_path: Path) -> None:
        write_record(tmp_path / "bench.json", make_record())
        assert read_record(tmp_path / "bench.json", BenchRecord) == make_record()


class TestBackends:
    def test_an_unknown_name_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(UserError, match="no backend `onnx`") as error:
            choose_specs(["onnx"])
        assert "onnx-int8-cpu" in error.value.hint

    def test_reasons(self, exported: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        export = load_export(exported)
        without_int8 = replace(export, artifacts=export.artifacts[:2])
        specs = {spec.name: spec for spec in SPECS}
        assert why_unusable(specs["onnx-int8-cpu"], export, None) is None
        assert "no `onnx-int8`" in str(why_unusable(specs["onnx-int8-cpu"], without_int8, None))
        assert why_unusable(specs["pytorch-bf16-cuda"], export, None) == "no CUDA device"
        assert why_unusable(specs["pytorch-bf16-cuda"], export, "H100") is None
        monkeypatch.setattr("bench.backends.get_available_providers", lambda: ["CPUExecutionProvider"])
        assert "onnxruntime-gpu" in str(why_unusable(specs["onnx-fp32-cuda"], export, "H100"))
        monkeypatch.setattr("bench.backends.get_available_providers", lambda: ["CUDAExecutionProvider"])
        assert why_unusable(specs["onnx-fp32-cuda"], export, "H100") is None

    def test_without_torch_its_backends_say_so(self, exported: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(UserError, match="PyTorch is not installed"):
            load_backend(choose_specs(["pytorch-fp32-cpu"])[0], exported, threads=1)

    def test_threads_are_those_of_the_budget(self, exported: RunDir) -> None:
        import torch

        before = torch.get_num_threads()
        try:
            load_backend(choose_specs(["pytorch-fp32-cpu"])[0], exported, threads=1)
            assert torch.get_num_threads() == 1
        finally:
            torch.set_num_threads(before)


def test_the_whole_benchmark(exported: RunDir, copy_of: Callable[[RunDir], RunDir], command: Command) -> None:
    run = copy_of(exported)
    status, out, _ = command(bench.__main__.main, "--run-dir", run.path, "--calls", 5, "--batch-sizes", 1, 4)
    assert status == 0
    record = read_record(run.bench_record, BenchRecord)
    measured = [info.name for info in record.backends]
    assert set(measured) | {s.backend for s in record.skipped} == {spec.name for spec in SPECS}
    assert [name for name in measured if name.endswith("cpu")] == CPU
    assert {(t.backend, t.batch_size, len(t.samples_s)) for t in record.timings} == {
        (name, size, 5) for name in measured for size in (1, 4)
    }
    training = run.load().training
    assert training is not None
    best = training.best
    for scores in record.accuracies:
        assert scores.reviews == 32
        assert scores.accuracy == pytest.approx(best.accuracy, abs=0.07)
    assert record.accuracies[0].loss == pytest.approx(best.loss, abs=1e-4)
    assert record.backends[1].size_bytes == load_export(run).artifacts[0].size_bytes
    assert run.bench_report.read_text() in out + "\n"
    assert f"Ship `{run.export / load_export(run).chosen}`" in out


def test_fewer_backends_and_reviews_on_request(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(exported)
    config = BenchConfig(
        run.path, backends=("onnx-int8-cpu",), calls=2, batch_sizes=(1,), max_eval_samples=7, threads=1
    )
    record = run_bench(config)
    assert [scores.reviews for scores in record.accuracies] == [7]
    assert record.skipped == ()
    assert record.environment.threads == 1


def test_not_one_usable_backend_is_an_error(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(exported)
    with pytest.raises(UserError, match="not one backend"):
        run_bench(BenchConfig(run.path, backends=("onnx-fp16-cuda",)))
    assert not run.bench_record.exists()


def test_benchmarking_before_exporting_is_an_error(trained: RunDir, command: Command, tmp_path: Path) -> None:
    status, _, err = command(bench.__main__.main, "--run-dir", trained.path)
    assert status == 2
    assert "error: no export in" in err
    assert "hint: run `python -m exporter --quantize` first" in err
    status, _, err = command(bench.__main__.main, "--run-dir", tmp_path)
    assert status == 2
    assert "error: no trained run in" in err


def test_a_changed_artifact_is_an_error_even_where_another_backend_could_be_measured(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(exported)
    (run.export / "onnx-fp32" / "model.onnx").write_bytes(b"x")
    with pytest.raises(IntegrityError):
        run_bench(BenchConfig(run.path, backends=("onnx-int8-cpu", "onnx-fp32-cpu"), calls=1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.export_record.write_text(run.export_record.read_text()[:-40]), "cut short"),
        (lambda run: run.export_record.write_text(json.dumps({"kind": "ExportRecord", "schema": 99})), "schema 99"),
        (lambda run: (run.export / "onnx-fp32" / "model.onnx").write_bytes(b"x"), "changed after the export"),
    ],
)
def test_a_damaged_export_is_refused_or_skipped_with_its_reason(
    exported: RunDir,
    copy_of: Callable[[RunDir], RunDir],
    command: Command,
    damage: Callable[[RunDir], object],
    message: str,
) -> None:
    run = copy_of(exported)
    damage(run)
    status, _, err = command(bench.__main__.main, "--run-dir", run.path, "--backends", "onnx-fp32-cpu")
    assert status == 2
    assert message in err


@pytest.mark.parametrize("moment", ["loading onnx-int8-cpu", "timing"])
def test_an_interrupted_benchmark_leaves_no_record_and_no_process(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], moment: str
) -> None:
    run = copy_of(exported)
    command = [sys.executable, "-m", "bench", "--run-dir", str(run.path), "--backends", *CPU[2:], "--calls", "1000000"]
    # A terminal sends Ctrl-C to the whole group: the workers must not answer it with tracebacks of their own.
    with start(command) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith(moment):
                time.sleep(0.2)
                os.killpg(process.pid, signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode in INTERRUPTED
    assert re.fullmatch(r"error: interrupted\n\nhint: .*\n", rest)
    assert not run.bench_record.exists()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived the benchmark")
