"""The comparison with another run, such as a student's teacher: both answer, both are judged, and cards tell of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from exporter.bundle.artifact import CARD, ONNX_FP32
from exporter.card import tell_against
from exporter.cascade.trial import CascadeTrial
from exporter.checksums import write_checksums
from exporter.proof.against import Other, compare, weights_bytes
from exporter.proof.reference import load_trained
from exporter.records import OtherRun
from exporter.steps.fp32 import Fp32
from exporter.steps.job import Job
from exporter.steps.outcome import Outcome
from exporter.steps.trained import TRAINED, choose_thresholds
from trainer.progress import say
from trainer.records import write_text
from trainer.tasks import FloatArray


def compare_with(other: Other, job: Job, fp32: Fp32, outcome: Outcome, cascade: CascadeTrial) -> OtherRun:
    """Let another run and the sealed artifact to ship answer the evaluation texts, and judge it and `onnx-fp32`.

    Their cards tell of it.
    """
    teacher, texts = other.subject, job.subject.evaluation.texts
    say(f"asking `{teacher.run.path}` the same {len(texts):,} texts")
    if teacher.train.task == "multi-label":
        other = replace(other, subject=choose_thresholds(teacher, job.workers))
    logits, size_bytes = _ask(other, job)
    answers, tried = {job.fp32: fp32.logits}, 1
    if outcome.chosen != ONNX_FP32:
        path = job.folder / outcome.chosen
        tried += outcome.rivals("onnxruntime") + (cascade.judged is not None)
        with job.workers.opened(path.name, job.opening_sealed(path)) as worker:
            answers[path] = worker.logits(texts, job.batching)
    found = compare(job.subject, other, logits, size_bytes, answers, job.config.max_drop, tried)
    for path in answers:
        write_text(path / CARD, tell_against((path / CARD).read_text(encoding="utf-8"), path.name, found))
        write_checksums(path)
    return found


def _ask(other: Other, job: Job) -> tuple[FloatArray, int]:
    """Return what another run answers to the evaluation texts, and how many bytes its weights take in fp32."""
    with job.workers.opened(TRAINED, partial(load_trained, other.subject.run, job.device)) as worker:
        return worker.logits(job.subject.evaluation.texts, job.batching), worker.call(weights_bytes)
