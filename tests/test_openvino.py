"""OpenVINO on the same bundles: the same answers, in streams as well, and nothing changes where it is not installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cascade_toys import fit_on, give_first_stage, topic_texts
from local_worker import LocalWorker
from toys import TOPICS as WORDS_OF
from toys import make_texts

import exporter.predict
import exporter.runtime
from bench.engines.table import ENGINES, choose_engines
from exporter.bundle.artifact import open_artifact
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.gate import Gate
from exporter.cascade.speed import speed_of
from exporter.checksums import IntegrityError, manifest_sha256
from exporter.config import ExportConfig
from exporter.engines.cores import cpu_kind
from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching, ModelEngine, usual_batching
from exporter.engines.plan import Plan, Way, engine_versions, plan_path
from exporter.engines.spec import EngineSpec
from exporter.engines.table import OPEN
from exporter.export import export
from exporter.int8.recipes import RECIPES, of_family
from exporter.proof.timing import Spread
from exporter.records import load_export
from exporter.report import summary
from exporter.runtime import Classifier
from exporter.tune.tune import tune
from trainer.data import read_examples
from trainer.errors import UserError
from trainer.records import read_record, write_record
from trainer.run import RunDir
from trainer.tasks import SingleLabel

TOPICS = tuple(sorted(WORDS_OF))
FASTER = speed_of([1, 1], [0.5, 0.5], Spread(2.0, 2.0, 2.0))
TEXTS = [text for text, _ in make_texts(150, seed=3)]
ROWS = [spec for spec in ENGINES if spec.name.endswith("-openvino")]
MODELS = [spec for spec in ROWS if not spec.has_first_stage]
installed = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


class Timed(LocalWorker):
    """A worker beside whose OpenVINO everything else is slow."""

    def time(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> float:  # noqa: ARG002
        return 0.1 if self._name.endswith("-openvino") else 1.0


@pytest.fixture(scope="module")
def laddered(trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDir]:
    """Exports a run with one recipe for each engine, once."""

    @cache
    def export_with(recipe: str) -> RunDir:
        run = RunDir(Path(shutil.copytree(trained.path, tmp_path_factory.mktemp("runs") / recipe)))
        recipes = [r for r in RECIPES if r.name in ("dynamic-channel-int8", recipe)]
        if recipe == "bf16-openvino" and not of_family(recipes[1:], "auto", reduce_range=False):
            pytest.skip("this CPU does not compute in bf16")
        config = ExportConfig(run_dir=run.path, quantize="auto", accept_undecided=True, verify_samples=8)
        export(config, Timed, recipes, 0.1)
        return run

    return export_with


@installed
@pytest.mark.parametrize(
    ("recipe", "name", "precision"),
    [("static-minmax-openvino", "onnx-int8-openvino", "int8"), ("bf16-openvino", "onnx-bf16-openvino", "bf16")],
)
def test_an_artifact_of_its_own_is_made_beside_the_usual_one(
    laddered: Callable[[str], RunDir],
    recipe: str,
    name: str,
    precision: str,
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = laddered(recipe)
    record, folder = load_export(run), run.export / name
    assert (record.chosen, record.with_openvino, record.openvino_recipe) == ("onnx-int8", name, recipe)
    assert [(c.engine, c.recipe) for c in record.candidates] == [
        ("onnxruntime", "dynamic-channel-int8"),
        ("openvino", recipe),
    ]
    artifact = open_artifact(folder)
    assert (artifact.engine, artifact.precision) == ("openvino", precision)
    assert "for OpenVINO, or ONNX Runtime" in (folder / "README.md").read_text(encoding="utf-8")
    assert f"faster with `openvino` installed: {name}, {recipe}" in summary(record)
    plan = read_record(plan_path(folder), Plan)
    assert {trial.way.engine for trial in plan.trials} == {"openvino"}

    def answers() -> tuple[str, np.ndarray, str]:
        classifier = Classifier.load(folder)
        status, out, _ = command(exporter.predict.main, "--run-dir", run.path, "goal race team ball coach")
        assert status == 0
        return type(classifier.engine.model).__name__, SingleLabel(4).probabilities(classifier.logits(TEXTS)), out

    kind, usual, out = answers()
    assert kind == "OpenVinoModel"
    monkeypatch.setattr(exporter.runtime, "is_installed", lambda name: name == "onnxruntime")
    monkeypatch.setattr(exporter.predict, "is_installed", lambda _: False)
    other_kind, other, other_out = answers()
    assert other_kind == "OnnxModel"
    assert np.abs(usual - other).max() < 0.06
    assert [line.split()[0] for line in (out, other_out)] == ["sport", "sport"]


@installed
@pytest.mark.parametrize("recipe", ["static-minmax-openvino", "bf16-openvino"])
def test_it_answers_through_both_stages_where_a_first_one_was_shipped_before_it(
    laddered: Callable[[str], RunDir],
    recipe: str,
    copy_of: Callable[[RunDir], RunDir],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: Callable[..., tuple[int, str, str]],
) -> None:
    run = copy_of(laddered(recipe))
    evaluated, rest = {*read_examples(run.evaluation, TOPICS).texts}, topic_texts(800, 5, TOPICS)
    free = [i for i, text in enumerate(rest.texts) if text not in evaluated]
    give_first_stage(run, fit_on(run, rest.take(free[:300])), rest.take(free[300:700]))
    monkeypatch.setattr("exporter.steps.cascade.Gate", partial(Gate, time=lambda *_: FASTER))
    config = ExportConfig(run_dir=run.path, quantize="auto", max_drop=40.0, accept_undecided=True, verify_samples=8)
    export(config, Timed, [r for r in RECIPES if r.name in ("dynamic-channel-int8", recipe)], 0.1)
    record = load_export(run)
    trial, name = record.cascade_openvino, record.for_openvino
    assert trial
    assert trial.judged
    assert name
    assert (trial.artifact, trial.shipped, trial.judged.change.tried) == (name, True, 2)
    assert record.cascade
    assert record.cascade.shipped
    assert record.cascade.beside_openvino
    assert record.with_openvino == name

    folder = run.export / name
    assert read_record(plan_path(folder), Plan).artifact_sha256 == manifest_sha256(folder)
    classifier, alone = Classifier.load(folder, threads=2), Classifier.load(folder, threads=2, cascade=False)
    assert type(classifier.engine.model).__name__ == "OpenVinoModel"
    texts = ["soup", "the a of", *TEXTS, "goal"]  # so short texts go on
    whole, model = classifier.predict(texts), alone.predict(texts)
    assert {answer.stage for answer in whole} == {"lexical", "model"}
    assert {answer.stage for answer in model} == {"model"}
    assert [answer for _, answer in classifier.stream(iter(texts))] == whole
    gaps = [
        max(abs(share - its.probabilities[label]) for label, share in answer.probabilities.items())
        for answer, its in zip(whole, model, strict=True)
        if answer.stage == "model"
    ]
    assert max(gaps) < 0.06  # in other batches than beside the others
    precision = open_artifact(folder).precision
    (row,) = [spec for spec in ROWS if spec.name == f"cascade-{precision}-openvino"]
    assert row.why_unusable(run, [artifact.name for artifact in record.artifacts], None) is None
    both = row.load(run, 2, tmp_path)
    assert isinstance(both, CascadeEngine)
    assert both.stages(texts) == [answer.stage for answer in whole]
    status, out, _ = command(exporter.predict.main, "--run-dir", run.path, "--explain", "goal race team ball coach")
    assert status == 0
    assert "[lexical]" in out


@installed
def test_a_file_that_changes_while_a_plan_is_made_is_no_fault_of_the_engine(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(exported).export / "onnx-fp32"
    real = OPEN["onnxruntime"]

    def change(*arguments: Any, **options: Any) -> Any:
        engine = real(*arguments, **options)
        (folder / "config.json").write_text("{}")
        return engine

    monkeypatch.setitem(OPEN, "onnxruntime", change)
    with pytest.raises(IntegrityError):
        tune(folder, TEXTS, threads=1, seconds=0.1)


def test_without_it_nothing_changes(exported: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else real(name))
    assert (len(ROWS), len(MODELS)) == (5, 3)
    assert {recipe.engine for recipe in of_family(RECIPES, "auto", reduce_range=False)} == {"onnxruntime"}
    assert not {*ROWS} & {*choose_engines(None)}
    assert choose_engines([ROWS[0].name]) == ROWS[:1]  # and whoever names it is told what is missing
    assert "`openvino` is not installed" in (ROWS[0].why_unusable(exported, ("onnx-fp32",), None) or "")
    with pytest.raises(UserError, match="`openvino` is not installed"):
        Classifier.load(exported.export / "onnx-fp32", engine="openvino")


@installed
@pytest.mark.parametrize(("name", "tolerance"), [("onnx-fp32", 1e-4), ("onnx-int8", 0.15)])
def test_answers_are_those_of_onnxruntime_in_every_way(exported: RunDir, name: str, tolerance: float) -> None:
    expected = SingleLabel(4).probabilities(Classifier.load(exported.export / name).logits(TEXTS))
    engine = Classifier.load(exported.export / name, engine="openvino", threads=2).engine
    for way in (ONE_BY_ONE, usual_batching(2), Batching(texts=8)):
        assert np.abs(SingleLabel(4).probabilities(engine.logits(TEXTS, way)) - expected).max() <= tolerance
    assert len(set(map(id, engine._models(2)))) == 2


@installed
def test_nobody_is_told_that_it_is_used(exported: RunDir) -> None:
    code = (
        "import sys; from exporter.runtime import Classifier; "
        f"Classifier.load({str(exported.export / 'onnx-fp32')!r}, engine='openvino').predict(['soup']); "
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@installed
def test_several_threads_may_ask_at_once(exported: RunDir) -> None:
    classifier = Classifier.load(exported.export / "onnx-fp32", engine="openvino", threads=2)
    expected = classifier.predict(TEXTS)
    assert classifier.engine._streams  # from now on lists share the streams, single texts the model
    with ThreadPoolExecutor(4) as pool:
        lists = [pool.submit(classifier.predict, TEXTS) for _ in range(4)]
        alone = list(pool.map(lambda text: classifier.predict([text])[0].label, TEXTS[:40]))
    assert all(done.result() == expected for done in lists)
    assert alone == [answer.label for answer in expected[:40]]


@installed
def test_a_length_is_rounded_up_but_never_beyond_what_the_model_reads(exported: RunDir) -> None:
    widths = []
    model = Classifier.load(exported.export / "onnx-fp32", engine="openvino").engine.model
    pad = model.encoder.pad
    model.encoder.pad = lambda batch, length: (widths.append(length), pad(batch, length))[1]  # type: ignore[method-assign]
    model.run(model.encoder.encode(["soup"]))
    model.run(model.encoder.encode(["soup"]), 7)
    assert widths == [24, 7]


@installed
def test_a_plan_chooses_the_engine(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], command: Callable[..., tuple[int, str, str]]
) -> None:
    folder = copy_of(exported).export / "onnx-fp32"
    plan = Plan(
        artifact_sha256=manifest_sha256(folder), cpu=cpu_kind(), threads=2, versions=engine_versions(),
        way=Way(Batching(4, None, 2), "openvino"),
    )  # fmt: skip
    write_record(plan_path(folder), plan)

    def kind(**options: object) -> str:
        return type(Classifier.load(folder, threads=2, **options).engine.model).__name__  # type: ignore[arg-type]

    assert [kind(), kind(engine="onnxruntime"), kind(engine="openvino")] == [
        "OpenVinoModel",
        "OnnxModel",
        "OpenVinoModel",
    ]
    assert Classifier.load(folder, threads=2).engine.bulk == Batching(4, None, 2)
    assert Classifier.load(folder, threads=2, engine="onnxruntime").engine.bulk == usual_batching(2)
    tried = {trial.way.engine for trial in tune(folder, TEXTS, threads=2, seconds=0.1).trials}
    assert tried == {"onnxruntime", "openvino"}
    flags = ("--artifact", folder, "goal race team ball coach")
    answers = [command(exporter.predict.main, "--engine", name, *flags)[1] for name in ("openvino", "onnxruntime")]
    assert answers[0] == answers[1]
    assert answers[0].startswith("sport")


@installed
@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_every_row_answers(laddered: Callable[[str], RunDir], tmp_path: Path, spec: EngineSpec) -> None:
    run = laddered("bf16-openvino" if spec.precision == "bf16" else "static-minmax-openvino")
    assert spec.why_unusable(run, [artifact.name for artifact in load_export(run).artifacts], None) is None
    engine = spec.load(run, 2, tmp_path)
    assert isinstance(engine, ModelEngine)
    expected = SingleLabel(4).probabilities(Classifier.load(run.export / "onnx-fp32").logits(TEXTS))
    assert np.abs(SingleLabel(4).probabilities(engine.logits(TEXTS, engine.bulk)) - expected).max() < 0.1
