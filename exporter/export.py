"""The export: merge, convert, fuse, quantize, prove each step, choose, and only then put the artifacts in place.

What each step does is in `exporter/steps/`; here is their order, and the record.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.bundle.artifact import (
    ONNX_BF16_OPENVINO,
    ONNX_FP16,
    ONNX_INT8,
    ONNX_INT8_OPENVINO,
    Artifact,
    open_artifact,
)
from exporter.cascade.ready import Ready, make_ready
from exporter.cascade.shift import read_shifts, score_shifts
from exporter.cascade.trial import CascadeTrial, ShiftScore
from exporter.checksums import CHECKSUMS
from exporter.config import ExportConfig, Target
from exporter.convert.to_onnx import check_exporter
from exporter.engines.cores import gpu_name, usable_cores
from exporter.half.device import usable_gpu, wake
from exporter.int8.recipes import RECIPES, Recipe
from exporter.int8.target import instruction_sets
from exporter.proof.against import Other
from exporter.proof.chain import Chain
from exporter.proof.reference import load_trained, open_merged
from exporter.proof.variations import variations
from exporter.proof.worker import MANY_CORES, Spares, StartWorker, Worker, Workers
from exporter.records import ExportRecord, OtherRun, Variation, settle_export
from exporter.steps.against import compare_with
from exporter.steps.cascade import try_cascades
from exporter.steps.fp32 import Fp32, make_fp32
from exporter.steps.half import find_attention, make_half
from exporter.steps.int8 import make_int8, recipes_to_try
from exporter.steps.job import Job
from exporter.steps.outcome import Outcome
from exporter.steps.plan import make_plans
from exporter.steps.seal import check_sealed, seal_all
from exporter.steps.trained import choose_thresholds
from exporter.subject import Subject
from trainer.records import file_sha256, installed_versions, write_record
from trainer.run import RunDir

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
)
PYTORCH_STEPS = 4
"""What was trained, what was merged, and the two that are timed beside half precision."""
PLAN_SECONDS = 6.0
"""For a plan at the end of an export; `python -m exporter.tune` takes longer, and is surer."""


@dataclass(frozen=True)
class Findings:
    """The sealed artifacts, and what was measured of the one to ship."""

    artifacts: tuple[Artifact, ...]
    cascade: CascadeTrial
    cascade_openvino: CascadeTrial | None
    against: OtherRun | None
    variations: tuple[Variation, ...]
    attention: tuple[str, ...]
    shift: tuple[ShiftScore, ...]


def export(
    config: ExportConfig,
    start: StartWorker = Worker,
    recipes: Sequence[Recipe] = RECIPES,
    plan_seconds: float = 0.0,
) -> ExportRecord:
    """Export the run in `config.run_dir` and leave its artifacts and record there.

    Args:
        config: what is asked for.
        start: starts the process in which a step is loaded.
        recipes: the int8 recipes to choose from.
        plan_seconds: to find the fastest way to score many texts here with the chosen artifact; no plan is made if 0.

    Raises:
        UserError: there is no trained run, or it cannot be exported.
        VerificationError: an artifact is not the classifier that it was made from. An earlier export is left as it was.
    """
    check_exporter(config.exporter)
    run = RunDir(config.run_dir)
    with run.held():
        started = time.monotonic()
        subject = Subject.read(run, calibration=config.quantize is not None)
        with _workers(start, config.target) as workers:
            gpu = usable_gpu() if config.target == "cuda" else None
            other = Other.read(config.against_run, subject) if config.against_run else None
            if subject.train.task == "multi-label":
                subject = choose_thresholds(subject, workers)
            job = Job(subject, config, workers, _chain(subject, config.verify_samples, workers), gpu)
            return _export(job, other, recipes, plan_seconds, started)


@contextlib.contextmanager
def _workers(start: StartWorker, target: Target) -> Iterator[Workers]:
    """Have processes started ahead where they import PyTorch and wake a GPU, and there are cores for that."""
    threads = usable_cores()
    if target == "cuda" and gpu_name() and threads >= MANY_CORES and start is Worker:
        spares = Spares(threads, (load_trained, open_merged), wake, ahead=2, most=PYTORCH_STEPS)
        with contextlib.closing(spares):
            yield Workers(threads, spares)
    else:
        yield Workers(threads, start)


def _chain(subject: Subject, most: int, workers: Workers) -> Chain:
    names = subject.train.label_names
    return Chain(subject.encoder, subject.evaluation, names, subject.task, most=most, workers=workers)


def _export(
    job: Job, other: Other | None, recipes: Sequence[Recipe], plan_seconds: float, started: float
) -> ExportRecord:
    """Take the steps in their order."""
    subject, config = job.subject, job.config
    tried, shifts = recipes_to_try(recipes, config), read_shifts(config.shift, subject)
    ready = make_ready(subject, config, sum(r.engine == "onnxruntime" and r.is_usable() for r in tried))
    with _workspace(job):
        fp32 = make_fp32(job)
        if config.target == "cuda":
            outcome = make_half(job, fp32)
        else:
            outcome = make_int8(job, fp32, tried, cascades=int(isinstance(ready, Ready)))
        sealed = seal_all(job, fp32, outcome)
        check_sealed(job, sealed)
        cascade, cascade_openvino = try_cascades(job, fp32, outcome, ready)
        against = compare_with(other, job, fp32, outcome, cascade) if other else None
        artifacts = tuple(open_artifact(job.folder / a.name) for a in sealed)
        chosen = job.folder / outcome.chosen
        varied = variations(chosen, subject.encoder, subject.varied(), subject.task, job.workers, job.device)
        if plan_seconds:
            served = [a for a in artifacts if a.name == outcome.chosen or a.engine == "openvino"]
            make_plans(job, served, plan_seconds)
        attention = find_attention(job, chosen)
        shift = score_shifts(shifts, subject, chosen, job.workers, job.device)
        found = Findings(artifacts, cascade, cascade_openvino, against, varied, attention, shift)
        record = _record(job, fp32, outcome, found, started)
        _put_in_place(job, record)
    return record


def _record(job: Job, fp32: Fp32, outcome: Outcome, found: Findings, started: float) -> ExportRecord:
    return ExportRecord(
        config=job.config,
        run_sha256=file_sha256(job.subject.run.record),
        instruction_sets=instruction_sets(),
        shortcut=fp32.shortened,
        fused=fp32.fused,
        fp16_fused=outcome.fp16_fused,
        texts=len(job.subject.evaluation),
        metric=job.subject.task.metric,
        score=fp32.score,
        artifacts=found.artifacts,
        artifact_sha256={a.name: file_sha256(job.folder / a.name / CHECKSUMS) for a in found.artifacts},
        chosen=outcome.chosen,
        reason=outcome.reason,
        comparisons=tuple(job.chain.comparisons),
        candidates=outcome.candidates,
        failed=outcome.failed,
        skipped=outcome.skipped,
        int8_recipe=outcome.recipe_of(ONNX_INT8),
        openvino_recipe=outcome.recipe_of(ONNX_INT8_OPENVINO, ONNX_BF16_OPENVINO),
        fp16_recipe=outcome.recipe_of(ONNX_FP16),
        gpu=job.gpu,
        gpu_speeds=outcome.gpu_speeds,
        attention=found.attention,
        variations=found.variations,
        against=found.against,
        cascade=found.cascade,
        cascade_openvino=found.cascade_openvino,
        shift=found.shift,
        duration_s=time.monotonic() - started,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=installed_versions(PACKAGES),
    )


@contextlib.contextmanager
def _workspace(job: Job) -> Iterator[None]:
    """Have a folder beside the export to build in, gone afterwards whatever happens."""
    settle_export(job.subject.run)
    shutil.rmtree(job.folder, ignore_errors=True)
    job.scratch.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(job.folder, ignore_errors=True)


def _put_in_place(job: Job, record: ExportRecord) -> None:
    """Replace the run's export by what was made."""
    run = job.subject.run
    shutil.rmtree(job.scratch)
    write_record(job.folder / run.export_record.name, record)  # from now on the folder is whole, whatever happens
    settle_export(run)
