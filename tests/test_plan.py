"""Many texts in streams: nothing slower than one by one is ever chosen, and no plan changes an answer."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_worker import LocalWorker
from toys import make_texts

import exporter.tune.__main__
from exporter.checksums import IntegrityError, manifest_sha256
from exporter.config import ExportConfig
from exporter.engines.cores import cpu_kind, usable_cores
from exporter.engines.engine import (
    ALL_AT_ONCE,
    BLOCK_TEXTS,
    CAREFUL,
    FEW,
    MOST_TEXTS,
    ONE_BY_ONE,
    OPENING_PAYS,
    Batching,
    ModelEngine,
    usual_batching,
)
from exporter.engines.plan import Plan, Way, plan_path
from exporter.export import export
from exporter.records import load_export
from exporter.runtime import Classifier
from exporter.tune.search import choose, plain, ratio_to, try_ways, usual_way, ways
from exporter.tune.tune import _check_answers, check_can_write, tune
from trainer.errors import UserError
from trainer.records import read_record, write_record
from trainer.run import RunDir
from trainer.tasks import SingleLabel
from trainer.text.encoding import Encoded

Copy = Callable[[RunDir], RunDir]
Command = Callable[..., tuple[int, str, str]]

TEXTS = [text for text, _ in make_texts(300, seed=7)]
USUAL = usual_way(2)
PLAIN = plain(USUAL)
WAYS = ways(2)

TASK = SingleLabel(4)


class Machine:
    """A clock, and a classifier that moves it: so many seconds a text in each way, give or take a share."""

    def __init__(self, seconds: Mapping[Way, float], noise: float = 0.0, seed: int = 0) -> None:
        self.now, self.calls = 0.0, 0
        self._seconds, self._noise, self._rng = seconds, noise, random.Random(seed)

    def clock(self) -> float:
        return self.now

    def score(self, texts: Sequence[str], way: Way) -> None:
        self.calls += 1
        self.now += len(texts) * self._seconds[way] * (1 + self._rng.uniform(-self._noise, self._noise))

    def choose(self, seconds: float = 30.0) -> Way:
        _, trials = try_ways(list(self._seconds), self.score, TEXTS, seconds=seconds, clock=self.clock)
        return choose(trials, USUAL)


def takes(usually: float, **others: float) -> dict[Way, float]:
    """Return the seconds of each way: `one`, `streams` and `large` stand for those that have these in common."""

    def seconds(way: Way) -> float:
        kinds = {
            "one": way.batching == ONE_BY_ONE,
            "streams": way.batching.streams > 1,
            "large": (way.batching.tokens or 0) > 256,
        }
        factors = [others[kind] for kind, is_one in kinds.items() if is_one and kind in others]
        return usually * float(np.prod(factors))

    return {way: seconds(way) for way in WAYS}


@pytest.mark.parametrize(
    ("seconds", "fastest"),
    [
        (takes(0.02, streams=0.6), USUAL),
        (takes(0.02, streams=1.5, one=0.9), PLAIN),
        (takes(0.02, streams=0.7, large=0.6), Way(Batching(MOST_TEXTS, 512, 2))),
        (takes(0.02, streams=1.2, large=1.3), PLAIN),
        (takes(0.02, streams=0.99, large=0.99), USUAL),  # no reason to leave what is usual
    ],
)
def test_each_wrong_choice_is_avoided(seconds: dict[Way, float], fastest: Way) -> None:
    for seed in range(5):
        chosen = Machine(seconds, noise=0.05, seed=seed).choose()
        assert seconds[chosen] <= 1.01 * seconds[fastest]
        assert seconds[chosen] <= seconds[PLAIN], chosen
        assert chosen == USUAL or fastest != USUAL


@given(st.lists(st.floats(0.001, 0.1), min_size=len(WAYS), max_size=len(WAYS)), st.integers(0, 99), st.floats(1, 60))
@settings(max_examples=50, deadline=None)
def test_what_is_slower_than_one_by_one_is_never_chosen(values: list[float], seed: int, budget: float) -> None:
    seconds = dict(zip(WAYS, values, strict=True))
    machine = Machine(seconds, noise=0.03, seed=seed)
    _, trials = try_ways(WAYS, machine.score, TEXTS, seconds=budget, clock=machine.clock)
    chosen = choose(trials, USUAL)
    if all(trial.seconds for trial in trials):
        assert seconds[chosen] <= 1.07 * seconds[PLAIN]
    else:
        assert chosen == USUAL


def test_one_slow_moment_of_the_machine_decides_nothing() -> None:
    seconds = takes(0.02, streams=0.6)
    machine = Machine(seconds)
    usual_rounds = 0

    def score(texts: Sequence[str], way: Way) -> None:
        nonlocal usual_rounds
        machine.score(texts, way)
        usual_rounds += way == USUAL
        if way == USUAL and usual_rounds == 3:  # two calls come before the rounds
            machine.now += 0.6 * len(texts) * seconds[way]

    _, trials = try_ways(WAYS, score, TEXTS, seconds=60, clock=machine.clock)
    assert choose(trials, USUAL) == USUAL


def test_time_is_kept_and_a_part_of_a_round_compares_nothing() -> None:
    seconds = takes(0.5)
    machine = Machine(seconds)
    size, trials = try_ways(WAYS, machine.score, TEXTS, seconds=10, clock=machine.clock)
    assert machine.now <= 10 + len(WAYS) * 2 * 0.5 + 16 * 0.5 + size * 0.5
    assert {len(trial.seconds) for trial in trials} == {0}
    assert choose(trials, USUAL) == USUAL


def test_the_search_ends_when_the_best_is_told_apart() -> None:
    machine = Machine({USUAL: 0.01, PLAIN: 0.05})
    _, trials = try_ways([USUAL, PLAIN], machine.score, TEXTS, seconds=1e9, clock=machine.clock)
    assert [len(trial.seconds) for trial in trials] == [1, 1]
    assert ratio_to(trials, USUAL, PLAIN) == pytest.approx(5)


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-int8"])
def test_answers_agree_under_every_plan(exported: RunDir, name: str) -> None:
    engine = Classifier.load(exported.export / name, threads=2).engine
    alone = engine.logits(TEXTS, ONE_BY_ONE)
    tolerance = 0.15  # of dynamic int8, whose ranges are those of a batch; a toy's few numbers move more than a model's
    for way in (way.batching for way in ways(2)):
        found = engine.logits(TEXTS, way)
        gap = np.abs(TASK.probabilities(found) - TASK.probabilities(alone)).max()
        assert gap <= (tolerance if name == "onnx-int8" else 1e-5), way
        if way.texts == 1:  # the same calls: on another number of threads, sums are those of another order
            np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_plan_lies_beside_its_folder_however_that_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path / "bundle")
    assert {plan_path(Path(name)) for name in (".", "../bundle", f"{tmp_path}/bundle")} == {
        tmp_path / "bundle.plan.json"
    }


def plan_for(folder: Path, **values: Any) -> Plan:
    """Return a plan that fits here, but for what is given."""
    fitting = tune(folder, TEXTS, threads=2, seconds=0.0)
    return replace(fitting, **values)


def test_a_plan_that_fits_is_used_and_no_other(exported: RunDir, copy_of: Copy) -> None:
    folder = copy_of(exported).export / "onnx-int8"
    way = Batching(texts=7, tokens=99, streams=2)

    def used(threads: int = 2) -> Batching:
        return Classifier.load(folder, threads=threads).engine.bulk

    assert used() == USUAL.batching
    write_record(plan_path(folder), plan_for(folder, way=Way(way)))
    assert used() == way
    assert used(threads=1) == usual_batching(1)
    elsewhere: dict[str, Any] = {
        "artifact_sha256": "0" * 64, "cpu": "Z80", "threads": 3, "versions": {"onnxruntime": "0.1"}
    }  # fmt: skip
    for field, value in elsewhere.items():
        write_record(plan_path(folder), plan_for(folder, way=Way(way), **{field: value}))
        assert used() == USUAL.batching, field


@pytest.mark.parametrize(
    ("batching", "problem"),
    [
        (Batching(1, None, 10**6), "`streams`"),
        (Batching(1, None, 0), "`streams`"),
        (Batching(10**6, 256), "`texts`"),
        (Batching(None, 256), "`texts`"),
        (ALL_AT_ONCE, "`texts`"),
        (Batching(32, 10**9), "`tokens`"),
        (Batching(32, 0), "`tokens`"),
    ],
)
def test_a_plan_of_a_stranger_that_asks_for_the_unusual_is_not_used(
    exported: RunDir, copy_of: Copy, capsys: pytest.CaptureFixture[str], batching: Batching, problem: str
) -> None:
    folder = copy_of(exported).export / "onnx-int8"
    write_record(plan_path(folder), plan_for(folder, way=Way(batching)))
    assert Classifier.load(folder, threads=2).engine.bulk == usual_batching(2)
    said = capsys.readouterr().err
    assert f"onnx-int8.plan.json` is not used: {problem}" in said
    assert "python -m exporter.tune" in said
    tune(folder, TEXTS, threads=2, seconds=0)  # the command that is named
    assert Classifier.load(folder).predict(TEXTS[:2])


@pytest.mark.parametrize("what", ["damaged", "newer", "a folder", "a pipe", "a dead link"])
def test_no_plan_keeps_a_bundle_from_being_loaded(exported: RunDir, copy_of: Copy, what: str) -> None:
    folder = copy_of(exported).export / "onnx-int8"
    path = plan_path(folder)
    path.unlink(missing_ok=True)
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a dead link":
        path.symlink_to("nowhere")
    else:
        path.write_text("{" if what == "damaged" else '{"kind": "Plan", "schema": 99}')
    assert Classifier.load(folder, threads=2).engine.bulk == usual_batching(2)


def test_a_server_answers_after_its_main_thread_has_ended(exported: RunDir) -> None:
    code = f"""if True:
        import threading, time
        from exporter.engines.engine import Batching
        from exporter.runtime import Classifier

        engine = Classifier.load({str(exported.export / "onnx-fp32")!r}, threads=2).engine
        way = Batching(texts=1, streams=2)
        engine.answer(["soup"] * 9, way)

        def answer():
            time.sleep(0.3)
            print(len(engine.answer(["soup", "bread"] * 300, way)[1]))

        threading.Thread(target=answer).start()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("600\n", "")


def test_streams_are_opened_when_they_pay_and_share_one_session(exported: RunDir) -> None:
    classifier = Classifier.load(exported.export / "onnx-int8", threads=2)
    engine = classifier.engine
    opened: list[int] = []
    split = engine._split
    assert split
    engine._split = lambda streams: (opened.append(streams), split(streams))[1]
    few = TEXTS[: FEW * 2]
    assert (classifier.predict(few[:1]), opened) == ([classifier.predict(few[:1])[0]], [])
    assert [engine.for_list(n) for n in (1, FEW * 2)] == [CAREFUL, CAREFUL]
    first = classifier.predict(TEXTS[:OPENING_PAYS])
    assert opened == [2]
    assert len(set(map(id, engine._models(2)))) == 1
    assert engine._models(2)[0] is not engine.model
    assert engine.for_list(FEW * 2 - 1) == CAREFUL
    assert engine.for_list(FEW * 2) == USUAL.batching
    again = classifier.predict(TEXTS[:OPENING_PAYS])
    assert opened == [2]
    assert [p.label for p in first] == [p.label for p in again]


def test_a_file_that_changes_before_streams_are_opened_is_noticed(exported: RunDir, copy_of: Copy) -> None:
    folder = copy_of(exported).export / "onnx-int8"
    classifier = Classifier.load(folder, threads=2)
    shutil.copyfile(exported.export / "onnx-fp32" / "model.onnx", folder / "model.onnx")
    with pytest.raises(IntegrityError, match=r"model\.onnx` is missing or was changed"):
        classifier.predict(TEXTS[:OPENING_PAYS])


class Recorded:
    """Notes its calls; the fourth fails, if one is to."""

    def __init__(self, classifier: Classifier, *, fails: bool = False) -> None:
        self.encoder, self._fails, self._numbers = classifier.encoder, fails, count()
        self.lengths: list[int] = []

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> np.ndarray:  # noqa: ARG002
        number = next(self._numbers)
        self.lengths.append(max(map(len, batch)))
        time.sleep(0.001)
        if self._fails and number == 3:
            raise UserError("out of memory", "")
        return np.float32([[len(e), e.ids[1]] for e in batch])


def test_long_lists_keep_their_order_over_blocks_and_streams(exported: RunDir) -> None:
    model = Recorded(Classifier.load(exported.export / "onnx-fp32"))
    texts = TEXTS + TEXTS[::-1]
    assert len(texts) > 2 * BLOCK_TEXTS
    engine = ModelEngine(model, split=lambda streams: [model] * streams)
    encoded, found = engine.answer(texts, Batching(texts=3, tokens=50, streams=3))
    assert encoded == model.encoder.encode(texts)
    np.testing.assert_array_equal(found, [[len(e), e.ids[1]] for e in encoded])
    assert model.lengths[:20] == sorted(model.lengths[:20], reverse=True)  # the longest first


def test_where_one_stream_fails_the_others_stop(exported: RunDir) -> None:
    model = Recorded(Classifier.load(exported.export / "onnx-fp32"), fails=True)
    with pytest.raises(UserError, match="out of memory"):
        ModelEngine(model, split=lambda streams: [model] * streams).logits(TEXTS, replace(ONE_BY_ONE, streams=2))
    assert len(model.lengths) < 10


def test_the_exporter_and_the_command_write_a_plan(trained: RunDir, copy_of: Copy, command: Command) -> None:
    run = copy_of(trained)
    export(ExportConfig(run_dir=run.path, verify_samples=4), LocalWorker, plan_seconds=0.2)
    folder = run.export / "onnx-fp32"
    path = plan_path(folder)
    plan = read_record(path, Plan)
    assert plan.fits(manifest_sha256(folder), usable_cores())
    assert {trial.way for trial in plan.trials} == set(ways(usable_cores()))
    texts = run.path / "mine.csv"
    texts.write_text("\n".join(["text", *TEXTS]))
    status, out, err = command(exporter.tune.__main__.main, folder, "--texts", texts, "--seconds", 0.5, "--threads", 2)
    assert (status, err.splitlines()[-1]) == (0, f"written to {path}")
    assert sum(line.startswith("* ") for line in out.splitlines()) == 2
    assert json.loads(path.read_text())["way"]["batching"] == asdict(Classifier.load(folder, threads=2).engine.bulk)


def test_cpus_of_one_name_that_can_do_different_things_are_of_different_kinds(tmp_path: Path) -> None:
    texts = (
        "model name : X\nflags : sse avx",
        "model name : X\nflags : sse amx_int8",
        "CPU part : 0xd40",
        "CPU part : 0xd0c",
    )
    kinds = []
    for text in texts:
        (tmp_path / "cpuinfo").write_text(f"{text}\ncpu MHz : 3\n")
        kinds.append(cpu_kind(tmp_path / "cpuinfo"))
        (tmp_path / "cpuinfo").write_text(f"{text}\ncpu MHz : 4\n{text}\n")  # clocks move, and cores are alike
        assert cpu_kind(tmp_path / "cpuinfo") == kinds[-1]
    assert len(set(kinds)) == 4
    assert kinds[0].startswith("X, ")


def test_another_engine_is_left_out_if_it_answers_otherwise() -> None:
    texts = [str(i) for i in range(200)]

    class Fixed:
        def __init__(self, wrong: int, *, alone: bool) -> None:
            self.wrong, self.alone = wrong, alone

        def logits(self, some: list[str], batching: Batching) -> np.ndarray:
            is_odd = self.alone == (batching == ONE_BY_ONE)
            return np.float32([[0, -1 if is_odd and int(text) < self.wrong else 1] for text in some])

    def compare(other: Fixed) -> None:
        _check_answers(other, Fixed(0, alone=True), texts, TASK, "onnxruntime")  # type: ignore[arg-type]

    for alone in (True, False):
        compare(Fixed(1, alone=alone))  # one of 200 is half a point
        with pytest.raises(UserError, match="2 of 200 answers are others than onnxruntime's"):
            compare(Fixed(2, alone=alone))


def test_where_nothing_can_be_written_that_is_said_first(tmp_path: Path) -> None:
    check_can_write(tmp_path / "x.plan.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"x\.plan\.json`: No such file"):
        check_can_write(tmp_path / "gone" / "x.plan.json")


def test_an_export_is_kept_if_no_plan_can_be_made(
    trained: RunDir, copy_of: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Plan:
        raise UserError("out of memory", "")

    monkeypatch.setattr("exporter.steps.plan.plan_of", fail)
    run = copy_of(trained)
    export(ExportConfig(run_dir=run.path, verify_samples=4), LocalWorker, plan_seconds=0.2)
    assert "no plan was made: out of memory" in capsys.readouterr().err
    assert Classifier.load(run.export / load_export(run).chosen).predict(TEXTS[:1])
