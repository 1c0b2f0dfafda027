"""One restart: every engine started anew in a process of its own, measured in turns with the others, and ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, TypeVar

import numpy as np

from bench.engines.table import AGAIN, EngineSpec, load_pinned
from bench.measure.calls import (
    SETTLE_S,
    Call,
    batch_time,
    batchings,
    best_batchings,
    can_be_split,
    deal,
    gpu_bytes,
    peak_bytes,
    resident_bytes,
    rounds,
    scored,
    soak,
    spread_out,
    start_order,
    timed,
    try_batchings,
    warm_up,
)
from bench.measure.cold import cold_start
from bench.measure.progress import Progress
from bench.measure.samples import Samples
from bench.measure.workload import Setting, reference_of
from bench.results import Bulk, ColdStart, Grid, Memory, Single, Skipped, Soak
from exporter.bundle.probabilities import softmax
from exporter.checksums import IntegrityError
from exporter.proof.worker import Worker
from trainer.errors import UserError

R = TypeVar("R")

PARTS = 6
"""Into which the texts of a restart are cut for bulk scoring, if there are enough."""
LEAST_PART = 32
TRIED = 48
"""Texts on which batchings are tried."""
COLD_STARTS = 5
"""Restarts after which new processes are timed: they are restarts already."""
SAME_ANSWER = 0.05
"""By which a timed answer's probability may differ from the accuracy pass's: dynamic int8 depends on its batch."""


class EngineFailedError(UserError):
    """An engine cannot be loaded, or a loaded one does not do what is asked of it."""

    def __init__(self, name: str, reason: UserError) -> None:
        super().__init__(reason.message, reason.hint)
        self.name = name.removesuffix(AGAIN)


class Guarded:
    """A worker whose failures bear the engine's name."""

    def __init__(self, name: str, worker: Worker) -> None:
        self._name, self._worker = name, worker

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Run a function on the engine; see `Worker.call`."""
        try:
            return self._worker.call(function, *arguments)
        except UserError as error:
            raise EngineFailedError(self._name, error) from None


class Restart:
    """Measures all engines once, and adds what it finds to `taken`.

    Args:
        setting: what to measure on.
        taken: the samples so far.
        specs: what to measure; the reference is started twice.
        number: of the restart, from 0.
        progress: told what is going on.
    """

    def __init__(
        self, setting: Setting, taken: Samples, specs: Sequence[EngineSpec], number: int, progress: Progress
    ) -> None:
        self._setting, self._taken, self._specs, self._number = setting, taken, specs, number
        self._progress = progress
        self._rng = random.Random(f"{setting.config.seed} {number}")
        self._share = setting.shares[number % len(setting.shares)]
        self._share_tokens = [setting.tokens[i] for i in self._share]
        self._workers: dict[str, Guarded] = {}

    def measure(self) -> None:
        """Start all processes, measure, and end them.

        Raises:
            EngineFailedError: one cannot be loaded, or failed.
            IntegrityError: a file was changed.
        """
        config, texts = self._setting.config, self._setting.examples.texts
        longest = texts[max(self._share, key=lambda i: self._setting.tokens[i])]
        with ExitStack() as stack:
            self._start(stack)
            self._say("warming up")
            warmups = warm_up(self._workers, longest, self._rng)
            if self._number == 0:
                self._say("trying batchings")
                self._try_batchings()
            self._say(f"scoring {len(self._share):,} texts in bulk")
            self._score_in_bulk()
            self._say("one text at a time")
            self._ask_one_by_one(warmups)
            self._time_grid(longest)
            if self._number == config.restarts - 1 and config.soak_calls:
                self._say("watching memory")
                self._soak()
            self._read_memory()
        if self._number < COLD_STARTS:
            self._say("cold starts")
            self._start_cold(texts[self._rng.choice(self._share)])

    def _say(self, what: str) -> None:
        self._progress.step(f"restart {self._number + 1} of {self._setting.config.restarts}: {what}")

    def _start(self, stack: ExitStack) -> None:
        """Start a process for every engine, and a second one for the reference."""
        reference = reference_of(self._specs)
        wanted = {spec.name: spec for spec in self._specs} | {reference.name + AGAIN: reference}
        threads = self._setting.environment.threads
        for name in start_order(wanted, self._number, self._setting.config.seed):
            self._say(f"loading {name}")
            load = partial(load_pinned, wanted[name], self._setting.run, threads)
            try:
                worker = stack.enter_context(closing(Worker(name, load, threads)))
            except IntegrityError:  # a changed file: nothing here is what the exporter proved
                raise
            except UserError as error:
                raise EngineFailedError(name, error) from None
            self._workers[name] = Guarded(name, worker)
            loaded = self._workers[name].call(resident_bytes)
            before = self._taken.memories.get(name, Memory(name, None, None, None))
            self._taken.memories[name] = Memory(
                name, _most(before.loaded_bytes, loaded), before.peak_bytes, before.gpu_bytes
            )

    def _try_batchings(self) -> None:
        """Choose how each engine scores in bulk; the reference's second process does as its first."""
        some = spread_out(self._share_tokens, min(TRIED, len(self._share)), self._rng)
        first = {name: worker for name, worker in self._workers.items() if not name.endswith(AGAIN)}
        trials = try_batchings(first, [self._setting.examples.texts[self._share[i]] for i in some], self._rng)
        self._taken.batching_trials = trials
        self._taken.batching = best_batchings(trials)

    def _score_in_bulk(self) -> None:
        """Let every engine score the restart's texts, part by part: the accuracy pass, and timed."""
        taken, setting = self._taken, self._setting
        hands = deal(self._share_tokens, max(1, min(PARTS, len(self._share) // LEAST_PART)), self._rng)
        parts = [[self._share[i] for i in hand] for hand in hands]
        batching = {name: taken.batching[name.removesuffix(AGAIN)] for name in self._workers}
        sizes = {name: worker.call(batchings)[batching[name]] for name, worker in self._workers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in self._workers}
        for part in parts:
            for name in self._rng.sample(list(self._workers), len(self._workers)):
                time.sleep(SETTLE_S)
                texts = [setting.examples.texts[i] for i in part]
                answer = self._workers[name].call(scored, texts, sizes[name])
                seconds[name].append(answer.seconds)
                taken.logits.setdefault(name, {}).update(zip(part, answer.logits, strict=True))
        examples = tuple(map(len, parts))
        tokens = tuple(sum(setting.tokens[i] for i in part) for part in parts)
        taken.bulks += [
            Bulk(name, self._number, batching[name], examples, tokens, tuple(of)) for name, of in seconds.items()
        ]

    def _ask_one_by_one(self, warmups: int) -> None:
        """Ask every engine the same texts, and check the answers against those of the accuracy pass."""
        setting = self._setting
        drawn = [self._share[i] for i in spread_out(self._share_tokens, setting.config.calls, self._rng)]
        answers = rounds(self._workers, [(setting.examples.texts[i],) for i in drawn], timed, self._rng)
        for name, calls in answers.items():
            self._taken.singles.append(
                Single(
                    engine=name,
                    restart=self._number,
                    warmup_calls=warmups,
                    tokens=tuple(setting.tokens[i] for i in drawn),
                    total_s=tuple(call.total_s for call in calls),
                    tokenise_s=tuple(call.tokenise_s for call in calls if call.tokenise_s is not None),
                    run_s=tuple(call.run_s for call in calls if call.run_s is not None),
                    largest_gap=self._gap(name, drawn, calls),
                )
            )

    def _gap(self, name: str, drawn: Sequence[int], calls: Sequence[Call]) -> float:
        """Return how far timed probabilities are from those of the accuracy pass.

        Raises:
            EngineFailedError: further than batching explains: what was timed is not what was scored.
        """
        bulk = softmax(np.stack([self._taken.logits[name][i] for i in drawn]))
        gap = float(np.abs(bulk - np.array([call.probabilities for call in calls])).max())
        if not gap <= SAME_ANSWER:
            told = f"answers otherwise when it is timed than when it is scored: a probability differs by {gap:.3g}"
            raise EngineFailedError(name, UserError(f"`{name}` {told}", "its answers depend on the batch"))
        return gap

    def _time_grid(self, text: str) -> None:
        """Time the model alone over batches and lengths; the first call of a shape is not counted."""
        config = self._setting.config
        ours = {n: worker for n, worker in self._workers.items() if not n.endswith(AGAIN) and worker.call(can_be_split)}
        ends = self._setting.least_tokens, self._setting.train.max_length
        lengths = sorted({min(max(length, ends[0]), ends[1]) for length in config.grid_lengths})
        cells = [(batch, length) for batch in config.grid_batches for length in lengths] if config.grid_calls else []
        for batch, length in cells:
            self._say(f"batches of {batch} × {length} tokens")
            tasks = [(text, batch, length)] * (1 + config.grid_calls)
            for name, samples in rounds(ours, tasks, batch_time, self._rng).items():
                self._taken.grids.append(Grid(name, self._number, batch, length, tuple(samples[1:])))

    def _soak(self) -> None:
        """Ask each engine many texts of all lengths and watch its memory; nobody is timed."""
        setting = self._setting
        drawn = spread_out(setting.tokens, setting.config.soak_calls, self._rng)
        texts, tokens = [setting.examples.texts[i] for i in drawn], tuple(setting.tokens[i] for i in drawn)
        for name, worker in self._workers.items():
            if not name.endswith(AGAIN):
                self._taken.soaks.append(Soak(name, tokens, worker.call(soak, texts)))

    def _read_memory(self) -> None:
        on_gpu = {spec.name for spec in self._specs if spec.device == "cuda"}
        for name, worker in self._workers.items():
            before = self._taken.memories[name]
            gpu = worker.call(gpu_bytes) if name in on_gpu else None
            peak = _most(before.peak_bytes, worker.call(peak_bytes))
            self._taken.memories[name] = Memory(name, before.loaded_bytes, peak, _most(before.gpu_bytes, gpu))

    def _start_cold(self, text: str) -> None:
        """Time new processes, but of what is made anew when it is loaded."""
        kept = [spec.name for spec in self._specs if not spec.prepares]
        for name in self._rng.sample(kept, len(kept)):
            seconds = cold_start(name, self._setting.run.path, self._setting.environment.threads, text)
            failed = Skipped(f"{name}, cold start", "the new process ended without an answer")
            if seconds:
                self._taken.cold_starts.append(ColdStart(name, **seconds))
            elif failed not in self._taken.skipped:
                self._taken.skipped.append(failed)


def _most(*sizes: int | None) -> int | None:
    return max((size for size in sizes if size is not None), default=None)
