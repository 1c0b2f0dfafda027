"""Sealing: artifacts get their cards, manifests and checksums, and are opened as whoever deploys them does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from exporter.bundle.artifact import CARD, MERGED, MODEL, ONNX_FP32, Artifact, open_artifact, seal, with_size
from exporter.card import Facts, render
from exporter.engines.table import LOAD
from exporter.steps.fp32 import Fp32
from exporter.steps.job import Job
from exporter.steps.outcome import Outcome
from trainer.records import write_text


def seal_all(job: Job, fp32: Fp32, outcome: Outcome) -> tuple[Artifact, ...]:
    """Complete the artifacts with their cards, manifests and checksums.

    Returns:
        All artifacts, the merged checkpoint first.
    """
    merged = with_size(job.merged, job.subject.artifact(MERGED, "fp32", "model.safetensors"))
    seal(job.merged, merged)
    artifacts = [merged]
    for unsized, facts in _known(job, fp32, outcome):
        folder = job.folder / unsized.name
        artifact = with_size(folder, unsized)
        write_text(folder / CARD, render(artifact, job.subject.train, facts))
        seal(folder, artifact)
        artifacts.append(artifact)
    return tuple(artifacts)


def _known(job: Job, fp32: Fp32, outcome: Outcome) -> Iterator[tuple[Artifact, Facts]]:
    """Give every ONNX artifact, without its size, and what its card tells."""
    subject, chain, texts = job.subject, job.chain, len(job.subject.evaluation)
    yield subject.artifact(ONNX_FP32, "fp32"), Facts(fp32.score, texts, chain.link(ONNX_FP32), None, job.gpu)
    for other in outcome.beside:
        rung = other.rung
        artifact = subject.artifact(other.name, other.precision)
        if rung:
            artifact = replace(artifact, engine=rung.engine)
        score = fp32.score + rung.change.change if rung else None
        yield artifact, Facts(score, texts, chain.link(other.recipe), rung, job.gpu)


def check_sealed(job: Job, artifacts: Sequence[Artifact]) -> None:
    """Open every artifact as whoever deploys it does: its files, and what it answered when it was proved."""
    for artifact in artifacts:
        path = job.folder / artifact.name
        if artifact.model_file == MODEL:
            load = partial(LOAD[artifact.engine], path, threads=job.workers.threads)
            with job.workers.opened(artifact.name, load):
                pass
        else:
            open_artifact(path)
