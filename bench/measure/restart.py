"""One restart: every engine started anew in a process of its own, measured in turns with the others, and ended."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.engines.table import reference_of
from bench.measure.calls import (
    PAUSE_S,
    Call,
    batch_time,
    batchings,
    best_batchings,
    has_model,
    rounds,
    scored,
    soak,
    timed,
    try_batchings,
    warm_up,
)
from bench.measure.cores import pin
from bench.measure.draws import deal, spread_out, start_order
from bench.measure.instruments import Instruments
from bench.measure.memory import gpu_bytes, peak_bytes, resident_bytes
from bench.measure.progress import Progress
from bench.measure.samples import Answers, Samples
from bench.measure.workload import Workload
from bench.results import BatchingTrial, Bulk, ColdStart, Grid, Memory, Single, Skipped, Soak
from exporter.checksums import IntegrityError
from exporter.engines.spec import EngineSpec
from exporter.proof.worker import Worker
from trainer.errors import UserError
from trainer.tasks import Task
from trainer.text.texts import Text

R = TypeVar("R")

PARTS = 6
"""Into which the texts of a restart are cut for bulk scoring, if there are enough."""
MIN_PART = 32
TRIALS_SHARE = 0.1
"""Of a budget of time, after which batchings are tried no further."""
TRIED = 48
"""Texts on which batchings are tried."""
WARMING = 2
"""Texts scored before any that are timed."""
MAX_GAP = 0.05
"""By which a timed answer's probability may differ from the accuracy pass's: dynamic int8 depends on its batch."""
SECOND = " (again)"
"""Ends the name of the reference's second process, which shows the noise."""


class EngineFailedError(UserError):
    """An engine cannot be loaded, or a loaded one does not do what is asked of it."""

    def __init__(self, name: str, reason: UserError) -> None:
        super().__init__(reason.message, reason.hint)
        self.name = name.removesuffix(SECOND)


class EngineWorker:
    """A worker whose failures bear its engine's name."""

    def __init__(self, name: str, worker: Worker) -> None:
        self._name, self._worker = name, worker

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Run a function on the engine; see `Worker.call`."""
        try:
            return self._worker.call(function, *arguments)
        except UserError as error:
            raise EngineFailedError(self._name, error) from None

    def close(self) -> None:
        """End the process."""
        self._worker.close()


class Restart:
    """Measures all engines once.

    Args:
        workload: what to measure on.
        engines: what to measure; the reference is started twice.
        number: of the restart, from 0.
        trials: by which the batching of each engine was chosen; none before the first restart, which makes them.
        prepared: the folder of what an engine was prepared with, by its name.
        instruments: what to measure with.
        progress: shows what is being done.
    """

    def __init__(
        self,
        workload: Workload,
        engines: Sequence[EngineSpec],
        number: int,
        trials: Sequence[BatchingTrial],
        prepared: Mapping[str, Path],
        instruments: Instruments,
        progress: Progress,
    ) -> None:
        self._workload, self._engines, self._number, self._trials = workload, engines, number, trials
        self._prepared, self._instruments, self._progress = prepared, instruments, progress
        self._rng = random.Random(f"{workload.config.seed} {number}")
        self._share = workload.shares[number % len(workload.shares)]
        self._share_tokens = [workload.tokens[i] for i in self._share]
        self._workers: dict[str, EngineWorker] = {}

    def measure(self) -> Samples:
        """Start all processes, measure, end them, and return what was measured.

        Raises:
            EngineFailedError: one cannot be loaded, or failed.
            IntegrityError: a file was changed.
        """
        config, texts = self._workload.config, self._workload.examples.texts
        longest = texts[max(self._share, key=lambda i: self._workload.tokens[i])]
        with ExitStack() as stack:
            loaded = self._start(stack)
            self._say("warming up")
            warmups = warm_up(self._workers, longest, self._workload.task, self._rng)
            trials = () if self._trials else self._try_batchings()
            watch = self._instruments.watch(self._workload.environment.threads)
            watch.look()
            self._say(f"scoring {len(self._share):,} texts in bulk")
            answers, bulks = self._score_in_bulk(best_batchings(self._trials or trials))
            watch.look()
            self._say("one text at a time")
            singles = self._ask_one_by_one(warmups, answers)
            watch.look()
            grids = self._time_grid(longest)
            companies = (watch.company(self._number),)
            soaks = self._soak() if self._number == 0 and config.soak_calls else ()
            memories = self._read_memory(loaded)
        text = texts[self._rng.choice(self._share)]
        cold = self._start_cold(text) if self._number < config.cold_starts else Samples()
        return cold.plus(
            Samples(answers, singles, trials, bulks, grids, memories=memories, soaks=soaks, companies=companies)
        )

    def _say(self, what: str) -> None:
        self._progress.step(f"restart {self._number + 1} of {self._workload.config.restarts}: {what}")

    def _start(self, stack: ExitStack) -> dict[str, int | None]:
        """Start a process for every engine, and a second one for the reference.

        Returns:
            The resident memory of each after loading, in bytes.
        """
        reference = reference_of(self._engines)
        specs = {spec.name: spec for spec in self._engines} | {reference.name + SECOND: reference}
        threads, loaded = self._workload.environment.threads, {}
        for name in start_order(specs, self._number, self._workload.config.seed):
            self._say(f"loading {name}")
            load = partial(specs[name].load, self._workload.run, threads, self._prepared[specs[name].name])
            try:
                worker = self._instruments.start(name, load, threads, partial(pin, threads))
            except IntegrityError:  # a changed file: nothing here is what the exporter proved
                raise
            except UserError as error:
                raise EngineFailedError(name, error) from None
            self._workers[name] = EngineWorker(name, stack.enter_context(closing(worker)))
            loaded[name] = self._workers[name].call(resident_bytes)
        return loaded

    def _firsts(self) -> dict[str, EngineWorker]:
        """Return the workers but for the reference's second one."""
        return {name: worker for name, worker in self._workers.items() if not name.endswith(SECOND)}

    def _try_batchings(self) -> tuple[BatchingTrial, ...]:
        self._say("trying batchings")
        some = spread_out(self._share_tokens, min(TRIED, len(self._share)), self._rng)
        texts = [self._workload.examples.texts[self._share[i]] for i in some]
        minutes = self._workload.config.budget_minutes
        most_s = math.inf if minutes is None else TRIALS_SHARE * 60 * minutes
        return try_batchings(self._firsts(), texts, self._rng, most_s)

    def _score_in_bulk(self, chosen: Mapping[str, str]) -> tuple[tuple[Answers, ...], tuple[Bulk, ...]]:
        """Let every engine score the restart's texts, part by part: the accuracy pass, and timed."""
        workload = self._workload
        count = max(1, min(PARTS, len(self._share) // MIN_PART))
        parts = [tuple(self._share[i] for i in hand) for hand in deal(self._share_tokens, count, self._rng)]
        names = {name: chosen[name.removesuffix(SECOND)] for name in self._workers}
        known = {name: worker.call(batchings) for name, worker in self._workers.items()}
        if changed := [name for name in names if names[name] not in known[name]]:
            raise UserError(
                f"the plan of `{changed[0]}` was replaced while it was measured", "run `python -m bench` again"
            )
        how = {name: known[name][names[name]] for name in names}
        for name, worker in self._workers.items():  # some open the model once more for that, which is not counted
            worker.call(scored, [workload.examples.texts[i] for i in parts[0][:WARMING]], how[name])
        seconds: dict[str, list[float]] = {name: [] for name in self._workers}
        answers = []
        for part in parts:
            texts = [workload.examples.texts[i] for i in part]
            for name in self._rng.sample(list(self._workers), len(self._workers)):
                time.sleep(PAUSE_S)
                scores = self._workers[name].call(scored, texts, how[name])
                seconds[name].append(scores.seconds)
                answers.append(Answers(name, part, scores.logits))
        tokens = tuple(sum(workload.tokens[i] for i in part) for part in parts)
        sizes = tuple(map(len, parts))
        bulks = (Bulk(name, self._number, names[name], sizes, tokens, tuple(s)) for name, s in seconds.items())
        return tuple(answers), tuple(bulks)

    def _ask_one_by_one(self, warmups: int, answers: tuple[Answers, ...]) -> tuple[Single, ...]:
        """Ask every engine the same texts, and check the answers against those of the accuracy pass."""
        workload = self._workload
        drawn = [self._share[i] for i in spread_out(self._share_tokens, workload.config.calls, self._rng)]
        asked = rounds(self._workers, [(workload.examples.texts[i], workload.task) for i in drawn], timed, self._rng)
        scores = Samples(answers)
        return tuple(
            Single(
                engine=name,
                restart=self._number,
                warmup_calls=warmups,
                tokens=tuple(workload.tokens[i] for i in drawn),
                total_s=tuple(call.total_s for call in calls),
                tokenise_s=tuple(call.tokenise_s for call in calls if call.tokenise_s is not None),
                run_s=tuple(call.run_s for call in calls if call.run_s is not None),
                largest_gap=_gap(name, workload.task, np.stack([scores.logits(name)[i] for i in drawn]), calls),
            )
            for name, calls in asked.items()
        )

    def _time_grid(self, text: Text) -> tuple[Grid, ...]:
        """Time the model alone over batches and lengths; the first call of a shape is not counted."""
        config = self._workload.config
        workers = {name: worker for name, worker in self._firsts().items() if worker.call(has_model)}
        low, high = self._workload.min_tokens, self._workload.train.max_length
        lengths = sorted({min(max(length, low), high) for length in config.grid_lengths})
        cells = [(batch, length) for batch in config.grid_batches for length in lengths] if config.grid_calls else []
        found = []
        for batch, length in cells:
            self._say(f"batches of {batch} × {length} tokens")
            tasks = [(text, batch, length)] * (1 + config.grid_calls)
            for name, samples in rounds(workers, tasks, batch_time, self._rng).items():
                found.append(Grid(name, self._number, batch, length, tuple(samples[1:])))
        return tuple(found)

    def _soak(self) -> tuple[Soak, ...]:
        """Ask each engine many texts of all lengths and watch its memory; nothing is timed."""
        self._say("watching memory")
        workload = self._workload
        drawn = spread_out(workload.tokens, workload.config.soak_calls, self._rng)
        texts, tokens = [workload.examples.texts[i] for i in drawn], tuple(workload.tokens[i] for i in drawn)
        return tuple(
            Soak(name, tokens, worker.call(soak, texts, workload.task)) for name, worker in self._firsts().items()
        )

    def _read_memory(self, loaded: Mapping[str, int | None]) -> tuple[Memory, ...]:
        on_gpu = {spec.name for spec in self._engines if spec.device == "cuda"}
        memories = [
            Memory(name, loaded[name], worker.call(peak_bytes), worker.call(gpu_bytes) if name in on_gpu else None)
            for name, worker in self._firsts().items()
        ]
        return tuple(
            replace(memory, gpu_bytes=self._freed(memory.engine))
            if self._number == 0 and memory.engine in on_gpu and memory.gpu_bytes is None
            else memory
            for memory in memories
        )

    def _freed(self, name: str) -> int | None:
        """End an engine's process, with which nothing more is done, and return what that frees on the card."""
        before = self._instruments.used_on_gpu()
        self._workers[name].close()
        after = self._instruments.used_on_gpu()
        return None if before is None or after is None else max(0, before - after)

    def _start_cold(self, text: Text) -> Samples:
        """Time new processes up to their first answer."""
        self._say("cold starts")
        threads, run_dir = self._workload.environment.threads, self._workload.run.path
        starts, failed = [], []
        for spec in self._rng.sample(list(self._engines), len(self._engines)):
            prepared = self._prepared[spec.name]
            if seconds := self._instruments.cold_start(
                spec.name, run_dir, threads, prepared, text, self._workload.task
            ):
                starts.append(ColdStart(spec.name, **seconds))
            else:
                failed.append(Skipped(f"{spec.name}, cold start", "the new process ended without an answer"))
        return Samples(cold_starts=tuple(starts), skipped=tuple(failed))


def _gap(name: str, task: Task, logits: Any, calls: Sequence[Call]) -> float:
    """Return how far timed probabilities are from those of the accuracy pass.

    Raises:
        EngineFailedError: further than batching explains: what was timed is not what was scored.
    """
    gap = float(np.abs(task.probabilities(logits) - np.array([call.probabilities for call in calls])).max())
    if not gap <= MAX_GAP:
        message = f"`{name}` answers differently when timed than when scored: a probability differs by {gap:.3g}"
        raise EngineFailedError(name, UserError(message, "its answers depend on the batch"))
    return gap
