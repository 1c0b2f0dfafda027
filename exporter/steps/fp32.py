"""The artifact in fp32: merged, converted to ONNX, fused, and proved at each of these."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial

from exporter.bundle.artifact import MERGED, MODEL
from exporter.bundle.golden import write_golden
from exporter.convert.graph import finish_conversion, fuse
from exporter.convert.merge import copy_around_model, merge
from exporter.convert.positions import slice_positions
from exporter.convert.shortcut import shorten
from exporter.convert.to_onnx import convert
from exporter.int8.ladder import Baseline
from exporter.proof.reference import load_trained, open_merged
from exporter.proof.worker import Worker
from exporter.steps.job import Job
from exporter.steps.trained import TRAINED
from trainer.progress import say
from trainer.tasks import FloatArray


@dataclass(frozen=True)
class Fp32:
    """What is known of the artifact in fp32, with which all others are compared."""

    shortened: bool
    """Whether its last layer works for the first token alone, as that of all others does then."""
    fused: dict[str, int]
    """How many layers became one operator, by its name."""
    logits: FloatArray
    """Its answers to the evaluation texts, [texts, classes]."""
    score: float
    """Of these answers."""

    def baseline(self, job: Job, worker: Worker) -> Baseline:
        """Return what recipes are compared with, of the process that holds it."""
        subject = job.subject
        return Baseline(worker, self.logits, subject.evaluation, subject.varied(), job.chain, subject.task)


def make_fp32(job: Job) -> Fp32:
    """Make the artifact in fp32, and prove every step to it."""
    _merge(job)
    shortened = _convert(job)
    fused, logits = _fuse(job, shortened=shortened)
    return Fp32(shortened, fused, logits, job.subject.score(logits))


def _merge(job: Job) -> None:
    """Begin the proof with what was trained, merge its adapter, and prove the checkpoint."""
    run, train = job.subject.run, job.subject.train
    job.chain.begin(TRAINED, partial(load_trained, run, job.device))
    if run.has_adapter():
        say(f"merging the adapter into `{train.base.name}`")
    merge(run, train, job.merged)
    load = partial(open_merged, job.merged, job.subject.artifact(MERGED, "fp32", "model.safetensors"), job.device)
    with job.chain.proved(job.merged, load, after=TRAINED):
        pass


def _convert(job: Job) -> bool:
    """Convert the checkpoint to ONNX, and prove it.

    Returns:
        Whether the last layer works for the first token alone. PyTorch's does not, so the proof sees both.
    """
    say("converting to ONNX")
    convert(job.merged, job.unfused, job.config.exporter)
    finish_conversion(job.unfused / MODEL, job.subject.metadata())
    shortcut = shorten(job.unfused / MODEL)
    if job.config.target == "cuda":
        slice_positions(job.unfused / MODEL)
    with job.chain.proved(job.unfused, job.opening(job.unfused, "fp32"), after=MERGED):
        return shortcut


def _fuse(job: Job, *, shortened: bool) -> tuple[dict[str, int], FloatArray]:
    """Fuse the converted model, and prove it.

    Returns:
        What was fused, and its logits for the evaluation texts.
    """
    unfused, fp32, fuse_graph = job.unfused, job.fp32, not job.config.no_fuse
    copy_around_model(unfused, fp32)
    fused = fuse(unfused / MODEL, fp32 / MODEL, job.merged, shortened=shortened) if fuse_graph else {}
    if fuse_graph and not fused:
        say("onnxruntime's optimizer does not know this architecture: its graph stays as it was converted")
    if not fused:
        shutil.copyfile(unfused / MODEL, fp32 / MODEL)
    with job.chain.proved(fp32, job.opening(fp32, "fp32"), after=unfused.name) as worker:
        write_golden(fp32, worker.logits, "fp32", pairs=job.subject.train.pairs)
        return fused, worker.logits(job.subject.evaluation.texts, job.batching)
