"""Samples to a record: what was measured, with the scores of the answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from bench.engines.table import ADAPTER, AGAIN, EngineSpec
from bench.judge.accuracy import score
from bench.measure.environment import packages_bytes
from bench.measure.samples import Samples
from bench.measure.workload import Setting, reference_of
from bench.results import Accuracy, BenchRecord, EngineInfo
from trainer.records import file_sha256
from trainer.sources import locate_base


def make_record(setting: Setting, taken: Samples, specs: Sequence[EngineSpec], *, is_complete: bool) -> BenchRecord:
    """Put together what there is: scores are on the texts that every engine has answered."""
    reference = reference_of(specs).name
    answered = sorted(set.intersection(*(set(taken.logits.get(spec.name, ())) for spec in specs)))
    return BenchRecord(
        config=setting.config,
        is_complete=is_complete,
        export_sha256=file_sha256(setting.run.export_record),
        evaluation_sha256=file_sha256(setting.run.evaluation),
        chosen=setting.export.chosen,
        accept_undecided=setting.export.config.accept_undecided,
        labels=tuple(setting.examples.labels[i] for i in answered),
        label_names=setting.train.label_names,
        reference=reference,
        again=reference + AGAIN,
        environment=setting.environment,
        machine=taken.machine,
        engines=tuple(_info(spec, setting) for spec in specs),
        skipped=tuple(taken.skipped),
        accuracies=tuple(_scores(setting, taken, specs, answered)),
        singles=tuple(taken.singles),
        batching_trials=tuple(taken.batching_trials),
        bulks=tuple(taken.bulks),
        grids=tuple(taken.grids),
        cold_starts=tuple(taken.cold_starts),
        memories=tuple(taken.memories[spec.name] for spec in specs if spec.name in taken.memories),
        soaks=tuple(taken.soaks),
        own_tokens=setting.own_tokens,
        duration_s=time.monotonic() - setting.started,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _scores(setting: Setting, taken: Samples, specs: Sequence[EngineSpec], answered: Sequence[int]) -> list[Accuracy]:
    if not answered:
        return []
    reference = reference_of(specs).name
    logits = {spec.name: np.stack([taken.logits[spec.name][i] for i in answered]) for spec in specs}
    labels = [setting.examples.labels[i] for i in answered]
    tokens = [setting.tokens[i] for i in answered]
    right = [int(i) for i in logits[reference].argmax(-1)]
    return [
        score(
            name,
            rows,
            labels,
            setting.train.label_names,
            tokens,
            reference=None if name == reference else right,
            tried=max(1, sum(not spec.peer and spec.name != reference for spec in specs)),
        )
        for name, rows in logits.items()
    ]


def _info(spec: EngineSpec, setting: Setting) -> EngineInfo:
    """Describe an engine; the adapter needs its base on disk, too."""
    size = None
    if spec.artifact == ADAPTER:
        base = locate_base(setting.train.base.name, setting.train.base.revision).folder
        size = sum(path.stat().st_size for path in [*setting.run.adapter.iterdir(), *base.glob("*.safetensors")])
    elif not spec.prepares:
        size = next(a.size_bytes for a in setting.export.artifacts if a.name == spec.artifact)
    return EngineInfo(
        name=spec.name,
        artifact=spec.artifact,
        device=spec.device,
        precision=spec.precision,
        size_bytes=size,
        packages_bytes=packages_bytes(spec.packages),
        is_peer=spec.peer is not None,
    )
