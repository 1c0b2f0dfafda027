"""Plans: the fastest way to score many texts here with each sealed bundle, as `exporter.tune` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from exporter.bundle.artifact import Artifact
from exporter.checksums import CHECKSUMS
from exporter.engines.plan import plan_path
from exporter.engines.table import LOAD
from exporter.steps.job import Job
from exporter.tune.tune import plan_of
from trainer.errors import UserError
from trainer.progress import say
from trainer.records import file_sha256, write_record


def make_plans(job: Job, artifacts: Sequence[Artifact], seconds: float) -> None:
    """Find the fastest way to score many texts with each sealed bundle here, and write it beside the bundle."""
    threads, device, texts = job.workers.threads, job.device, job.subject.evaluation.texts
    for artifact in artifacts:
        path = job.folder / artifact.name
        say(f"trying ways to score many texts with {artifact.name}")
        load = partial(LOAD[artifact.engine], path, device=device, threads=threads)
        with job.workers.opened(artifact.name, load) as worker:
            sha256 = file_sha256(path / CHECKSUMS)
            try:
                plan = worker.call(plan_of, artifact.engine, sha256, texts, threads, seconds, device)
                write_record(plan_path(path, device), plan)
            except (UserError, OSError) as error:  # nothing depends on it but speed
                say(f"no plan was made: {error}")
