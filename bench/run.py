"""The benchmark: load every usable backend, score it, time it, write the record and its rendering."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial

import numpy as np

from bench.accuracy import score
from bench.backends import ADAPTER, BackendSpec, choose_specs, load_backend, why_unusable
from bench.config import BenchConfig
from bench.environment import read_environment
from bench.report import render
from bench.results import Accuracy, BackendInfo, BenchRecord, Environment, Skipped, Timing
from exporter.artifacts import ExportRecord, load_export
from exporter.checksums import IntegrityError
from exporter.probabilities import FloatArray
from exporter.runtime import BATCH_TOKENS, usable_cores
from exporter.timing import time_interleaved
from exporter.worker import Worker
from trainer.data import Examples, read_examples
from trainer.errors import UserError
from trainer.records import file_sha256, write_record, write_text
from trainer.run import RunDir, TrainRecord
from trainer.sources import locate_base

PROGRESS_PARTS = 20


def bench(config: BenchConfig) -> BenchRecord:
    """Measure the export in `config.run_dir` and leave `bench.json` and `bench.md` there.

    Raises:
        UserError: there is no export, or not one backend can be used.
    """
    started = time.monotonic()
    run = RunDir(config.run_dir)
    train, export = run.load(), load_export(run)
    environment = read_environment(config.threads or usable_cores())
    examples = read_examples(run.evaluation, train.label_names)
    if config.max_eval_samples:
        examples = examples.take(range(min(config.max_eval_samples, len(examples))))
    with ExitStack() as stack:
        workers, skipped = _start(stack, config, run, export, environment)
        accuracies = [_score(name, worker, examples) for name, worker in workers.items()]
        timings = _time(config, workers, examples.texts)
    record = BenchRecord(
        config=config,
        export_sha256=file_sha256(run.export_record),
        chosen=export.chosen,
        labels=tuple(examples.labels),
        label_names=train.label_names,
        environment=environment,
        backends=tuple(_info(spec, run, train, export) for spec in choose_specs(list(workers))),
        skipped=tuple(skipped),
        accuracies=tuple(accuracies),
        timings=tuple(timings),
        duration_s=time.monotonic() - started,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_text(run.bench_report, render(record) + "\n")
    write_record(run.bench_record, record)
    return record


def _start(
    stack: ExitStack, config: BenchConfig, run: RunDir, export: ExportRecord, environment: Environment
) -> tuple[dict[str, Worker], list[Skipped]]:
    """Start a worker for every backend that can be used here, and say of the others why not."""
    workers: dict[str, Worker] = {}
    skipped = []
    for spec in choose_specs(config.backends):
        reason = why_unusable(spec, export, environment.gpu)
        if reason is None:
            _say(f"loading {spec.name}")
            try:
                workers[spec.name] = stack.enter_context(closing(_worker(spec, run, environment.threads)))
            except IntegrityError:  # a changed file, or a GPU row that would be measured on the CPU
                raise
            except UserError as error:
                reason = error.message
        if reason is not None:
            skipped.append(Skipped(spec.name, reason))
    if not workers:
        raise UserError("not one backend can be used here", "; ".join(f"`{s.backend}`: {s.reason}" for s in skipped))
    return workers, skipped


def _worker(spec: BackendSpec, run: RunDir, threads: int) -> Worker:
    return Worker(spec.name, partial(load_backend, spec, run, threads), threads)


def _score(name: str, worker: Worker, examples: Examples) -> Accuracy:
    """Score a backend on all examples, telling how far it got."""
    parts: list[FloatArray] = []
    size = max(1, -(-len(examples) // PROGRESS_PARTS))
    for start in range(0, len(examples), size):
        parts.append(worker.logits(examples.texts[start : start + size], BATCH_TOKENS))
        _progress(f"accuracy of {name}: {min(start + size, len(examples)):,} of {len(examples):,} reviews")
    scores = score(name, np.concatenate(parts), examples.labels)
    _say(f"accuracy of {name}: {scores.accuracy:.2%}")
    return scores


def _time(config: BenchConfig, workers: dict[str, Worker], texts: Sequence[str]) -> list[Timing]:
    timings: list[Timing] = []
    for batch_size in config.batch_sizes:
        _say(f"timing {len(workers)} backends at batch {batch_size}, {config.calls} calls each")
        samples = time_interleaved(
            workers, texts, batch_size=batch_size, calls=config.calls, warmup=config.warmup, seed=config.seed
        )
        timings += [Timing(name, batch_size, taken) for name, taken in samples.items()]
    return timings


def _info(spec: BackendSpec, run: RunDir, train: TrainRecord, export: ExportRecord) -> BackendInfo:
    """Describe a backend; the adapter needs its base on disk, too."""
    if spec.artifact == ADAPTER:
        base = locate_base(train.base.name, train.base.revision).folder
        size_bytes = sum(path.stat().st_size for path in [*run.adapter.iterdir(), *base.glob("*.safetensors")])
    else:
        size_bytes = next(a.size_bytes for a in export.artifacts if a.name == spec.artifact)
    return BackendInfo(spec.name, spec.artifact, spec.device, size_bytes)


def _progress(message: str) -> None:
    """Tell where a long step stands, on a terminal only, in place."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{message}\033[K\r")
        sys.stderr.flush()


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
