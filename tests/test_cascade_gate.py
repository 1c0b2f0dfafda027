"""A cascade is shipped where it is within the budget and cheaper; else it is not, and the record says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from cascade_toys import fit_on, give_first_stage, topic_texts
from local_worker import LocalWorker
from toys import make_texts, write_csv

from exporter.bundle.artifact import CARD, open_artifact, seal, with_size
from exporter.cascade.bundle import add_cascade
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.gate import Gate
from exporter.cascade.ready import Ready, make_ready
from exporter.cascade.shift import read_shifts, score_shifts
from exporter.cascade.speed import speed_of
from exporter.cascade.stage import LEXICAL, Cascade
from exporter.cascade.trial import CascadeSpeed, CascadeTrial
from exporter.checksums import IntegrityError
from exporter.config import ExportConfig
from exporter.engines.cascade import load_both
from exporter.engines.engine import ALL_AT_ONCE, Batching, ModelEngine
from exporter.engines.onnxruntime import load_engine
from exporter.engines.table import LOAD, OPEN
from exporter.export import export
from exporter.int8.recipes import RECIPES
from exporter.proof.against import compare
from exporter.proof.timing import Spread
from exporter.proof.verify import VerificationError
from exporter.proof.worker import Worker, Workers
from exporter.records import ExportRecord, OtherRun, load_export
from exporter.report import summary
from exporter.runtime import Classifier
from exporter.subject import Subject
from trainer.data import Examples
from trainer.data.load import read_examples
from trainer.errors import UserError
from trainer.lexical.file import to_bytes
from trainer.lexical.model import Lexical
from trainer.records import file_sha256, read_record, write_record
from trainer.run import RunDir, TrainRecord

WIDE = 40.0
"""A budget, in points, that 32 evaluation texts can tell anything about."""
TOPICS = ("food", "money", "music", "sport")
TWICE = Spread(2.0, 2.0, 2.0)
FASTER = speed_of([1, 1], [0.5, 0.5], TWICE)
SLOWER = speed_of([1, 1], [1.5, 1.5], TWICE)


@pytest.fixture(scope="module")
def first_stage(exported: RunDir) -> tuple[Lexical, Examples]:
    """A linear classifier, and 400 texts that neither it nor the model was trained on."""
    evaluated = set(read_examples(exported.evaluation, TOPICS).texts)
    rest = topic_texts(800, 5, TOPICS)
    free = [i for i, text in enumerate(rest.texts) if text not in evaluated]
    return fit_on(exported, rest.take(free[:300])), rest.take(free[300:700])


@pytest.fixture
def run(exported: RunDir, copy_of: Callable[[RunDir], RunDir], first_stage: tuple[Lexical, Examples]) -> RunDir:
    """An exported run with a first stage."""
    run = copy_of(exported)
    give_first_stage(run, *first_stage)
    return run


def config_of(run: RunDir, **values: Any) -> ExportConfig:
    return ExportConfig(run_dir=run.path, **{"quantize": "dynamic", "max_drop": WIDE, "verify_samples": 8} | values)


def ready_of(run: RunDir, **values: Any) -> Ready | str:
    return make_ready(Subject.read(run, calibration=True), config_of(run, **values), 1)


def judge(run: RunDir, speed: CascadeSpeed = FASTER, max_drop: float = WIDE) -> CascadeTrial:
    """Put the run's first stage before its bundle in int8."""
    ready, subject = ready_of(run), Subject.read(run, calibration=True)
    assert isinstance(ready, Ready)
    logits = load_engine(run.export / "onnx-fp32", threads=1).logits(subject.evaluation.texts)
    gate = Gate(subject, logits, Workers(1, LocalWorker), max_drop, 3, lambda *_: speed)
    return gate.try_cascade(ready, run.export / "onnx-int8", run.path / "scratch")


def test_one_that_is_within_the_budget_and_cheaper_is_shipped_in_the_bundle(run: RunDir) -> None:
    trial, folder = judge(run), run.export / "onnx-int8"
    assert trial.shipped
    assert trial.judged
    assert trial.judged.answered > 0.5
    assert (trial.judged.judgement, trial.judged.change.tried) == ("within budget", 3)
    assert (trial.artifact, trial.calibration_texts) == ("onnx-int8", 400)
    artifact = open_artifact(folder)
    assert artifact.cascade == trial.chosen
    assert (folder / LEXICAL).read_bytes() == run.lexical.read_bytes()
    assert trial.added_bytes
    assert len(run.lexical.read_bytes()) <= trial.added_bytes < len(run.lexical.read_bytes()) + 20_000
    card = (folder / CARD).read_text()
    assert f"{trial.judged.answered:.0%} of the evaluation texts" in card
    assert card.index(LEXICAL) < card.index("## Use")


def test_stages_are_stacked_where_that_is_asked_for(run: RunDir) -> None:
    gate, ready = gate_of(run)
    folder = run.export / "onnx-int8"
    trial = replace(gate, stacked=True).try_cascade(ready, folder, run.path / "scratch")
    assert trial.shipped
    artifact = open_artifact(folder)
    assert artifact.cascade == trial.chosen
    assert artifact.cascade
    assert artifact.cascade.stack
    assert trial.stacked_score
    assert "its logits and those of this model are added" in (folder / CARD).read_text()


@pytest.mark.parametrize(
    ("speed", "max_drop", "reason"), [(SLOWER, WIDE, "not cheaper here: 2.00x"), (FASTER, 5.0, "no threshold keeps")]
)
def test_one_that_is_not_leaves_the_bundle_as_it_was(
    run: RunDir, speed: CascadeSpeed, max_drop: float, reason: str
) -> None:
    folder = run.export / "onnx-int8"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    trial = judge(run, speed, max_drop)
    assert not trial.shipped
    assert reason in trial.reason
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_one_that_loses_on_the_evaluation_texts_is_not_timed(run: RunDir) -> None:
    """Half of them get another label, of which the model alone knows."""
    ready, subject, folder = ready_of(run), Subject.read(run, calibration=True), run.export / "onnx-int8"
    assert isinstance(ready, Ready)
    labels = [(int(label) + i % 2) % 4 for i, label in enumerate(subject.task.truth(subject.evaluation.labels))]
    subject = replace(subject, evaluation=Examples(subject.evaluation.texts, [*labels]))
    gate = Gate(subject, 9 * np.eye(4, dtype=np.float32)[labels], Workers(1, LocalWorker), WIDE, 3)
    trial = gate.try_cascade(ready, folder, run.path / "scratch")
    assert trial.chosen
    assert trial.judged
    assert (trial.shipped, trial.speed) == (False, None)
    assert trial.judged.change.change == pytest.approx(-0.5, abs=0.1)
    assert trial.reason.startswith(trial.judged.judgement)
    assert trial.judged.judgement != "within budget"
    assert open_artifact(folder).cascade is None


def dies(name: str) -> None:
    raise UserError(f"the process of `{name}` died with status -9", "it may have run out of memory")


class Dying(LocalWorker):
    """Is gone when it is to be timed, or asked through both stages."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return dies(self._name) if self._name == "cascade" else super().call(function, *arguments)


class Dead(Dying):
    """The model beside it is gone, too."""

    def is_alive(self) -> bool:
        return False


def gate_of(run: RunDir, start: type[Worker] = LocalWorker) -> tuple[Gate, Ready]:
    ready, subject = ready_of(run), Subject.read(run, calibration=True)
    assert isinstance(ready, Ready)
    logits = load_engine(run.export / "onnx-fp32", threads=1).logits(subject.evaluation.texts)
    return Gate(subject, logits, Workers(1, start), WIDE, 3, lambda *_: FASTER), ready


def test_what_breaks_after_the_recipes_were_tried_is_a_reason_and_does_not_end_the_export(run: RunDir) -> None:
    (gate, ready), folder = gate_of(run, Dying), run.export / "onnx-int8"
    trial = gate.try_cascade(ready, folder, run.path / "scratch")
    assert (trial.shipped, trial.reason) == (False, "it failed: the process of `cascade` died with status -9")
    assert trial.chosen
    assert open_artifact(folder).cascade is None
    shutil.rmtree(run.path / "scratch")
    gate, ready = gate_of(run, Dead)
    with pytest.raises(UserError, match="died"):
        gate.try_cascade(ready, folder, run.path / "scratch")


def test_a_first_stage_that_is_sure_of_none_of_its_own_tokens_is_a_reason(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.cascade.bundle.make_texts", lambda *_: ["unknown"])
    trial = judge(run)
    assert (trial.shipped, trial.reason[:10]) == (False, "it failed:")
    assert "is sure of no text" in trial.reason


def test_a_first_stage_that_answers_otherwise_than_when_it_was_made_ends_the_export(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.cascade.load.TOLERANCE", -1.0)
    with pytest.raises(IntegrityError, match="answers differently"):
        judge(run)


def test_it_is_timed_beside_another_artifact(run: RunDir) -> None:
    put(run.export / "onnx-int8", run.lexical.read_bytes(), Cascade(1.0, 0.9, 0.0, 1, 100))
    beside = gate_of(run)[0].time_beside(run.export / "onnx-fp32", run.export / "onnx-int8")
    assert beside
    assert 0 < beside.low <= beside.median <= beside.high
    assert gate_of(run, Dying)[0].time_beside(run.export / "onnx-fp32", run.export / "onnx-int8") is None


class Noting(LocalWorker):
    """Notes what is timed."""

    timed: ClassVar[dict[str, type]] = {}

    def time(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> float:
        self.timed[self._name] = type(self._engine)
        return super().time(texts, batching)


@pytest.mark.parametrize(("has_own", "kind"), [(True, CascadeEngine), (False, ModelEngine)])
def test_the_other_artifact_is_timed_as_it_is_served(run: RunDir, has_own: bool, kind: type) -> None:
    others = ["onnx-fp32"] * has_own
    for name in (*others, "onnx-int8"):
        put(run.export / name, run.lexical.read_bytes(), Cascade(1.0, 0.9, 0.0, 1, 100))
    assert gate_of(run, Noting)[0].time_beside(run.export / "onnx-fp32", run.export / "onnx-int8")
    assert Noting.timed == {"onnx-fp32": kind, "cascade": CascadeEngine}


class AsOpenVino(LocalWorker):
    """A worker whose OpenVINO is fast."""

    def time(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> float:  # noqa: ARG002
        return 0.1 if self._name.endswith("-openvino") else 1.0


@pytest.fixture
def export_with_openvino(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExportRecord]:
    """Exports the run with a recipe for either engine; onnxruntime stands in for OpenVINO."""
    monkeypatch.setitem(OPEN, "openvino", OPEN["onnxruntime"])
    monkeypatch.setitem(LOAD, "openvino", LOAD["onnxruntime"])
    monkeypatch.setattr("exporter.int8.recipes.is_installed", lambda _: True)
    usual = [recipe for recipe in RECIPES if recipe.name in ("dynamic-channel-int8", "dynamic-tensor-int8")]
    recipes = [*usual, replace(usual[0], name="dynamic-channel-openvino", engine="openvino")]

    def export_it(times: Callable[..., CascadeSpeed], start: type[Worker] = AsOpenVino, **values: Any) -> ExportRecord:
        monkeypatch.setattr("exporter.steps.cascade.Gate", partial(Gate, time=times))
        export(config_of(run, accept_undecided=True, **values), start, recipes=recipes)
        return load_export(run)

    return export_it


def times_of(slower: Sequence[str]) -> Callable[..., CascadeSpeed]:
    """Return what finds a first stage slower before some artifacts, and faster before all others."""
    return lambda alone, *_: SLOWER if alone._name in slower else FASTER


@pytest.mark.parametrize("slower", [(), ("onnx-int8",), ("onnx-int8-openvino",), ("onnx-int8", "onnx-int8-openvino")])
def test_it_is_tried_before_the_artifact_for_openvino_too(
    run: RunDir,
    export_with_openvino: Callable[..., ExportRecord],
    exported: RunDir,
    slower: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = export_with_openvino(times_of(slower), against_run=exported.path)
    trials = {"onnx-int8": record.cascade, "onnx-int8-openvino": record.cascade_openvino}
    assert (record.chosen, record.for_openvino) == tuple(trials)
    assert [(c.engine, c.change.tried) for c in record.candidates] == [("onnxruntime", 3)] * 2 + [("openvino", 2)]
    artifacts = {artifact.name: artifact for artifact in record.artifacts}
    for (name, trial), tried in zip(trials.items(), (3, 2), strict=True):
        assert trial
        assert trial.judged
        assert (trial.artifact, trial.judged.change.tried, trial.shipped) == (name, tried, name not in slower)
        assert artifacts[name] == open_artifact(run.export / name)
        assert artifacts[name].cascade == (trial.chosen if trial.shipped else None)
        assert (run.export / name / LEXICAL).exists() == trial.shipped
        assert f"\n{'cascade' if trial.shipped else 'no cascade'} before {name}: {trial.reason}" in summary(record)
        classifier = Classifier.load(run.export / name, engine="onnxruntime")
        answered = classifier.predict([text for text, _ in make_texts(40, seed=9)])
        assert ("lexical" in {answer.stage for answer in answered}) == trial.shipped
    assert record.cascade
    assert (record.cascade.beside_openvino is not None) == record.cascade.shipped
    assert "was not timed" not in capsys.readouterr().err
    assert record.with_openvino == "onnx-int8-openvino"  # which is faster even without a first stage
    assert record.against
    assert {v.change.tried for v in record.against.verdicts} == {1 + 2 + 1}


def test_one_before_openvino_is_tried_where_fp32_is_chosen_for_onnxruntime(
    run: RunDir, export_with_openvino: Callable[..., ExportRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.int8.select.FASTER", 1.5)
    record = export_with_openvino(times_of(()))
    assert record.chosen == "onnx-fp32"
    assert record.cascade
    assert record.cascade.reason == "it is not tried before `onnx-fp32`, which was chosen"
    assert record.cascade_openvino
    assert record.cascade_openvino.shipped
    assert open_artifact(run.export / "onnx-int8").cascade is None
    assert record.with_openvino == "onnx-int8-openvino"


def test_none_is_tried_before_openvino_where_there_is_none_to_try(
    export_with_openvino: Callable[..., ExportRecord],
) -> None:
    record = export_with_openvino(times_of(()), no_cascade=True)
    assert record.for_openvino
    assert record.cascade_openvino is None
    assert [c.change.tried for c in record.candidates] == [2, 2, 1]


def test_a_first_stage_that_breaks_before_openvino_is_a_reason(
    run: RunDir, export_with_openvino: Callable[..., ExportRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(folder: Path, *arguments: Any) -> Any:
        return add_cascade(folder, *arguments) if folder.name == "onnx-int8" else dies("cascade")

    monkeypatch.setattr("exporter.cascade.gate.add_cascade", made)
    record = export_with_openvino(times_of(()))
    assert record.cascade
    assert record.cascade_openvino
    assert (record.cascade.shipped, record.cascade_openvino.shipped) == (True, False)
    assert record.cascade_openvino.reason == "it failed: the process of `cascade` died with status -9"
    assert open_artifact(run.export / "onnx-int8-openvino").cascade is None


def test_none_is_tried_before_fp32(run: RunDir) -> None:
    never = export(config_of(run, max_drop=39.0), LocalWorker, recipes=[])
    assert (never.chosen, never.cascade and never.cascade.shipped) == ("onnx-fp32", False)
    assert never.cascade
    assert never.cascade.reason == "it is not tried before `onnx-fp32`, which was chosen"
    assert never.cascade_openvino is None


def test_an_export_tries_it_as_one_more_candidate(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.int8.select.FASTER", 0.0)
    other = write_csv(tmp_path / "other.csv", list(make_texts(40, seed=9)))
    config = config_of(run, accept_undecided=True, shift=(other,), stack=True)
    export(config, LocalWorker, recipes=[recipe for recipe in RECIPES if recipe.family == "dynamic"][:2])
    record = load_export(run)
    trial = record.cascade
    assert trial
    assert trial.judged
    assert trial.stacked_score
    assert trial.judged.change.tried == len(record.candidates) + 1
    assert {c.change.tried for c in record.candidates} == {len(record.candidates) + 1}
    (chosen,) = [artifact for artifact in record.artifacts if artifact.name == record.chosen]
    assert trial.artifact == record.chosen
    assert chosen.cascade == (trial.chosen if trial.shipped else None)
    assert (run.export / record.chosen / LEXICAL).exists() == trial.shipped
    assert [(s.name, s.texts) for s in record.shift] == [("other.csv", 40)]
    assert record.shift[0].score > 0.8
    assert not (run.export / "scratch").exists()
    assert trial.reason in summary(record)


def test_another_run_is_compared_with_what_ships(
    run: RunDir, exported: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: dict[str, Any] = {}

    def spy(*arguments: Any) -> OtherRun:
        compared.update({path.name: logits for path, logits in arguments[4].items()})
        return compare(*arguments)

    monkeypatch.setattr("exporter.int8.select.FASTER", 0.0)
    monkeypatch.setattr("exporter.steps.cascade.Gate", partial(Gate, time=lambda *_: FASTER))
    monkeypatch.setattr("exporter.steps.against.compare", spy)
    config = config_of(run, accept_undecided=True, against_run=exported.path)
    record = export(config, LocalWorker, recipes=[recipe for recipe in RECIPES if recipe.family == "dynamic"][:1])
    assert record.cascade
    assert record.cascade.shipped
    assert record.against
    assert [v.artifact for v in record.against.verdicts] == ["onnx-fp32", "onnx-int8"]
    assert {v.change.tried for v in record.against.verdicts} == {1 + len(record.candidates) + 1}
    both = load_both(run.export / "onnx-int8", threads=1)
    _, logits, stages = both.answer_all(read_examples(run.evaluation, TOPICS).texts)
    assert "lexical" in stages
    np.testing.assert_allclose(compared["onnx-int8"], logits, atol=1e-2)
    load_export(run)
    for name, tells in (("onnx-fp32", False), ("onnx-int8", True)):
        card = (run.export / name / CARD).read_text()
        open_artifact(run.export / name)
        assert "Against the classifier" in card
        assert (LEXICAL in card) == tells


def change(run: RunDir, **values: Any) -> None:
    write_record(run.record, replace(read_record(run.record, TrainRecord), **values))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"no_cascade": True}, "`--no-cascade` was given"),
        ({"max_drop": 0.5}, "32 evaluation texts are too few"),
    ],
)
def test_none_is_tried_where_it_is_not_asked_for_or_cannot_pass(
    run: RunDir, values: dict[str, Any], reason: str
) -> None:
    assert reason in str(ready_of(run, **values))


def test_none_is_tried_where_the_run_has_not_what_it_takes(run: RunDir, first_stage: tuple[Lexical, Examples]) -> None:
    give_first_stage(run, first_stage[0], first_stage[1].take(range(20)))
    assert "20 calibration texts are too few" in str(ready_of(run, max_drop=20.0))
    give_first_stage(run, *first_stage)
    assert isinstance(ready_of(run, max_drop=20.0), Ready)
    subject = Subject.read(run, calibration=True)
    assert "best of 501 candidates" in str(make_ready(subject, config_of(run, max_drop=20.0), 500))
    many = replace(subject, evaluation=Examples([str(i) for i in range(20_000)], [0] * 20_000))
    assert "budget of 0.1 points is too small" in str(make_ready(many, config_of(run, max_drop=0.1), 1))
    change(run, calibration_is_apart=False)
    assert "`--max-train-samples` leaves some" in str(ready_of(run))
    change(run, lexical_sha256="", lexical_reason="too few texts for it")
    assert ready_of(run) == "too few texts for it"
    change(run, lexical_reason="")
    assert "has no first stage" in str(ready_of(run))
    subject = Subject.read(run, calibration=False)
    assert "`--quantize`" in str(make_ready(subject, ExportConfig(run_dir=run.path), 1))
    assert "GPUs" in str(make_ready(subject, ExportConfig(run_dir=run.path, target="cuda"), 1))


def swap(lexical: Lexical) -> Lexical:
    return Lexical(np.roll(lexical.weights, 1, axis=1), np.roll(lexical.bias, 1))


def test_a_first_stage_whose_labels_are_swapped_is_refused(run: RunDir, first_stage: tuple[Lexical, Examples]) -> None:
    give_first_stage(run, swap(first_stage[0]), first_stage[1])
    trial = judge(run)
    assert (trial.shipped, trial.chosen, trial.curve) == (False, None, ())
    assert "its labels are in another order" in trial.reason


def test_a_first_stage_that_was_fitted_on_evaluation_texts_is_refused(run: RunDir) -> None:
    spoiled = to_bytes(fit_on(run, read_examples(run.evaluation, TOPICS)))
    run.lexical.write_bytes(spoiled)
    with pytest.raises(UserError, match=r"lexical.safetensors` is not the file that `.*run.json` describes"):
        ready_of(run)


def half_right(examples: Examples, seed: int) -> Examples:
    """Give half of the texts any label, which nobody can learn but from these very texts."""
    rng = np.random.default_rng(seed)
    labels = [int(rng.integers(4)) if rng.random() < 0.5 else label for label in examples.labels]
    return replace(examples, labels=labels)


def test_a_first_stage_that_was_fitted_on_evaluation_texts_is_refused_where_the_record_was_changed_too(
    run: RunDir, first_stage: tuple[Lexical, Examples]
) -> None:
    known = set(read_examples(run.evaluation, TOPICS).texts) | set(first_stage[1].texts)
    rest = topic_texts(1_200, 6, TOPICS)
    free = rest.take([i for i, text in enumerate(rest.texts) if text not in known])
    evaluation, calibration = half_right(free, 1), half_right(first_stage[1], 2)
    folder = run.export / "onnx-int8"

    def judged(lexical: Lexical) -> str:
        give_first_stage(run, lexical, calibration)
        ready, subject = ready_of(run), replace(Subject.read(run, calibration=True), evaluation=evaluation)
        assert isinstance(ready, Ready)
        logits = load_engine(run.export / "onnx-fp32", threads=1).logits(evaluation.texts)
        gate = Gate(subject, logits, Workers(1, LocalWorker), WIDE, 3, lambda *_: SLOWER)
        reason = gate.try_cascade(ready, folder, run.path / "scratch").reason
        shutil.rmtree(run.path / "scratch", ignore_errors=True)
        return reason

    assert "it was fitted on evaluation texts" in judged(fit_on(run, evaluation))
    assert "it was fitted on evaluation texts" not in judged(first_stage[0])


def test_calibration_texts_that_are_evaluated_on_are_refused(
    run: RunDir, first_stage: tuple[Lexical, Examples]
) -> None:
    evaluation = read_examples(run.evaluation, TOPICS)
    shouted = replace(evaluation, texts=[f" {str(text).upper()}" for text in evaluation.texts])
    calibration = read_examples(run.calibration, TOPICS)
    mixed = replace(
        calibration, texts=[*calibration.texts, *shouted.texts[:7]], labels=[*calibration.labels, *shouted.labels[:7]]
    )
    give_first_stage(run, first_stage[0], mixed)
    with pytest.raises(VerificationError, match=r"7 texts of `.*calibration.jsonl` are in `.*evaluation.jsonl`, too"):
        ready_of(run)


def test_a_first_stage_of_another_model_is_refused(run: RunDir) -> None:
    two = Lexical(np.zeros((2**17, 1), np.float16), np.zeros(1, np.float32))
    give_first_stage(run, two, read_examples(run.calibration, TOPICS))
    with pytest.raises(UserError, match=r"lexical.safetensors` is damaged: it is for another number of classes"):
        ready_of(run)
    run.lexical.unlink()
    with pytest.raises(UserError, match="is not the file that"):
        ready_of(run)


@pytest.mark.parametrize("name", [LEXICAL, "artifact.json"])
def test_a_threshold_or_a_first_stage_from_another_bundle_is_refused(run: RunDir, name: str, tmp_path: Path) -> None:
    folder, other = run.export / "onnx-int8", tmp_path / "other"
    shutil.copytree(folder, other)
    content = run.lexical.read_bytes()
    put(folder, content, Cascade(1.0, 0.9, 0.5, 1, 100))
    put(other, content[:-4] + b"\0\0\0\0", Cascade(1.0, 0.5, 0.0, 0, 10**6))
    shutil.copyfile(other / name, folder / name)
    with pytest.raises(IntegrityError, match=name):
        open_artifact(folder)
    for path in other.iterdir():
        shutil.copyfile(path, folder / path.name)
    open_artifact(folder)
    with pytest.raises(IntegrityError, match="is not the artifact that"):
        load_export(replace_run(run))


def put(folder: Path, content: bytes, cascade: Cascade) -> None:
    seal(folder, with_size(folder, add_cascade(folder, open_artifact(folder), content, cascade)))


def replace_run(run: RunDir) -> RunDir:
    """Let the export's record be of this run, so that only its bundle is another."""
    record = run.export_record.read_text()
    before = [line for line in record.splitlines() if '"run_sha256"' in line]
    run.export_record.write_text(record.replace(before[0], f'  "run_sha256": "{file_sha256(run.record)}",'))
    return run


def test_texts_of_another_domain_are_scored_alone_and_through_both_stages(run: RunDir, tmp_path: Path) -> None:
    rows: Sequence[tuple[object, ...]] = list(make_texts(40, seed=9))
    path = write_csv(tmp_path / "other.csv", list(rows), ("review", "topic"))
    folder, subject, workers = run.export / "onnx-int8", Subject.read(run, calibration=False), Workers(1, LocalWorker)
    change(run, training=None)
    shifts = read_shifts([path], subject)
    (alone,) = score_shifts(shifts, subject, folder, workers, "cpu")
    assert (alone.name, alone.texts, alone.cascade_score, alone.answered) == ("other.csv", 40, None, None)
    put(folder, run.lexical.read_bytes(), Cascade(1.0, 0.01, 0.0, 0, 10**6))
    (both,) = score_shifts(shifts, subject, folder, workers, "cpu")
    assert both == replace(alone, cascade_score=both.cascade_score, answered=1.0)
    assert both.cascade_score
    assert both.cascade_score > 0.8


def test_a_file_with_other_labels_is_refused(run: RunDir, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "other.csv", [("soup", "food"), ("rain", "weather")])
    with pytest.raises(UserError, match="label `weather`, which the classifier does not know"):
        read_shifts([path], Subject.read(run, calibration=False))
