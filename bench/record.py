"""Samples to a record: what was measured, with the scores of the answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.engines.table import reference_of
from bench.judge.accuracy import score
from bench.measure.environment import packages_bytes
from bench.measure.restart import SECOND
from bench.measure.samples import Samples
from bench.measure.workload import Workload
from bench.results import Accuracy, BenchRecord, EngineInfo, Machine, Memory, Skipped
from exporter.cascade.trial import CascadeTrial
from exporter.engines.spec import EngineSpec
from exporter.records import ExportRecord
from trainer.tasks import FloatArray, as_set


def make_record(
    workload: Workload,
    samples: Samples,
    engines: Sequence[EngineSpec],
    *,
    machine: Machine | None,
    prepared: Mapping[str, Path],
    skipped: Sequence[Skipped],
) -> BenchRecord:
    """Put together what there is, not complete yet: scores are on the texts that every engine has answered."""
    reference = reference_of(engines).name
    logits = {spec.name: samples.logits(spec.name) for spec in engines}
    answered = sorted(set.intersection(*map(set, logits.values())))
    return BenchRecord(
        config=workload.config,
        is_complete=False,
        export_sha256=workload.export_sha256,
        evaluation_sha256=workload.evaluation_sha256,
        chosen=workload.export.chosen,
        accept_undecided=workload.export.config.accept_undecided,
        task=workload.train.task,
        pairs=workload.train.pairs,
        labels=tuple(as_set(workload.examples.labels[i]) for i in answered),
        label_names=workload.train.label_names,
        reference=reference,
        second_process=reference + SECOND,
        environment=workload.environment,
        machine=machine,
        engines=tuple(_info(spec, workload, prepared[spec.name]) for spec in engines),
        skipped=tuple(dict.fromkeys((*skipped, *samples.skipped))),
        accuracies=_scores(workload, logits, engines, answered) if answered else (),
        singles=samples.singles,
        batching_trials=samples.batching_trials,
        bulks=samples.bulks,
        grids=samples.grids,
        cold_starts=samples.cold_starts,
        memories=tuple(_largest([m for m in samples.memories if m.engine == spec.name]) for spec in engines),
        soaks=samples.soaks,
        companies=samples.companies,
        evaluation_texts=len(workload.examples),
        own_tokens=workload.own_tokens,
        cascade=_shipped(workload.export),
        duration_s=time.monotonic() - workload.started,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _shipped(export: ExportRecord) -> CascadeTrial | None:
    """Return the cascade that was shipped; of two, the one before the artifact in int8 for every machine."""
    return next((trial for trial in export.cascades if trial.shipped), None)


def _scores(
    workload: Workload,
    logits: Mapping[str, Mapping[int, FloatArray]],
    engines: Sequence[EngineSpec],
    answered: Sequence[int],
) -> tuple[Accuracy, ...]:
    reference = reference_of(engines).name
    labels = [workload.examples.labels[i] for i in answered]
    tokens = [workload.tokens[i] for i in answered]
    rows = {name: np.stack([of_text[i] for i in answered]) for name, of_text in logits.items()}
    task = workload.task
    compared = max(1, sum(not spec.is_peer and spec.name != reference for spec in engines))
    # int8 is the best of all that the exporter judged on these texts: here, too, it is judged as one of them.
    export = workload.export
    rungs = Counter(candidate.engine for candidate in export.candidates)
    made_for = {a.name: a.engine for a in export.artifacts if a.precision in ("int8", "bf16")}
    rungs.update(made_for[trial.artifact] for trial in export.cascades if trial.judged)
    tried = {s.name: max(compared, rungs[made_for[s.artifact]]) for s in engines if s.artifact in made_for}
    return tuple(
        score(
            name,
            rows[name],
            labels,
            workload.train.label_names,
            tokens,
            task,
            reference=None if name == reference else task.answers(rows[reference]),
            tried=tried.get(name, compared),
        )
        for name in rows
    )


def _info(spec: EngineSpec, workload: Workload, prepared: Path) -> EngineInfo:
    return EngineInfo(
        name=spec.name,
        artifact=spec.artifact or "none",
        device=spec.device,
        precision=spec.precision,
        size_bytes=_size(spec, workload, prepared),
        packages_bytes=packages_bytes(spec.packages),
        is_peer=spec.is_peer,
        can_ship=spec.can_ship,
    )


def _size(spec: EngineSpec, workload: Workload, prepared: Path) -> int:
    """Return the size of all that has to be on disk to serve with an engine, but for the installed packages."""
    if spec.artifact and not spec.prepare:
        return next(a.size_bytes for a in workload.export.artifacts if a.name == spec.artifact)
    return sum(path.stat().st_size for path in (*spec.files(workload.run), *prepared.rglob("*")) if path.is_file())


def _largest(memories: Sequence[Memory]) -> Memory:
    """Return the largest sizes of all restarts."""

    def largest(sizes: Sequence[int | None]) -> int | None:
        return max((size for size in sizes if size is not None), default=None)

    return Memory(
        memories[0].engine,
        largest([memory.loaded_bytes for memory in memories]),
        largest([memory.peak_bytes for memory in memories]),
        largest([memory.gpu_bytes for memory in memories]),
    )
