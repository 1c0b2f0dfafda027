"""The benchmark: start every usable backend anew in each generation, measure all in turns, keep every sample."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np

from bench.accuracy import score
from bench.backends import ADAPTER, AGAIN, REFERENCE, BackendSpec, choose_specs, load_backend, why_unusable
from bench.cold import cold_start
from bench.config import BenchConfig
from bench.environment import packages_bytes, read_environment
from bench.limits import measure_machine
from bench.measure import (
    SETTLE_S,
    Call,
    batch_time,
    batchings,
    best_batchings,
    can_be_split,
    peak_bytes,
    peak_gpu_bytes,
    resident_bytes,
    rounds,
    scored,
    timed,
    warm_up,
)
from bench.progress import Progress
from bench.results import (
    Accuracy,
    BackendInfo,
    BenchRecord,
    Bulk,
    ColdStart,
    Environment,
    Grid,
    Machine,
    Memory,
    Single,
    Skipped,
)
from bench.write import write_reports
from exporter.artifacts import ONNX_FP32, ExportRecord, load_export, open_artifact
from exporter.checksums import IntegrityError
from exporter.probabilities import FloatArray, softmax
from exporter.reference import adapter_encoder
from exporter.runtime import usable_cores
from exporter.worker import Worker
from trainer.data import Examples, read_examples, read_texts
from trainer.errors import UserError
from trainer.records import file_sha256
from trainer.run import RunDir, TrainRecord
from trainer.sources import locate_base

R = TypeVar("R")

PARTS = 6
"""Into which the reviews of a generation are cut for bulk scoring."""
TRIED = 48
"""Reviews on which batchings are tried."""
SAME_ANSWER = 0.05
"""By which a timed answer's probability may differ from the accuracy pass's: dynamic int8 depends on its batch."""


@dataclass(frozen=True)
class Setting:
    """What is measured, on what."""

    config: BenchConfig
    run: RunDir
    train: TrainRecord
    export: ExportRecord
    environment: Environment
    reviews: Examples
    """In the order of scoring, which is random."""
    tokens: tuple[int, ...]
    own_tokens: tuple[int, ...]
    started: float

    @classmethod
    def set_up(cls, config: BenchConfig) -> Setting:
        """Read what the exporter left.

        Raises:
            UserError: there is no export, or no file `--texts`.
        """
        run = RunDir(config.run_dir)
        train, export = run.load(), load_export(run)
        reviews = read_examples(run.evaluation, train.label_names)
        order = random.Random(config.seed).sample(range(len(reviews)), len(reviews))
        reviews = reviews.take(order[: config.max_eval_samples or len(order)])
        encoder = adapter_encoder(run, train)
        own = read_texts(config.texts, config.text_column) if config.texts else []
        return cls(
            config=config,
            run=run,
            train=train,
            export=export,
            environment=read_environment(config.threads or usable_cores()),
            reviews=reviews,
            tokens=tuple(len(e) for e in encoder.encode(reviews.texts)),
            own_tokens=tuple(len(e) for e in encoder.encode(own)) if own else (),
            started=time.monotonic(),
        )

    def share(self, generation: int) -> list[int]:
        """Return the reviews that a generation scores; together they score each once, if there are enough."""
        parts = np.array_split(np.arange(len(self.reviews)), min(self.config.restarts, len(self.reviews)))
        return [int(i) for i in parts[generation % len(parts)]]


@dataclass
class Taken:
    """The samples so far."""

    machine: Machine | None = None
    skipped: list[Skipped] = field(default_factory=list)
    batching: dict[str, str] = field(default_factory=dict)
    logits: dict[str, dict[int, FloatArray]] = field(default_factory=dict)
    """By backend and review."""
    singles: list[Single] = field(default_factory=list)
    bulks: list[Bulk] = field(default_factory=list)
    grids: dict[tuple[str, int, int], list[float]] = field(default_factory=dict)
    cold_starts: list[ColdStart] = field(default_factory=list)
    memories: dict[str, Memory] = field(default_factory=dict)


def bench(config: BenchConfig) -> BenchRecord:
    """Measure the export in `config.run_dir` and leave the record and its reports there.

    What is measured is on disk after every generation. Whatever ends the benchmark early, that much is kept. A backend
    that fails is dropped with its reason, and its generation is measured again without it.

    Raises:
        UserError: there is no export, or neither the reference nor another backend can be used.
    """
    setting, taken = Setting.set_up(config), Taken()
    specs = _usable(setting, taken)
    generation = 0
    with Progress(config.restarts) as progress:
        taken.machine = _machine(setting, progress)
        while generation < config.restarts:
            try:
                _generation(setting, taken, specs, generation, progress)
            except BackendFailedError as failed:
                _drop(taken, specs, failed, generation)
                continue
            except BaseException:
                if taken.singles or taken.bulks:
                    write_reports(setting.run, _record(setting, taken, specs, is_complete=False))
                raise
            generation += 1
            record = _record(setting, taken, specs, is_complete=generation == config.restarts)
            write_reports(setting.run, record)
    return record


class BackendFailedError(UserError):
    """A loaded backend, or one that loaded before, does not do what is asked of it."""

    def __init__(self, name: str, reason: UserError) -> None:
        super().__init__(reason.message, reason.hint)
        self.name = name


class Guarded:
    """A worker whose failures bear the backend's name."""

    def __init__(self, name: str, worker: Worker) -> None:
        self._name, self._worker = name, worker

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Run a function on the backend; see `Worker.call`."""
        try:
            return self._worker.call(function, *arguments)
        except UserError as error:
            raise BackendFailedError(self._name, error) from None


def _drop(taken: Taken, specs: list[BackendSpec], failed: BackendFailedError, generation: int) -> None:
    """Forget a backend, and what the generation in which it failed has measured."""
    name = failed.name.removesuffix(AGAIN)
    if name == _reference(specs).name:
        raise failed
    specs[:] = [spec for spec in specs if spec.name != name]
    taken.skipped.append(Skipped(name, failed.message))
    taken.singles = [s for s in taken.singles if s.backend != name and s.generation != generation]
    taken.bulks = [b for b in taken.bulks if b.backend != name and b.generation != generation]
    taken.grids = {cell: samples for cell, samples in taken.grids.items() if cell[0] != name}
    taken.cold_starts = [c for c in taken.cold_starts if c.backend != name]
    taken.memories.pop(name, None)
    taken.logits.pop(name, None)


def _usable(setting: Setting, taken: Taken) -> list[BackendSpec]:
    """Return the backends to try, and note why not the others."""
    config, found = setting.config, []
    for spec in choose_specs(config.backends, peers=config.peers):
        reason = why_unusable(spec, setting.run, setting.export, setting.environment.gpu)
        if reason is None:
            found.append(spec)
        elif spec.device == "cpu" or setting.environment.gpu or config.backends:
            taken.skipped.append(Skipped(spec.name, reason))
    if setting.environment.gpu is None and not config.backends:
        taken.skipped.append(Skipped("all backends on CUDA", "no CUDA device"))
    if not found:
        raise UserError(
            "not one backend can be used here", "; ".join(f"`{s.backend}`: {s.reason}" for s in taken.skipped)
        )
    return found


def _machine(setting: Setting, progress: Progress) -> Machine | None:
    if ONNX_FP32 not in {artifact.name for artifact in setting.export.artifacts}:
        return None
    folder = setting.run.export / ONNX_FP32
    model = folder / open_artifact(folder).model_file
    progress.say("measuring what this machine can do at most")
    with closing(Worker("the machine", _nothing, setting.environment.threads)) as worker:
        return worker.call(measure_machine, model, setting.environment.threads)


def _nothing() -> None:
    """Load nothing, in a process that is to measure the machine alone."""


def _generation(setting: Setting, taken: Taken, specs: list[BackendSpec], generation: int, progress: Progress) -> None:
    """Start all processes, measure, and end them."""
    config = setting.config
    rng = random.Random(f"{config.seed} {generation}")
    share = setting.share(generation)
    texts = setting.reviews.texts
    with ExitStack() as stack:
        workers = _start(stack, setting, taken, specs, rng, progress)
        progress.say(f"generation {generation + 1} of {config.restarts}: warming up")
        longest = texts[max(share, key=lambda i: setting.tokens[i])]
        warmups = {name: warm_up(worker, longest) for name, worker in workers.items()}
        if generation == 0:
            some = rng.sample(share, min(TRIED, len(share)))
            first = {name: worker for name, worker in workers.items() if not name.endswith(AGAIN)}
            taken.batching |= best_batchings(first, [texts[i] for i in some], rng)
        progress.say(f"generation {generation + 1}: scoring {len(share):,} reviews in bulk")
        _bulk(setting, taken, workers, generation, share, rng)
        progress.say(f"generation {generation + 1}: one review at a time")
        _single(setting, taken, workers, generation, share, warmups, rng)
        _grid(setting, taken, workers, longest, rng)
        for name, worker in workers.items():
            _peak(taken, name, worker)
    progress.say(f"generation {generation + 1}: cold starts")
    text = texts[rng.choice(share)]
    for spec in rng.sample([spec for spec in specs if not spec.prepares], len(specs) - sum(s.prepares for s in specs)):
        if seconds := cold_start(spec.name, setting.run.path, setting.environment.threads, text):
            taken.cold_starts.append(ColdStart(spec.name, **seconds))
    progress.done()


def _start(
    stack: ExitStack,
    setting: Setting,
    taken: Taken,
    specs: list[BackendSpec],
    rng: random.Random,
    progress: Progress,
) -> dict[str, Guarded]:
    """Start a process for every backend, and a second one for the reference, in a random order.

    Raises:
        BackendFailedError: one cannot be loaded.
        IntegrityError: a file was changed.
    """
    reference = _reference(specs)
    wanted = {spec.name: spec for spec in specs} | {reference.name + AGAIN: reference}
    workers: dict[str, Guarded] = {}
    for name, spec in rng.sample(sorted(wanted.items(), key=lambda item: item[0]), len(wanted)):
        try:
            workers[name] = Guarded(name, _load(stack, setting, spec, name, progress))
            _loaded(taken, name, workers[name])
        except IntegrityError:  # a changed file, or a GPU row that would be measured on the CPU
            raise
        except UserError as error:
            if len(specs) == 1:
                raise UserError("not one backend can be used here", f"`{spec.name}`: {error.message}") from None
            raise BackendFailedError(name, error) from None
    return {name: workers[name] for name in rng.sample(sorted(workers), len(workers))}


def _load(stack: ExitStack, setting: Setting, spec: BackendSpec, name: str, progress: Progress) -> Worker:
    progress.say(f"loading {name}")
    threads = setting.environment.threads
    return stack.enter_context(closing(Worker(name, partial(load_backend, spec, setting.run, threads), threads)))


def _reference(specs: Sequence[BackendSpec]) -> BackendSpec:
    """Return what the others are compared with: PyTorch on the CPU, else another form of ours in fp32."""
    ours = [spec for spec in specs if spec.precision == "fp32" and not spec.peer]
    return min(ours or specs, key=lambda spec: (spec.name != REFERENCE, spec.name))


def _bulk(
    setting: Setting, taken: Taken, workers: dict[str, Guarded], generation: int, share: list[int], rng: random.Random
) -> None:
    """Let every backend score the generation's reviews, part by part."""
    parts = [[share[int(i)] for i in part] for part in np.array_split(np.arange(len(share)), PARTS) if len(part)]
    for name in workers:  # the second process of the reference batches as the first
        taken.batching.setdefault(name, taken.batching[name.removesuffix(AGAIN)])
    texts = [[setting.reviews.texts[i] for i in part] for part in parts]
    settings = {name: worker.call(batchings)[taken.batching[name]] for name, worker in workers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for part, of_part in zip(parts, texts, strict=True):
        for name in rng.sample(list(workers), len(workers)):
            time.sleep(SETTLE_S)
            answer = workers[name].call(scored, of_part, settings[name])
            seconds[name].append(answer.seconds)
            taken.logits.setdefault(name, {}).update(zip(part, answer.logits, strict=True))
    for name in workers:
        taken.bulks.append(
            Bulk(
                backend=name,
                generation=generation,
                batching=taken.batching[name],
                reviews=tuple(map(len, parts)),
                tokens=tuple(sum(setting.tokens[i] for i in part) for part in parts),
                seconds=tuple(seconds[name]),
            )
        )


def _single(
    setting: Setting,
    taken: Taken,
    workers: dict[str, Guarded],
    generation: int,
    share: list[int],
    warmups: dict[str, int],
    rng: random.Random,
) -> None:
    """Ask every backend the same reviews one by one, and check the answers against those of the accuracy pass."""
    drawn: list[int] = []
    while len(drawn) < setting.config.calls:
        drawn += rng.sample(share, len(share))
    drawn = drawn[: setting.config.calls]
    answers = rounds(workers, [(setting.reviews.texts[i],) for i in drawn], timed, rng)
    for name, calls in answers.items():
        taken.singles.append(
            Single(
                backend=name,
                generation=generation,
                warmup_calls=warmups[name],
                tokens=tuple(setting.tokens[i] for i in drawn),
                total_s=tuple(call.total_s for call in calls),
                tokenise_s=tuple(call.tokenise_s for call in calls if call.tokenise_s is not None),
                run_s=tuple(call.run_s for call in calls if call.run_s is not None),
                rss_bytes=tuple(call.rss_bytes for call in calls),
                largest_gap=_gap(name, taken, drawn, calls),
            )
        )


def _gap(name: str, taken: Taken, drawn: Sequence[int], calls: Sequence[Call]) -> float:
    """Return how far timed probabilities are from those of the accuracy pass.

    Raises:
        UserError: further than batching explains: what was timed is not what was scored.
    """
    bulk = softmax(np.stack([taken.logits[name][i] for i in drawn]))
    gap = float(np.abs(bulk - np.array([call.probabilities for call in calls])).max())
    if not gap <= SAME_ANSWER:
        raise UserError(
            f"`{name}` answers otherwise when it is timed than when it is scored: a probability differs by {gap:.3g}",
            "its answers depend on the batch; leave it out with `--backends`",
        )
    return gap


def _grid(setting: Setting, taken: Taken, workers: dict[str, Guarded], text: str, rng: random.Random) -> None:
    """Time the model alone over batches and lengths; the first call of a shape is not counted."""
    ours = {name: worker for name, worker in workers.items() if not name.endswith(AGAIN) and worker.call(can_be_split)}
    lengths = sorted({min(length, setting.train.max_length) for length in setting.config.grid_lengths})
    for batch in setting.config.grid_batches if setting.config.grid_calls else ():
        for length in lengths:
            tasks = [(text, batch, length)] * (1 + setting.config.grid_calls)
            for name, samples in rounds(ours, tasks, batch_time, rng).items():
                taken.grids.setdefault((name, batch, length), []).extend(samples[1:])


def _loaded(taken: Taken, name: str, worker: Guarded) -> None:
    loaded = worker.call(resident_bytes)
    before = taken.memories.get(name, Memory(name, 0, 0, None))
    taken.memories[name] = Memory(name, max(before.loaded_bytes, loaded), before.peak_bytes, before.gpu_bytes)


def _peak(taken: Taken, name: str, worker: Guarded) -> None:
    if before := taken.memories.get(name):
        peak, gpu = worker.call(peak_bytes), worker.call(peak_gpu_bytes)
        most = None if gpu is None else max(gpu, before.gpu_bytes or 0)
        taken.memories[name] = Memory(name, before.loaded_bytes, max(before.peak_bytes, peak), most)


def _record(setting: Setting, taken: Taken, specs: Sequence[BackendSpec], *, is_complete: bool) -> BenchRecord:
    """Put together what there is: scores are on the reviews that every backend has answered."""
    reference = _reference(specs).name
    answered = sorted(set.intersection(*(set(taken.logits.get(spec.name, ())) for spec in specs)))
    return BenchRecord(
        config=setting.config,
        is_complete=is_complete,
        export_sha256=file_sha256(setting.run.export_record),
        chosen=setting.export.chosen,
        accept_undecided=setting.export.config.accept_undecided,
        labels=tuple(setting.reviews.labels[i] for i in answered),
        label_names=setting.train.label_names,
        reference=reference,
        again=reference + AGAIN,
        environment=setting.environment,
        machine=taken.machine,
        backends=tuple(_info(spec, setting) for spec in specs),
        skipped=tuple(taken.skipped),
        accuracies=tuple(_scores(setting, taken, specs, reference, answered)),
        singles=tuple(taken.singles),
        bulks=tuple(taken.bulks),
        grids=tuple(Grid(*cell, tuple(samples)) for cell, samples in taken.grids.items()),
        cold_starts=tuple(taken.cold_starts),
        memories=tuple(taken.memories[spec.name] for spec in specs if spec.name in taken.memories),
        own_tokens=setting.own_tokens,
        duration_s=time.monotonic() - setting.started,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _scores(
    setting: Setting, taken: Taken, specs: Sequence[BackendSpec], reference: str, answered: Sequence[int]
) -> list[Accuracy]:
    if not answered:
        return []
    logits: dict[str, Any] = {spec.name: np.stack([taken.logits[spec.name][i] for i in answered]) for spec in specs}
    labels = [setting.reviews.labels[i] for i in answered]
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


def _info(spec: BackendSpec, setting: Setting) -> BackendInfo:
    """Describe a backend; the adapter needs its base on disk, too."""
    size = None
    if spec.artifact == ADAPTER:
        base = locate_base(setting.train.base.name, setting.train.base.revision).folder
        size = sum(path.stat().st_size for path in [*setting.run.adapter.iterdir(), *base.glob("*.safetensors")])
    elif not spec.prepares:
        size = next(a.size_bytes for a in setting.export.artifacts if a.name == spec.artifact)
    return BackendInfo(
        name=spec.name,
        artifact=spec.artifact,
        device=spec.device,
        precision=spec.precision,
        size_bytes=size,
        packages_bytes=packages_bytes(spec.packages),
        is_peer=spec.peer is not None,
    )
