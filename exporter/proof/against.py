"""Is a student as good as its teacher? Both answer the student's evaluation texts, and a paired interval judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle.artifact import MODEL
from exporter.engines.engine import ModelEngine
from exporter.int8.budget import judge, texts_to_decide
from exporter.int8.paired import pair
from exporter.proof.reference import TorchModel
from exporter.records import OtherRun, Verdict
from exporter.subject import Subject
from trainer.data.splitting import without
from trainer.errors import UserError
from trainer.records import file_sha256
from trainer.run import RunDir, reload_splits
from trainer.tasks import Answers, FloatArray


@dataclass(frozen=True)
class Other:
    """The run that a student is compared with."""

    subject: Subject
    """With its own evaluation texts, which are not those to compare on."""
    unchecked: str
    """What it may have learnt from that nobody can tell from here; empty where all is known."""

    @classmethod
    def read(cls, folder: Path, student: Subject) -> Other:
        """Read the run in `folder`.

        Raises:
            UserError: there is none, it answers with other labels, or it was trained on texts to compare on.
        """
        if folder.resolve() == student.run.path.resolve():
            raise UserError(f"`{folder}` cannot be compared with itself", "name its teacher with `--against-run`")
        other = Subject.read(RunDir(folder), calibration=False)
        own, its = student.train, other.train
        if (own.label_names, own.task, own.pairs) != (its.label_names, its.task, its.pairs):
            raise UserError(
                f"`{folder}` answers {', '.join(its.label_names)}, and `{student.run.path}` "
                f"{', '.join(own.label_names)}: their answers cannot be compared",
                "name a run with the same labels in the same order, as a student's teacher has them",
            )
        return cls(other, check_texts(student, other))


def check_texts(student: Subject, other: Subject) -> str:
    """Return what another run may have learnt from that cannot be told, among a student's evaluation texts.

    Raises:
        UserError: it was trained on some of them: it would be flattered.
    """
    texts, its = student.evaluation.texts, other.train
    if its.training is None:
        return "what it was trained on, which was elsewhere"
    if without(texts, other.evaluation.texts):  # else all are among those that it was evaluated on
        try:
            seen = reload_splits(its).train.texts
        except UserError as error:
            return f"what it was trained on: {error.message}"
        if known := len(texts) - len(without(texts, seen)):
            raise UserError(
                f"`{other.run.path}` was trained on {known:,} of the {len(texts):,} evaluation texts",
                "train the student without `--dataset`, or with an `--eval-dataset` that its teacher has not seen",
            )
    unlabelled = its.teaching.unlabelled_texts if its.teaching else 0
    return f"the {unlabelled:,} texts without labels that it learnt from" if unlabelled else ""


def weights_bytes(engine: ModelEngine[TorchModel]) -> int:
    """Return what the weights of a loaded classifier would take in fp32."""
    count: int = sum(weight.numel() for weight in engine.model.module.parameters())
    return 4 * count


def compare(
    student: Subject,
    other: Other,
    other_logits: FloatArray,
    size_bytes: int,
    artifacts: Mapping[Path, FloatArray],
    max_drop: float,
    tried: int,
) -> OtherRun:
    """Judge what a student's artifacts lose against another run, by answers to the student's evaluation texts.

    Args:
        student: the student.
        other: the run to compare with; its `subject` has the thresholds that its answers are given by.
        other_logits: what it answers, [texts, classes].
        size_bytes: of its weights in fp32.
        artifacts: what each artifact answers, by its folder.
        max_drop: the budget, in percentage points.
        tried: how many intervals hold together with 95 %: that of `onnx-fp32`, and those of all candidates among which
            the artifact to ship was chosen, by their answers to these texts.
    """
    task, truth = student.task, student.task.truth(student.evaluation.labels)
    before: Answers = other.subject.task.answers(other_logits)
    verdicts = []
    for folder, logits in artifacts.items():
        change = pair(task, before, task.answers(logits), truth).change(tried)
        judgement = judge(change, max_drop / 100)
        verdicts.append(
            Verdict(
                artifact=folder.name,
                smaller=size_bytes / (folder / MODEL).stat().st_size,
                change=change,
                judgement=judgement,
                texts_to_decide=texts_to_decide(change, max_drop / 100) if judgement == "undecided" else None,
            )
        )
    run = other.subject.run
    return OtherRun(
        run=run.path.resolve(),
        run_sha256=file_sha256(run.record),
        score=student.score_of(before),
        max_drop=max_drop,
        verdicts=tuple(verdicts),
        unchecked=other.unchecked,
    )
