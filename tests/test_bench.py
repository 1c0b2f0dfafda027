"""The benchmark as a whole: what it leaves, and what it does with an engine that fails or is not there."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_engine
from bench_records import REFERENCE
from cascades import give_openvino, put_into
from local_worker import LOCAL
from toy_engine import Majority, failing, in_the_grid
from toys import INTERRUPTED, QUICK_BENCH, start, write_csv

import bench.__main__
from bench.config import BenchConfig
from bench.engines.table import ENGINES
from bench.judge.summarise import summarise
from bench.measure.instruments import Instruments
from bench.measure.restart import _gap
from bench.report.tables import markdown
from bench.results import BenchRecord, Skipped
from bench.run import bench as run_bench
from exporter.cascade.trial import CascadeJudged, CascadeTrial
from exporter.checksums import CHECKSUMS, IntegrityError
from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching, ModelEngine, usual_batching
from exporter.engines.onnxruntime import load_engine
from exporter.engines.spec import EngineSpec
from exporter.engines.table import LOAD
from exporter.int8.budget import accuracy_change
from exporter.records import ExportRecord
from trainer.errors import UserError
from trainer.records import file_sha256, read_record, write_record
from trainer.run import RunDir
from trainer.tasks import FloatArray, SingleLabel

Command = Callable[..., tuple[int, str, str]]
CPU = ["adapter-fp32-cpu", "pytorch-fp32-cpu", "onnx-fp32-cpu", "onnx-int8-cpu"]
SECOND = f"{REFERENCE} (again)"
QUICK = ["--restarts", "1", "--calls", "3", "--grid-calls", "0", "--soak-calls", "0"]


BY_NAME = {spec.name: spec for spec in ENGINES}
BENCH = partial(bench.__main__.main, partial(run_bench, instruments=LOCAL))


def with_engines(*specs: EngineSpec) -> Instruments:
    return replace(LOCAL, engines=[*({**BY_NAME, **{spec.name: spec for spec in specs}}.values())])


def check_reports(run: RunDir, record: BenchRecord, out: str) -> None:
    """Hold the files and the console to what the record says."""
    summary = summarise(record)
    assert run.bench_report.read_text() == markdown(summary)
    page = run.bench_report.with_suffix(".html")
    assert "</html>" in page.read_text()
    assert out.endswith(f"{summary.recommendation.sentence}\n\nreport: {page}\n")
    assert "per million texts" in summary.recommendation.sentence


def test_the_whole_benchmark(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], command: Command, tmp_path: Path
) -> None:
    run = copy_of(exported)
    own = write_csv(tmp_path / "mine.csv", [("soup and bread", "food"), ("a goal again", "sport")])
    flags = ["--restarts", 2, "--calls", 5, "--soak-calls", 30, "--texts", own, "--price-per-hour", 0.4]
    threads = ["--threads", torch.get_num_threads()]  # of this process: others' sums depend on it
    status, out, _ = command(BENCH, "--run-dir", run.path, *flags, *threads)
    assert status == 0
    record = read_record(run.bench_record, BenchRecord)
    assert record.is_complete
    names = [info.name for info in record.engines]
    assert sorted(names) == sorted(CPU)
    assert [s.engine for s in record.skipped] == ["cascade-int8-cpu", "all engines on CUDA"]
    both = [*names, SECOND]
    assert {(s.engine, len(s.total_s), len(s.run_s)) for s in record.singles} == {(n, 5, 5) for n in both}
    assert sorted((b.engine, sum(b.texts)) for b in record.bulks) == sorted([(n, 16) for n in both] * 2)
    ours = {n for n in names if n.startswith("onnx")}  # they know their way
    tried = {(n, batching.name) for n in {*names} - ours for batching in ModelEngine.batchings}
    tried |= {(n, usual_batching(torch.get_num_threads()).name) for n in ours}
    assert {(t.engine, t.batching) for t in record.batching_trials} == tried
    cells = {(n, restart, b, 24) for n in names for restart in (0, 1) for b in (1, 8)}
    assert {(g.engine, g.restart, g.batch, g.length) for g in record.grids} == cells
    assert sorted(c.engine for c in record.cold_starts) == sorted(names * 2)
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
    judged = {a.engine: a.change.tried for a in record.accuracies if a.change}
    recipes = len(read_record(run.export_record, ExportRecord).candidates)
    assert judged == {n: max(3, recipes) if n == "onnx-int8-cpu" else 3 for n in names if n != REFERENCE}
    loss = next(a.loss for a in record.accuracies if a.engine == REFERENCE)
    assert loss == pytest.approx(training.best.loss, abs=1e-4)
    check_reports(run, record, out)


def test_a_cascade_is_a_row_that_says_how_much_its_first_stage_answered(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(exported)
    put_into(run.export / "onnx-int8")
    export = read_record(run.export_record, ExportRecord)
    sha256 = export.artifact_sha256 | {"onnx-int8": file_sha256(run.export / "onnx-int8" / CHECKSUMS)}
    write_record(run.export_record, replace(export, artifact_sha256=sha256))
    config = BenchConfig(run.path, engines=("onnx-int8-cpu", "cascade-int8-cpu"), restarts=1, calls=4, soak_calls=0)
    summary = run_bench(config, LOCAL)
    row, alone = summary.row("cascade-int8-cpu"), summary.row("onnx-int8-cpu")
    assert row
    assert alone
    assert row.accuracy
    assert row.throughput
    assert alone.throughput
    share = row.throughput.first_stage_share
    assert 0 < (share or 0) < 1
    assert alone.throughput.first_stage_share is None
    said = f"`cascade-int8-cpu` answered {share:.0%} of the texts. A cascade lowers the median and not the tail"
    assert said in run.bench_report.read_text()
    assert "lowers the median and not the tail" in run.bench_report.with_suffix(".html").read_text()


@pytest.mark.parametrize("is_judged", [True, False])
def test_a_cascade_before_openvino_is_judged_with_the_candidates_for_that(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch, is_judged: bool
) -> None:
    monkeypatch.setattr("exporter.engines.spec.is_installed", lambda _: True)
    monkeypatch.setattr("exporter.engines.openvino.load_engine", load_engine)
    monkeypatch.setitem(LOAD, "openvino", load_engine)
    run = copy_of(exported)
    give_openvino(run)
    artifact = put_into(run.export / "onnx-int8-openvino")
    export, change = read_record(run.export_record, ExportRecord), accuracy_change(0, 0, 32)
    judged = CascadeJudged(0.5, change, "within budget") if is_judged else None
    trial = CascadeTrial(shipped=is_judged, reason="", artifact=artifact.name, judged=judged)
    sha256 = export.artifact_sha256 | {artifact.name: file_sha256(run.export / artifact.name / CHECKSUMS)}
    export = replace(
        export,
        artifacts=(*export.artifacts, artifact),
        artifact_sha256=sha256,
        candidates=(*export.candidates, *(replace(c, engine="openvino") for c in export.candidates[:3])),
        cascade=CascadeTrial(shipped=False, reason="it is not cheaper here", artifact="onnx-int8"),
        cascade_openvino=trial,
    )
    write_record(run.export_record, export)
    names = ("onnx-int8-openvino", "cascade-int8-openvino", "onnx-int8-cpu")
    run_bench(BenchConfig(run.path, engines=names, restarts=1, calls=4, soak_calls=0), LOCAL)
    record = read_record(run.bench_record, BenchRecord)
    tried = {a.engine: a.change.tried for a in record.accuracies if a.change}
    assert record.reference == "onnx-int8-cpu"
    assert tried == dict.fromkeys(names[:2], 3 + is_judged)
    assert record.cascade == (trial if is_judged else None)


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
    run_bench(config, LOCAL)
    record = read_record(run.bench_record, BenchRecord)
    assert [scores.texts for scores in record.accuracies] == [7]
    assert [(s.engine, s.restart) for s in record.singles if s.engine == record.reference] == [
        ("onnx-int8-cpu", 0), ("onnx-int8-cpu", 1)
    ]  # fmt: skip
    assert (record.skipped, record.grids, record.soaks, record.environment.threads) == ((), (), (), 1)
    flags = ["--run-dir", run.path, "--engines", "onnx-int8-cpu", *QUICK, "--max-eval-samples", 7, "--threads", 1]
    status, out, _ = command(BENCH, *flags, "--against", run.bench_record)
    assert status == 0
    assert f"compared with {run.bench_record}:\nspeed over the reference, now divided by then:\nonnx-int8-cpu" in out
    status, _, err = command(BENCH, *flags[:-1], 2, "--against", run.bench_record)
    assert status == 2
    assert "was measured on another machine: threads 1, here 2" in err


def test_a_comparison_of_nothing_is_an_error(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], command: Command, tmp_path: Path
) -> None:
    """A check in CI that cannot fail would pass everything."""
    run, earlier = copy_of(exported), tmp_path / "earlier.json"
    flags = ["--run-dir", run.path, "--engines", "onnx-int8-cpu", "onnx-fp32-cpu", *QUICK]
    assert command(BENCH, *flags)[0] == 0
    values = json.loads(run.bench_record.read_text())
    earlier.write_text(json.dumps(values | {"singles": [], "bulks": [], "accuracies": []}))
    status, _, err = command(BENCH, *flags, "--against", earlier)
    assert status == 2
    assert "has no measurement of an engine to measure now" in err
    short = [single | {"total_s": single["total_s"][1:]} for single in values["singles"][:1]] + values["singles"][1:]
    earlier.write_text(json.dumps(values | {"singles": short}))
    status, _, err = command(BENCH, *flags, "--against", earlier)
    assert status == 2
    assert "do not fit one another" in err
    earlier.write_text(json.dumps(values | {"evaluation_sha256": "other", "singles": [], "bulks": []}))
    status, _, err = command(BENCH, *flags, "--against", earlier)
    assert status == 2
    assert "nothing of the earlier benchmark could be compared" in err


def test_an_export_that_is_replaced_while_it_is_measured_is_noticed(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(exported)

    def replace_export(*_: object) -> dict[str, float]:
        run.export_record.write_text(run.export_record.read_text() + "\n")
        return {"total_s": 1.0, "import_s": 0.5, "load_s": 0.25, "first_s": 0.125}

    config = BenchConfig(run.path, engines=("onnx-fp32-cpu",), restarts=2, calls=2, grid_calls=0, soak_calls=0)
    with pytest.raises(UserError, match="was replaced while it was measured"):
        run_bench(config, replace(LOCAL, cold_start=replace_export))
    assert read_record(run.bench_record, BenchRecord).export_sha256 == file_sha256(exported.export_record)


def test_what_is_timed_has_to_answer_as_what_was_scored(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    class Fickle(Majority):
        def logits(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> FloatArray:
            return super().logits(texts) * (-1 if batching == ONE_BY_ONE and len(texts) == 1 else 1)

    (majority,) = toy_engine.ENGINES
    fickle = replace(majority, load=lambda *_: Fickle(np.float32([[3, 0, 0, 0]])))
    config = BenchConfig(copy_of(exported).path, engines=("majority",), restarts=1, calls=2, grid_calls=0)
    with pytest.raises(UserError, match="no engine can be used") as error:
        run_bench(config, with_engines(fickle))
    assert "answers differently when timed than when scored" in error.value.hint


def test_a_text_that_its_batch_changes_more_than_others_is_timed_all_the_same() -> None:
    """Dynamic int8 rounds a text by the largest activation of its batch: one of 40 differed by 0.0502."""
    task, scored = SingleLabel(2), np.zeros((40, 2), np.float32)
    probabilities = np.full((40, 2), 0.5)
    probabilities[7] = 0.3, 0.7
    calls = [SimpleNamespace(probabilities=tuple(row)) for row in probabilities]
    assert _gap("x", task, scored, calls) == pytest.approx(0.2)  # type: ignore[arg-type]
    calls[7].probabilities = (0.2, 0.8)
    with pytest.raises(UserError, match=r"differs by 0\.3, on average by 0\.0075"):
        _gap("x", task, scored, calls)  # type: ignore[arg-type]
    for call in calls:
        call.probabilities = (0.44, 0.56)
    with pytest.raises(UserError, match=r"differs by 0\.06, on average by 0\.06"):
        _gap("x", task, scored, calls)  # type: ignore[arg-type]


TWO: dict[str, Any] = {
    "engines": ("onnx-int8-cpu", "onnx-fp32-cpu"), "calls": 2, "grid_lengths": (1, 1000), "soak_calls": 2
}  # fmt: skip


@pytest.mark.parametrize(("fails", "stays"), [("onnx-int8-cpu", "onnx-fp32-cpu"), ("onnx-fp32-cpu", "onnx-int8-cpu")])
def test_an_engine_that_fails_on_the_way_is_dropped_and_the_others_go_on(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], fails: str, stays: str
) -> None:
    """Even the reference, before anything is compared with it."""
    run = copy_of(exported)
    run_bench(BenchConfig(run.path, restarts=1, **TWO), with_engines(failing(BY_NAME[fails], range(99))))
    record = read_record(run.bench_record, BenchRecord)
    assert [info.name for info in record.engines] == [stays]
    assert record.skipped == (Skipped(fails, "out of memory"),)
    assert {s.engine for s in record.singles} == {stays, f"{stays} (again)"}
    assert {m.engine for m in record.memories} | {s.engine for s in record.soaks} == {stays}
    assert record.reference == stays
    assert {cell.length for cell in record.grids} == {3, 24}  # a word between its two special tokens, and the longest
    assert {bulk.batching for bulk in record.bulks} == {record.bulks[0].batching}  # both processes batch alike


def test_an_engine_that_fails_once_is_asked_once_more_and_nothing_counts_twice(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(exported)
    once = failing(BY_NAME["onnx-int8-cpu"], [1], in_the_grid)  # the second process, after most of it was measured
    run_bench(BenchConfig(run.path, restarts=2, **TWO), with_engines(once))
    record = read_record(run.bench_record, BenchRecord)
    assert record.skipped == ()
    both = [("onnx-int8-cpu", 0), ("onnx-int8-cpu", 1)]
    for rows in (record.singles, record.bulks):
        assert sorted((r.engine, r.restart) for r in rows if r.engine == "onnx-int8-cpu") == both
    assert {m.engine for m in record.memories} == {"onnx-int8-cpu", "onnx-fp32-cpu"}


def test_without_its_reference_a_benchmark_ends_and_what_was_compared_with_it_is_kept(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(exported)
    later = failing(BY_NAME["onnx-fp32-cpu"], range(2, 99))  # it has two processes in each restart
    with pytest.raises(UserError, match="out of memory"):
        run_bench(BenchConfig(run.path, restarts=2, **TWO), with_engines(later))
    kept = read_record(run.bench_record, BenchRecord)
    assert not kept.is_complete
    assert {s.restart for s in kept.singles} == {0}


def test_an_engine_that_cannot_be_prepared_is_a_row_with_its_reason(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    """A baseline whose training data is not the run's any more could have seen the evaluation texts."""
    run = copy_of(exported)
    data = Path(run.load().dataset.name)
    run.record.write_text(run.record.read_text().replace(str(data), str(data.with_name("gone.csv"))))
    export = run.export_record.read_text()
    run.export_record.write_text(export.replace(load_export_sha(export), file_sha256(run.record)))
    config = BenchConfig(run.path, engines=("onnx-fp32-cpu", "tfidf-logistic-regression"), restarts=1, calls=2)
    summary = run_bench(config, LOCAL)
    assert [row.info.name for row in summary.rows] == ["onnx-fp32-cpu"]
    assert [s.engine for s in summary.skipped] == ["tfidf-logistic-regression"]
    assert "gone.csv" in summary.skipped[0].reason


def load_export_sha(export: str) -> str:
    return str(json.loads(export)["run_sha256"])


def test_not_one_usable_engine_is_an_error(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(exported)
    with pytest.raises(UserError, match="no engine can be used"):
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


@pytest.mark.parametrize(("moment", "is_kept"), [("measuring the limits", False), ("restart 2", True)])
def test_an_interrupted_benchmark_keeps_what_was_measured_and_leaves_no_process(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], moment: str, *, is_kept: bool
) -> None:
    run = copy_of(exported)
    quick = ["--calls", "3", "--restarts", "2", "--grid-calls", "0", "--soak-calls", "0"]
    command = [*(QUICK_BENCH if is_kept else [sys.executable, "-m", "bench"]), "--run-dir", str(run.path)]
    # A terminal sends Ctrl-C to the whole group: the workers must not answer it with tracebacks of their own.
    with start([*command, "--engines", *CPU[2:], *quick]) as process:
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
