"""What is asked of loaded engines: interleaved rounds, so that a drift of the machine hits all of them alike."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol, TypeVar

import numpy as np

from bench.measure.memory import resident_bytes
from bench.results import BatchingTrial
from exporter.cascade.engine import CascadeEngine
from exporter.engines.engine import ONE_BY_ONE, Batching, Engine
from trainer.errors import UserError
from trainer.tasks import FloatArray, Task
from trainer.text.texts import Text

PAUSE_S = 0.002
"""Before a call, so that the threads of the engine that was asked before stop spinning.

Not longer: cores that go idle wake up slowly. With 20 ms, the same calls took a third longer and spread three times as
widely.
"""
STEADY = 0.05
"""Warm-up ends when the medians of two successive windows differ by no more than this share."""
WINDOW = 5
MAX_WARMUP = 40
MAX_WARMUP_S = 20.0
"""After which no further window begins: beside others' work times are never steady, and the longest text is slow."""
BATCHING_ROUNDS = 3
HOPELESS = 1.5
"""How many times as long as the best of its engine a batching took that is not tried again."""

R = TypeVar("R")
Clock = Callable[[], float]


class Asked(Protocol):
    """A process that holds an engine, as `Worker` does."""

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return what a function returns for the engine and `arguments`."""


@dataclass(frozen=True)
class Call:
    """One text, from text to label."""

    total_s: float
    tokenise_s: float | None
    run_s: float | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Scored:
    """Some texts, scored in an engine's batches."""

    seconds: float
    logits: FloatArray


def timed(engine: Engine, text: Text, task: Task, clock: Clock = time.perf_counter) -> Call:
    """Answer one text of a task and return how long it took; runs in the engine's process."""
    tokenised = ran = None
    model = engine.model
    start = clock()
    if model:
        encoded = model.encoder.encode([text])
        tokenised = clock()
        logits = model.run(encoded)
        ran = clock()
    else:
        logits = engine.logits([text], ONE_BY_ONE)
    probabilities = task.probabilities(logits)[0]
    task.label_sets(task.answers(logits))
    end = clock()
    return Call(
        total_s=end - start,
        tokenise_s=None if tokenised is None else tokenised - start,
        run_s=None if tokenised is None or ran is None else ran - tokenised,
        probabilities=tuple(map(float, probabilities)),
    )


def scored(engine: Engine, texts: Sequence[Text], batching: Batching, clock: Clock = time.perf_counter) -> Scored:
    """Score texts in batches; runs in the engine's process.

    Raises:
        UserError: an answer is NaN or infinite.
    """
    start = clock()
    logits = engine.logits(texts, batching)
    seconds = clock() - start
    if not np.isfinite(logits).all():
        raise UserError("it returned NaN or infinity", "take an engine of higher precision")
    return Scored(seconds, logits)


def batchings(engine: Engine) -> dict[str, Batching]:
    """Return the batchings worth trying for an engine, by name; runs in its process."""
    return {batching.name: batching for batching in engine.batchings}


def batch_time(engine: Engine, text: Text, batch: int, length: int, clock: Clock = time.perf_counter) -> float:
    """Return the seconds that the model alone takes for `batch` texts of `length` tokens; runs in its process.

    Raises:
        UserError: it cannot be run alone.
    """
    if not (model := engine.model):
        raise UserError("its model cannot be run alone", "leave it out of the grid")
    (encoded,) = model.encoder.encode([text])
    special = model.encoder.max_length - model.encoder.room
    texts = [model.encoder.resize(encoded, max(1, length - special))] * batch
    start = clock()
    model.run(texts, length)
    return clock() - start


def has_model(engine: Engine) -> bool:
    """Tell whether the model can be run alone; runs in the engine's process."""
    return engine.model is not None


def first_stage_count(cascade: CascadeEngine, texts: Sequence[Text]) -> int:
    """Return how many texts the first stage of a cascade answers; runs in the engine's process."""
    return cascade.stages(texts).count("lexical")


def soak(
    engine: Engine,
    texts: Sequence[Text],
    task: Task,
    most_s: float = math.inf,
    clock: Clock = time.perf_counter,
) -> tuple[int, ...]:
    """Answer texts one by one and return the resident memory after each; runs in the engine's process.

    No further call begins after `most_s`.

    Returns:
        Bytes; nothing where they are not known.
    """
    resident, began = [], clock()
    for text in texts:
        if clock() - began > most_s:
            break
        timed(engine, text, task)
        resident.append(resident_bytes())
    return tuple(size for size in resident if size is not None)


def warm_up(
    workers: Mapping[str, Asked],
    text: Text,
    task: Task,
    rng: random.Random,
    most_s: float = MAX_WARMUP_S,
    clock: Clock = time.perf_counter,
) -> int:
    """Ask all engines the same text in turns, as they will be measured, until the times of each are steady.

    Returns:
        How many calls of each that took, at most 40; none begin after `most_s`, but for the first five.
    """
    before: dict[str, float] = {}
    calls, began = 0, clock()
    while calls < MAX_WARMUP and (calls < WINDOW or clock() - began < most_s):
        answers = rounds(workers, [(text, task)] * WINDOW, timed, rng)
        last = {name: median(call.total_s for call in window) for name, window in answers.items()}
        calls += WINDOW
        if all(abs(before.get(name, math.inf) - last[name]) <= STEADY * last[name] for name in last):
            break
        before = last
    return calls


def try_batchings(
    workers: Mapping[str, Asked],
    texts: Mapping[str, Sequence[Text]],
    rng: random.Random,
    most_s: float = math.inf,
    clock: Clock = time.perf_counter,
) -> tuple[BatchingTrial, ...]:
    """Score its `texts` with every engine in each of its batchings, three rounds in turns, one where it is hopeless.

    No further round begins after `most_s`.
    """
    began = clock()
    trials = {(name, how): b for name, worker in workers.items() for how, b in worker.call(batchings).items()}
    seconds: dict[tuple[str, str], list[float]] = {trial: [] for trial in trials}
    for number in range(BATCHING_ROUNDS):
        if number and clock() - began > most_s:
            break
        best = {name: min((min(s) for (own, _), s in seconds.items() if own == name and s), default=math.inf)
                for name in workers}  # fmt: skip
        hopeful = [trial for trial, s in seconds.items() if not s or min(s) <= HOPELESS * best[trial[0]]]
        for name, how in rng.sample(hopeful, len(hopeful)):
            time.sleep(PAUSE_S)
            seconds[name, how].append(workers[name].call(scored, texts[name], trials[name, how]).seconds)
    return tuple(BatchingTrial(name, how, len(texts[name]), tuple(s)) for (name, how), s in seconds.items())


def best_batchings(trials: Sequence[BatchingTrial]) -> dict[str, str]:
    """Return the name of the batching in which each engine was fastest, by the median of its rounds."""
    fastest = sorted(trials, key=lambda trial: -median(trial.seconds))
    return {trial.engine: trial.batching for trial in fastest}


def rounds(
    workers: Mapping[str, Asked],
    tasks: Sequence[tuple[Any, ...]],
    function: Callable[..., R],
    rng: random.Random,
    every: Mapping[str, int] | None = None,
) -> dict[str, list[R]]:
    """Ask all engines for every task, in a new random order each time.

    Args:
        workers: the engines by name.
        tasks: arguments of `function` after the engine.
        function: what to run.
        rng: decides the orders.
        every: which engines are asked in every so manieth round only; all are asked in all where None.

    Returns:
        The answers by name; answer i is that to task i, or to the task of number i times `every`.
    """
    answers: dict[str, list[R]] = {name: [] for name in workers}
    for number, task in enumerate(tasks):
        asked = [name for name in workers if number % (every or {}).get(name, 1) == 0]
        for name in rng.sample(asked, len(asked)):
            time.sleep(PAUSE_S)
            answers[name].append(workers[name].call(function, *task))
    return answers
