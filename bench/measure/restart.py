"""One restart: every engine started anew in a process of its own, measured in turns with the others, and ended."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any, TypeVar

import numpy as np

from bench.config import LEAST_PAIRS, LEAST_RESTARTS
from bench.engines.table import reference_of
from bench.measure.calls import (
    MAX_WARMUP_S,
    PAUSE_S,
    Call,
    batch_time,
    batchings,
    best_batchings,
    first_stage_count,
    has_model,
    rounds,
    scored,
    soak,
    timed,
    try_batchings,
    warm_up,
)
from bench.measure.cores import pin
from bench.measure.draws import deal, in_spread_order, spread_out, start_order
from bench.measure.instruments import Instruments
from bench.measure.memory import gpu_bytes, peak_bytes, resident_bytes
from bench.measure.progress import Progress
from bench.measure.rations import GRID, Pilot, Ration, ration
from bench.measure.samples import Answers, Samples
from bench.measure.workload import Workload
from bench.results import BatchingTrial, Bulk, ColdStart, Grid, Memory, Single, Skipped, Soak
from exporter.checksums import IntegrityError
from exporter.engines.spec import Device, EngineSpec
from exporter.proof.worker import Worker
from trainer.errors import UserError
from trainer.tasks import Task
from trainer.text.texts import Text

R = TypeVar("R")

PARTS = 6
"""Into which the texts of a restart are cut for bulk scoring, if there are enough."""
MIN_PART: dict[Device, int] = {"cpu": 32, "cuda": 256}
"""Texts of a part, if there are enough: a card would do nothing most of the time with fewer."""
TRIALS_SHARE, SOAK_SHARE, COLD_SHARE = 0.1, 0.05, 0.15
"""Of a budget of time: after that, batchings are tried no further, and memory and cold starts not watched."""
MEASURED_SHARE, WARM_UP_SHARE = 0.75, 0.15
"""Of the time of a restart where there is a budget: for starting and measuring, and for the warm-up in it."""
TRIED: dict[Device, int] = {"cpu": 48, "cuda": 512}
"""Texts on which batchings are tried."""
FEWER = 3
"""By which they are divided where there is a budget of time: each engine tries all its batchings once in any case."""
PILOT = 5
"""Calls of each engine that tell how much it can be asked; they do not count."""
WARMING: dict[Device, int] = {"cpu": 2, "cuda": 256}
"""Texts scored before any that are timed; on a card, libraries prepare for every new shape."""
MEAN_GAP, MAX_GAP = 0.05, 0.25
"""By which the probabilities of timed answers may differ from the accuracy pass's, on average and at most: dynamic int8
depends on its batch, and exports saw it move a text by 0.13. A wrong answer that was sure moves by more."""
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

    def wait(self) -> None:
        """Wait until the engine is loaded."""
        self._worker.wait()

    def dismiss(self) -> None:
        """Tell the process to end."""
        self._worker.dismiss()

    def close(self) -> None:
        """End the process."""
        self._worker.close()


class Restart:
    """Measures all engines once.

    Args:
        workload: what to measure on.
        engines: what to measure; the reference is started twice.
        number: of the restart, from 0.
        earlier: what was measured before: by its trials, which the first restart makes, the batching of each engine is
            chosen, and by its rations how much it is asked.
        prepared: the folder of what an engine was prepared with, by its name.
        instruments: what to measure with.
        progress: shows what is being done.
        left_s: seconds that are left for this restart and all others.
    """

    def __init__(
        self,
        workload: Workload,
        engines: Sequence[EngineSpec],
        number: int,
        earlier: Samples,
        prepared: Mapping[str, Path],
        instruments: Instruments,
        progress: Progress,
        left_s: float = math.inf,
    ) -> None:
        self._workload, self._engines, self._number, self._earlier = workload, engines, number, earlier
        self._ends_at = instruments.clock() + left_s
        self._prepared, self._instruments, self._progress = prepared, instruments, progress
        self._rng = random.Random(f"{workload.config.seed} {number}")
        self._share = workload.shares[number % len(workload.shares)]
        self._share_tokens = [workload.tokens[i] for i in self._share]
        self._workers: dict[str, EngineWorker] = {}
        self._rations: dict[str, Ration] = {}

    def measure(self) -> Samples:
        """Start all processes, measure, end them, and return what was measured.

        Raises:
            EngineFailedError: one cannot be loaded, or failed.
            IntegrityError: a file was changed.
        """
        config, texts, clock = self._workload.config, self._workload.examples.texts, self._instruments.clock
        longest = texts[max(self._share, key=lambda i: self._workload.tokens[i])]
        with ExitStack() as stack:
            began = clock()
            loaded = self._start(stack)
            self._say("warming up")
            most_s = min(MAX_WARMUP_S, WARM_UP_SHARE * self._slot_s(2 * LEAST_PAIRS))
            warmups = warm_up(self._workers, longest, self._workload.task, self._rng, most_s, clock)
            warm = clock()
            overhead_s = warm - began
            trials = () if self._earlier.batching_trials else self._try_batchings()
            most_s = self._time_to_measure(overhead_s)
            rations = () if self._earlier.rations else self._settle_rations(trials, most_s)
            self._rations |= {ration.engine: ration for ration in (*self._earlier.rations, *rations)}
            once_s = clock() - warm
            watch = self._instruments.watch(self._workload.environment.threads)
            watch.look()
            self._say(f"scoring {len(self._share):,} texts in bulk")
            answers, bulks = self._score_in_bulk(best_batchings(self._earlier.batching_trials or trials))
            watch.look()
            self._say("one text at a time")
            singles = self._ask_one_by_one(warmups, answers)
            watch.look()
            grids = self._time_grid(longest, GRID * most_s)
            companies = (watch.company(self._number),)
            measured = clock()
            soaks = self._soak() if self._number == 0 and config.soak_calls else ()
            once_s += clock() - measured
            memories = self._read_memory(loaded)
            for worker in self._workers.values():
                worker.dismiss()  # all at a time: it takes some of them as long to end as to begin
        text = texts[self._rng.choice(self._share)]
        cold = self._start_cold(text) if self._number < config.cold_starts else Samples()
        return cold.plus(
            Samples(
                answers,
                singles,
                trials,
                bulks,
                grids,
                memories=memories,
                soaks=soaks,
                companies=companies,
                rations=rations,
                once_s=once_s,
            )
        )

    def _say(self, what: str) -> None:
        self._progress.step(f"restart {self._number + 1} of {self._workload.config.restarts}: {what}")

    def _start(self, stack: ExitStack) -> dict[str, int | None]:
        """Start a process for every engine, and a second one for the reference; some load at a time, a core for each.

        Returns:
            The resident memory of each after loading, in bytes.
        """
        reference = reference_of(self._engines)
        specs = {spec.name: spec for spec in self._engines} | {reference.name + SECOND: reference}
        order = start_order(specs, self._number, self._workload.config.seed)
        at_a_time = self._workload.environment.usable_cores
        for names in (order[i : i + at_a_time] for i in range(0, len(order), at_a_time)):
            self._say(f"loading {', '.join(names)}")
            for name in names:
                with _failures_of(name):
                    self._workers[name] = self._begin(stack, name, specs[name])
            for name in names:
                with _failures_of(name):
                    self._workers[name].wait()
        return {name: worker.call(resident_bytes) for name, worker in self._workers.items()}

    def _begin(self, stack: ExitStack, name: str, spec: EngineSpec) -> EngineWorker:
        """Start a process, without waiting until its engine is loaded."""
        threads = self._workload.environment.threads
        load = partial(spec.load, self._workload.run, threads, self._prepared[spec.name])
        worker = self._instruments.start(name, load, threads, partial(pin, threads), wait=False)
        return EngineWorker(name, stack.enter_context(closing(worker)))

    def _firsts(self) -> dict[str, EngineWorker]:
        """Return the workers but for the reference's second one."""
        return {name: worker for name, worker in self._workers.items() if not name.endswith(SECOND)}

    def _try_batchings(self) -> tuple[BatchingTrial, ...]:
        self._say("trying batchings")
        workload = self._workload
        fewer = 1 if workload.config.budget_minutes is None else FEWER
        drawn = {device: self._some(most // fewer) for device, most in TRIED.items()}
        texts = {spec.name: [workload.examples.texts[i] for i in drawn[spec.device]] for spec in self._engines}
        return try_batchings(
            self._firsts(), texts, self._rng, self._part_of_budget(TRIALS_SHARE), self._instruments.clock
        )

    def _some(self, most: int) -> list[int]:
        """Draw evaluation texts, spread over their lengths."""
        tokens = self._workload.tokens
        return spread_out(tokens, min(most, len(tokens)), self._rng)

    def _part_of_budget(self, share: float) -> float:
        """Return so many seconds of the budget of time, infinite without one."""
        minutes = self._workload.config.budget_minutes
        return math.inf if minutes is None else share * 60 * minutes

    def _time_to_measure(self, overhead_s: float) -> float:
        """Return the seconds for what counts in this restart: with so many, there is time for all that intervals take.

        Those are six restarts, which are three pairs; three, where more would spend most of their time on starting. It
        is at least half as long as what does not count, however short the time is.
        """
        in_pairs, alone = (MEASURED_SHARE * self._slot_s(wanted) for wanted in (2 * LEAST_PAIRS, LEAST_RESTARTS))
        return max((in_pairs if in_pairs > 2 * overhead_s else alone) - overhead_s, overhead_s / 2)

    def _slot_s(self, wanted: int) -> float:
        """Return the seconds of each of so many restarts, without those that are done; infinite without a budget."""
        left_s = self._ends_at - self._instruments.clock()
        return left_s / max(1, min(self._workload.config.restarts, wanted) - self._number)

    def _settle_rations(self, trials: Sequence[BatchingTrial], most_s: float) -> tuple[Ration, ...]:
        """Find out how much each engine can be asked in this restart and in all that follow."""
        if math.isinf(most_s):
            return ()
        workload = self._workload
        texts = [(workload.examples.texts[i], workload.task) for i in self._some(PILOT)]
        calls = rounds(self._workers, texts, timed, self._rng)
        fastest: dict[str, float] = {}
        for trial in trials:
            text_s = median(trial.seconds) / trial.texts
            fastest[trial.engine] = min(text_s, fastest.get(trial.engine, math.inf))
        reference = reference_of(self._engines).name
        pilots = {}
        for spec in self._engines:
            is_reference = spec.name == reference
            processes = 1 + is_reference
            matters = is_reference or (spec.can_ship and spec.device == workload.config.device)
            single_s = mean(call.total_s for call in calls[spec.name])
            weight = processes * (1.0 if matters else 0.5)
            pilots[spec.name] = Pilot(processes * single_s, processes * fastest[spec.name], weight)
        return ration(pilots, workload.config.calls, len(self._share), most_s)

    def _ration(self, name: str) -> Ration:
        """Return the ration of an engine's process; both of the reference have the same."""
        return self._rations.get(name.removesuffix(SECOND), Ration(name))

    def _score_in_bulk(self, chosen: Mapping[str, str]) -> tuple[tuple[Answers, ...], tuple[Bulk, ...]]:
        """Let every engine score the restart's texts, part by part: the accuracy pass, and timed."""
        workload = self._workload
        parts = self._parts()
        names = {name: chosen[name.removesuffix(SECOND)] for name in self._workers}
        known = {name: worker.call(batchings) for name, worker in self._workers.items()}
        if changed := [name for name in names if names[name] not in known[name]]:
            raise UserError(
                f"the plan of `{changed[0]}` was replaced while it was measured", "run `python -m bench` again"
            )
        how = {name: known[name][names[name]] for name in names}
        devices = {spec.name: spec.device for spec in self._engines}
        for name, worker in self._workers.items():  # some open the model once more for that, which is not counted
            some = parts[0][: WARMING[devices[name.removesuffix(SECOND)]]]
            worker.call(scored, [workload.examples.texts[i] for i in some], how[name])
        seconds: dict[str, list[float]] = {name: [] for name in self._workers}
        answers: dict[str, list[Answers]] = {name: [] for name in self._workers}
        for part in parts:
            for name in self._rng.sample(list(self._workers), len(self._workers)):
                own = part[: math.ceil(self._ration(name).share * len(part))]
                time.sleep(PAUSE_S)
                scores = self._workers[name].call(scored, [workload.examples.texts[i] for i in own], how[name])
                seconds[name].append(scores.seconds)
                answers[name].append(Answers(name, own, scores.logits))
        bulks = tuple(
            Bulk(
                engine=name,
                restart=self._number,
                batching=names[name],
                texts=tuple(len(a.texts) for a in own),
                tokens=tuple(sum(workload.tokens[i] for i in a.texts) for a in own),
                seconds=tuple(seconds[name]),
                first_stage=self._first_stage(name, own),
            )
            for name, own in answers.items()
        )
        return tuple(a for own in answers.values() for a in own), bulks

    def _first_stage(self, name: str, answers: Sequence[Answers]) -> tuple[int, ...] | None:
        """Ask a cascade how many texts of each part its first stage answered; None of an engine that is none."""
        if not any(spec.has_first_stage for spec in self._engines if spec.name == name.removesuffix(SECOND)):
            return None
        parts = ([self._workload.examples.texts[i] for i in own.texts] for own in answers)
        return tuple(self._workers[name].call(first_stage_count, part) for part in parts)

    def _parts(self) -> list[tuple[int, ...]]:
        """Cut the restart's texts into parts, alike in length, and each in an order of which any beginning is, too."""
        least = max(MIN_PART[spec.device] / self._ration(spec.name).share for spec in self._engines)
        count = max(1, min(PARTS, int(len(self._share) / least)))
        hands = deal(self._share_tokens, count, self._rng)
        orders = (in_spread_order([self._share_tokens[i] for i in hand], self._rng) for hand in hands)
        return [tuple(self._share[hand[i]] for i in order) for hand, order in zip(hands, orders, strict=True)]

    def _ask_one_by_one(self, warmups: int, answers: tuple[Answers, ...]) -> tuple[Single, ...]:
        """Ask every engine the same texts, and check the answers against those of the accuracy pass."""
        workload, scores = self._workload, Samples(answers)
        logits = {name: scores.logits(name) for name in self._workers}
        by_all = sorted(set.intersection(*map(set, logits.values())))
        drawn = [by_all[i] for i in spread_out([workload.tokens[i] for i in by_all], workload.config.calls, self._rng)]
        every = {name: self._ration(name).every for name in self._workers}
        texts = [(workload.examples.texts[i], workload.task) for i in drawn]
        asked = rounds(self._workers, texts, timed, self._rng, every)
        own = {name: drawn[:: every[name]] for name in self._workers}
        return tuple(
            Single(
                engine=name,
                restart=self._number,
                warmup_calls=warmups,
                tokens=tuple(workload.tokens[i] for i in own[name]),
                total_s=tuple(call.total_s for call in calls),
                tokenise_s=tuple(call.tokenise_s for call in calls if call.tokenise_s is not None),
                run_s=tuple(call.run_s for call in calls if call.run_s is not None),
                largest_gap=_gap(name, workload.task, np.stack([logits[name][i] for i in own[name]]), calls),
                every=every[name],
            )
            for name, calls in asked.items()
        )

    def _time_grid(self, text: Text, most_s: float) -> tuple[Grid, ...]:
        """Time the model alone over batches and lengths, the smallest first; the first call of a shape is not counted.

        No further shape begins after `most_s`.
        """
        config = self._workload.config
        workers = {name: worker for name, worker in self._firsts().items() if worker.call(has_model)}
        low, high = self._workload.min_tokens, self._workload.train.max_length
        lengths = sorted({min(max(length, low), high) for length in config.grid_lengths})
        cells = [(batch, length) for batch in config.grid_batches for length in lengths] if config.grid_calls else []
        found, began = [], self._instruments.clock()
        for batch, length in sorted(cells, key=lambda cell: cell[0] * cell[1]):
            if self._instruments.clock() - began > most_s:
                break
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
        most_s = self._part_of_budget(SOAK_SHARE) / len(self._engines)
        soaks = {name: worker.call(soak, texts, workload.task, most_s) for name, worker in self._firsts().items()}
        return tuple(Soak(name, tokens[: len(rss)] if rss else tokens, rss) for name, rss in soaks.items())

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
        """Time new processes up to their first answer, those of engines with the fewest so far first."""
        self._say("cold starts")
        config, threads, run_dir = self._workload.config, self._workload.environment.threads, self._workload.run.path
        so_far = Counter(start.engine for start in self._earlier.cold_starts)
        order = sorted(self._rng.sample(self._engines, len(self._engines)), key=lambda spec: so_far[spec.name])
        most_s, began = self._part_of_budget(COLD_SHARE / config.cold_starts), self._instruments.clock()
        starts, failed = [], []
        for spec in order:
            if self._instruments.clock() - began > most_s:
                break
            prepared = self._prepared[spec.name]
            if seconds := self._instruments.cold_start(
                spec.name, run_dir, threads, prepared, text, self._workload.task
            ):
                starts.append(ColdStart(spec.name, **seconds))
            else:
                failed.append(Skipped(f"{spec.name}, cold start", "the new process ended without an answer"))
        return Samples(cold_starts=tuple(starts), skipped=tuple(failed))


@contextmanager
def _failures_of(name: str) -> Iterator[None]:
    """Name the engine in what goes wrong while it is loaded, but not where a file is not what the exporter proved."""
    try:
        yield
    except IntegrityError:
        raise
    except UserError as error:
        raise EngineFailedError(name, error) from None


def _gap(name: str, task: Task, logits: Any, calls: Sequence[Call]) -> float:
    """Return how far timed probabilities are from those of the accuracy pass, at most.

    Raises:
        EngineFailedError: further than batching explains: what was timed is not what was scored.
    """
    gaps = np.abs(task.probabilities(logits) - np.array([call.probabilities for call in calls])).max(axis=1)
    mean, largest = float(gaps.mean()), float(gaps.max())
    if not (mean <= MEAN_GAP and largest <= MAX_GAP):
        how = f"a probability differs by {largest:.3g}, on average by {mean:.3g}"
        message = f"`{name}` answers differently when timed than when scored: {how}"
        raise EngineFailedError(name, UserError(message, "its answers depend on the batch"))
    return largest
