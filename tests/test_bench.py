"""The benchmark as a whole: what it leaves, and what it does with an engine that fails or is not there."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_records import AGAIN, REFERENCE
from toys import INTERRUPTED, start, write_csv

import bench.__main__
import bench.engines.table
import bench.measure.cores
import bench.measure.restart
import bench.run
from bench.config import BenchConfig
from bench.judge.summary import summarise
from bench.judge.verdict import recommend
from bench.measure import calls as measure
from bench.measure.calls import timed
from bench.report.tables import markdown
from bench.results import BenchRecord, Skipped
from bench.run import bench as run_bench
from exporter.checksums import IntegrityError
from trainer.errors import UserError
from trainer.records import read_record
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]
CPU = ["adapter-fp32-cpu", "pytorch-fp32-cpu", "onnx-fp32-cpu", "onnx-int8-cpu"]
QUICK = ["--restarts", "1", "--calls", "3", "--grid-calls", "0", "--soak-calls", "0"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmark without processes, where torch is imported already: for tests that are about something else."""

    class Worker:
        def __init__(self, _: str, load: Callable[[], Any], threads: int) -> None:  # noqa: ARG002
            self.engine = load()

        def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
            return function(self.engine, *arguments)

        def close(self) -> None:
            pass

    monkeypatch.setattr(bench.measure.restart, "Worker", Worker)
    monkeypatch.setattr(bench.engines.table, "pin", lambda _: None)
    monkeypatch.setattr(bench.run, "_machine", lambda *_: None)


def check_reports(run: RunDir, record: BenchRecord, out: str) -> None:
    """Hold the files and the console to what the record says."""
    summary = summarise(record)
    recommendation = recommend(record, summary)
    assert run.bench_report.read_text() == markdown(record, summary, recommendation)
    page = run.bench_report.with_suffix(".html")
    assert "</html>" in page.read_text()
    assert out.endswith(f"{recommendation.sentence}\n\nreport: {page}\n")
    assert "per million texts" in recommendation.sentence


@pytest.mark.usefixtures("in_this_process")
def test_the_whole_benchmark(
    exported: RunDir,
    copy_of: Callable[[RunDir], RunDir],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench.measure.restart, "COLD_STARTS", 1)
    run = copy_of(exported)
    own = write_csv(tmp_path / "mine.csv", [("soup and bread", "food"), ("a goal again", "sport")])
    flags = ["--restarts", 2, "--calls", 5, "--soak-calls", 30, "--texts", own, "--price-per-hour", 0.4]
    threads = ["--threads", torch.get_num_threads()]  # of this process: others' sums depend on it
    status, out, _ = command(bench.__main__.main, "--run-dir", run.path, *flags, *threads)
    assert status == 0
    record = read_record(run.bench_record, BenchRecord)
    assert record.is_complete
    names = [info.name for info in record.engines]
    assert sorted(names) == sorted(CPU)
    assert [s.engine for s in record.skipped] == ["all engines on CUDA"]
    both = [*names, AGAIN]
    assert {(s.engine, len(s.total_s), len(s.run_s)) for s in record.singles} == {(n, 5, 5) for n in both}
    assert sorted((b.engine, sum(b.texts)) for b in record.bulks) == sorted([(n, 16) for n in both] * 2)
    tried = {(n, how) for n in names for how in measure.TOKEN_BATCHES}
    assert {(t.engine, t.batching) for t in record.batching_trials} == tried
    cells = {(n, restart, b, 24) for n in names for restart in (0, 1) for b in (1, 8)}
    assert {(g.engine, g.restart, g.batch, g.length) for g in record.grids} == cells
    assert sorted(c.engine for c in record.cold_starts) == sorted(names)
    assert all((m.peak_bytes or 0) >= (m.loaded_bytes or 0) > 1e6 for m in record.memories)
    assert [(s.engine, len(s.tokens), len(s.rss_bytes)) for s in record.soaks] == [
        (s.engine, 30, 30) for s in record.soaks
    ]
    assert {s.engine for s in record.soaks} == set(names)
    assert len(record.own_tokens) == 2
    training = run.load().training
    assert training
    for scores in record.accuracies:
        assert scores.texts == 32
        assert scores.accuracy == pytest.approx(training.best.accuracy, abs=0.07)
    loss = next(a.loss for a in record.accuracies if a.engine == REFERENCE)
    assert loss == pytest.approx(training.best.loss, abs=1e-4)
    check_reports(run, record, out)


@pytest.mark.usefixtures("in_this_process")
def test_fewer_engines_and_texts_on_request_and_all_over_again(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], command: Command
) -> None:
    run = copy_of(exported)
    config = BenchConfig(
        run.path,
        engines=("onnx-int8-cpu",),
        restarts=2,
        calls=3,
        grid_calls=0,
        soak_calls=0,
        max_eval_samples=7,
        threads=1,
    )
    record = run_bench(config)
    assert [scores.texts for scores in record.accuracies] == [7]
    assert [(s.engine, s.restart) for s in record.singles if s.engine == record.reference] == [
        ("onnx-int8-cpu", 0), ("onnx-int8-cpu", 1)
    ]  # fmt: skip
    assert (record.skipped, record.grids, record.soaks, record.environment.threads) == ((), (), (), 1)
    flags = ["--run-dir", run.path, "--engines", "onnx-int8-cpu", *QUICK, "--threads", 1]
    status, out, _ = command(bench.__main__.main, *flags, "--against", run.bench_record)
    assert status == 0
    assert f"against {run.bench_record}:\nspeed over the reference, as a multiple of what it was:\nonnx-int8-cpu" in out
    status, _, err = command(bench.__main__.main, *flags[:-1], 2, "--against", run.bench_record)
    assert status == 2
    assert "was measured on another machine: threads 1, here 2" in err


@pytest.mark.usefixtures("in_this_process")
def test_what_is_timed_has_to_answer_as_what_was_scored(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.measure.restart, "SAME_ANSWER", -1.0)
    config = BenchConfig(copy_of(exported).path, engines=("onnx-fp32-cpu",), restarts=1, calls=2, grid_calls=0)
    with pytest.raises(UserError, match="not one engine") as error:
        run_bench(config)
    assert "answers otherwise when it is timed than when it is scored" in error.value.hint


def fail_when_timed(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """Let an engine fail once it is timed, though it has loaded."""
    call = bench.measure.restart.Guarded.call

    def fails(self: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        if function is timed and self._name == engine:
            raise bench.measure.restart.EngineFailedError(self._name, UserError("out of memory", ""))
        return call(self, function, *arguments)

    monkeypatch.setattr(bench.measure.restart.Guarded, "call", fails)


TWO = {"engines": ("onnx-int8-cpu", "onnx-fp32-cpu"), "calls": 2, "grid_lengths": (1, 1000), "soak_calls": 2}


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("fails", "stays"), [("onnx-int8-cpu", "onnx-fp32-cpu"), ("onnx-fp32-cpu", "onnx-int8-cpu")])
def test_an_engine_that_fails_on_the_way_is_dropped_and_the_others_go_on(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch, fails: str, stays: str
) -> None:
    """Even the reference, before anything is compared with it."""
    fail_when_timed(monkeypatch, fails)
    record = run_bench(BenchConfig(copy_of(exported).path, restarts=1, **TWO))
    assert [info.name for info in record.engines] == [stays]
    assert record.skipped == (Skipped(fails, "out of memory"),)
    assert {s.engine for s in record.singles} == {stays, f"{stays} (again)"}
    assert {m.engine for m in record.memories} | {s.engine for s in record.soaks} == {stays}
    assert record.reference == stays
    assert {cell.length for cell in record.grids} == {3, 24}  # a word between its two special tokens, and the longest
    assert {bulk.batching for bulk in record.bulks} == {record.bulks[0].batching}  # both processes batch alike


@pytest.mark.usefixtures("in_this_process")
def test_an_engine_that_fails_once_is_asked_once_more(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = bench.measure.restart.Restart.measure, []

    def fails_first(self: Any) -> None:
        begun.append(self._number)
        begin(self)
        if begun == [0, 1]:  # what it has measured by now is not to count twice
            raise bench.measure.restart.EngineFailedError("onnx-int8-cpu", UserError("out of memory", ""))

    monkeypatch.setattr(bench.measure.restart.Restart, "measure", fails_first)
    record = run_bench(BenchConfig(copy_of(exported).path, restarts=2, **TWO))
    assert begun == [0, 1, 1]
    assert record.skipped == ()
    assert sorted((s.engine, s.restart) for s in record.singles if s.engine == "onnx-int8-cpu") == [
        ("onnx-int8-cpu", 0), ("onnx-int8-cpu", 1)
    ]  # fmt: skip


@pytest.mark.usefixtures("in_this_process")
def test_without_its_reference_a_benchmark_ends_and_what_was_compared_with_it_is_kept(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(exported)
    done = bench.run.Progress.done

    def fails_from_now_on(self: Any, share: float) -> None:
        fail_when_timed(monkeypatch, "onnx-fp32-cpu")
        done(self, share)

    monkeypatch.setattr(bench.run.Progress, "done", fails_from_now_on)
    with pytest.raises(UserError, match="out of memory"):
        run_bench(BenchConfig(run.path, restarts=2, **TWO))
    kept = read_record(run.bench_record, BenchRecord)
    assert not kept.is_complete
    assert {s.restart for s in kept.singles} == {0}


def test_not_one_usable_engine_is_an_error(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(exported)
    with pytest.raises(UserError, match="not one engine"):
        run_bench(BenchConfig(run.path, engines=("onnx-fp16-cuda",)))
    assert not run.bench_record.exists()


def test_benchmarking_before_exporting_is_an_error(trained: RunDir, command: Command, tmp_path: Path) -> None:
    status, _, err = command(bench.__main__.main, "--run-dir", trained.path)
    assert status == 2
    assert "error: no export in" in err
    assert "hint: run `python -m exporter --quantize` first" in err
    status, _, err = command(bench.__main__.main, "--run-dir", tmp_path)
    assert status == 2
    assert "error: no trained run in" in err


def test_a_changed_artifact_is_an_error_even_where_another_engine_could_be_measured(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(exported)
    (run.export / "onnx-fp32" / "model.onnx").write_bytes(b"x")
    with pytest.raises(IntegrityError):
        run_bench(BenchConfig(run.path, engines=("onnx-int8-cpu", "onnx-fp32-cpu"), calls=2))


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
    status, _, err = command(bench.__main__.main, "--run-dir", run.path, "--engines", "onnx-fp32-cpu")
    assert status == 2
    assert message in err


@pytest.mark.parametrize(("moment", "is_kept"), [("measuring what", False), ("restart 2", True)])
def test_an_interrupted_benchmark_keeps_what_was_measured_and_leaves_no_process(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], moment: str, *, is_kept: bool
) -> None:
    run = copy_of(exported)
    quick = ["--calls", "3", "--restarts", "2", "--grid-calls", "0", "--soak-calls", "0"]
    command = [sys.executable, "-m", "bench", "--run-dir", str(run.path), "--engines", *CPU[2:], *quick]
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
    assert re.search(r"error: interrupted\n\nhint: .*\n$", rest)
    assert "Traceback" not in rest
    assert run.bench_record.exists() == is_kept
    if is_kept:
        assert not read_record(run.bench_record, BenchRecord).is_complete
        assert run.bench_report.read_text().startswith("**Partial")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process was left behind")
