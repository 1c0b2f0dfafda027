"""An export, a benchmark or a prediction killed at any moment leaves the earlier result or the new one, whole."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from faults import faults, meets
from local_worker import LOCAL, LocalWorker
from toys import QUICK_BENCH, make_texts, start, write_csv

import exporter.predict
from bench.config import BenchConfig
from bench.engines.table import ENGINES
from bench.results import BenchRecord
from bench.run import bench
from exporter.bundle.artifact import MERGED, ONNX_FP32, ONNX_INT8, open_artifact
from exporter.config import ExportConfig
from exporter.export import export
from exporter.records import load_export
from trainer.records import read_record
from trainer.run import RunDir

FILES = {"adapter", "data", "export", "export.json", "run.json"}
FP32 = [MERGED, ONNX_FP32]
BOTH = [*FP32, ONNX_INT8]
REPORTS = {"bench.json", "bench.md", "bench.csv", "bench.html"}


def export_here(config: ExportConfig) -> None:
    export(config, LocalWorker)


def bench_here(config: BenchConfig) -> None:
    bench(config, replace(LOCAL, engines=[spec for spec in ENGINES if spec.name == "onnx-fp32-cpu"]))


def predict_here(*flags: str) -> None:
    sys.argv = ["predict", *flags]
    exporter.predict.main()


def listed(run: RunDir) -> list[str]:
    """Return the artifacts of the export, each of which has to be whole."""
    return [open_artifact(run.export / artifact.name).name for artifact in load_export(run).artifacts]


@faults((53,))
def test_an_export_killed_anywhere_leaves_a_whole_one_or_none(
    exported: RunDir, tmp_path: Path, fault: int, moments: Iterable[int]
) -> None:
    for moment in moments:
        run = RunDir(Path(shutil.copytree(exported.path, tmp_path / str(moment))))
        again = ExportConfig(run_dir=run.path, verify_samples=8)
        is_met = meets(fault, run.path, moment, export_here, again)
        assert listed(run) in (BOTH, FP32)
        export_here(again)
        assert listed(run) == FP32
        assert {path.name for path in run.path.iterdir()} == FILES
        if not is_met:
            return
        shutil.rmtree(run.path)


@faults((5,))
def test_a_benchmark_killed_anywhere_leaves_a_whole_record_or_none(
    exported: RunDir, tmp_path: Path, fault: int, moments: Iterable[int]
) -> None:
    def restarts() -> int:
        return len(read_record(run.bench_record, BenchRecord).bulks)

    config = BenchConfig(restarts=1, calls=2, grid_calls=0, soak_calls=0, max_eval_samples=8)
    for moment in moments:
        run = RunDir(Path(shutil.copytree(exported.path, tmp_path / str(moment))))
        bench_here(replace(config, run_dir=run.path))
        before = restarts()
        again = replace(config, run_dir=run.path, restarts=2)
        is_met = meets(fault, run.path, moment, bench_here, again)
        assert restarts() in (before, 2 * before)
        bench_here(again)
        assert restarts() == 2 * before
        assert {path.name for path in run.path.iterdir()} == FILES | REPORTS
        if not is_met:
            return
        shutil.rmtree(run.path)


@faults((2,))
def test_a_prediction_killed_anywhere_leaves_the_earlier_answers_or_all(
    exported: RunDir, tmp_path: Path, fault: int, moments: Iterable[int]
) -> None:
    texts = write_csv(tmp_path / "texts.csv", [(text,) for text, _ in make_texts(30)], header=("text",))
    flags = "--artifact", str(exported.export / ONNX_FP32), "--file", str(texts), "--output"
    predict_here(*flags, str(tmp_path / "expected.csv"))
    expected = (tmp_path / "expected.csv").read_text()
    for moment in moments:
        output = tmp_path / str(moment) / "answers.csv"
        output.parent.mkdir()
        output.write_text("earlier")
        is_met = meets(fault, output.parent, moment, predict_here, *flags, str(output))
        assert output.read_text() in ("earlier", expected)
        predict_here(*flags, str(output))
        assert output.read_text() == expected
        assert list(output.parent.iterdir()) == [output]
        if not is_met:
            return


@pytest.mark.slow
@pytest.mark.parametrize("command", ["export", "bench", "predict"])
def test_commands_killed_with_all_their_processes_or_alone(
    exported: RunDir, trained: RunDir, copy_of: Callable[[RunDir], RunDir], tmp_path: Path, command: str
) -> None:
    """Sixty times, at random moments. Killed alone, the processes that it started have to end on their own."""
    run = copy_of(trained if command == "export" else exported)
    answers, before = run.path / "answers.csv", listed(run) if command != "export" else BOTH
    few = ("--calls", "3", "--grid-calls", "0", "--soak-calls", "0")
    line, files = {
        "export": ([*EXPORT, "--quantize", "weight-only", "--verify-samples", "8"], FILES),
        "bench": ([*QUICK_BENCH, "--restarts", "2", *few], FILES | REPORTS),
        "predict": ([*PREDICT, "--file", str(many_texts(tmp_path)), "--output", str(answers)], FILES | {answers.name}),
    }[command]
    line += ["--run-dir", str(run.path)]
    started = time.monotonic()
    assert end(line) == 0
    duration, whole = time.monotonic() - started, answers.read_bytes() if answers.exists() else b""
    rng, killed = random.Random(0), 0
    for number in itertools.count():
        with start(line) as process:
            time.sleep(rng.uniform(0, 1.05) * duration)
            if process.poll() is None:
                killed += 1
                (os.killpg if number % 2 else os.kill)(process.pid, signal.SIGKILL)
            process.communicate()  # whoever holds its pipes has ended, too
        assert listed(run) == before
        if run.bench_record.exists():
            assert read_record(run.bench_record, BenchRecord).bulks
        if answers.exists():
            assert answers.read_bytes() == whole
        if killed == 60:
            break
    assert end(line) == 0
    assert listed(run) == before
    assert {path.name for path in run.path.iterdir()} == files


EXPORT = [sys.executable, "-m", "exporter"]
PREDICT = [sys.executable, "-m", "exporter.predict"]


def end(line: list[str]) -> int:
    """Run a command and return its exit status."""
    with start(line) as process:
        process.communicate()
    return process.returncode


def many_texts(folder: Path) -> Path:
    return write_csv(folder / "texts.csv", [(text,) for text, _ in make_texts(3000)], header=("text",))
