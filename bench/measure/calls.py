"""What is asked of loaded engines, and in which order: interleaved rounds, so that a drift of the machine hits all."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from bench.results import BatchingTrial
from exporter.bundle.probabilities import FloatArray, softmax
from exporter.proof.worker import Form
from trainer.encoding import Encoder
from trainer.errors import UserError

SETTLE_S = 0.002
"""Pause before a call, in which the threads of the engine asked before it stop spinning.

Not longer: cores that go idle wake up slowly. With 20 ms, the same calls took a third longer and spread three times as
widely.
"""
STEADY = 0.05
"""Warm-up ends when the medians of two successive windows differ by no more than this share."""
WINDOW = 5
MOST_WARMUP = 40
BATCHING_ROUNDS = 3
TOKEN_BATCHES = {"one by one": 1, "2,048 tokens": 2048, "8,192 tokens": 8192}
"""Batchings tried for bulk scoring: texts of similar length, with so many tokens in a batch."""
PEER_BATCHES = {"one by one": 1, "batches of 32": 32}

R = TypeVar("R")
Clock = Callable[[], float]


class Asked(Protocol):
    """A process that holds an engine."""

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Run a function on it."""


@runtime_checkable
class Ours(Form, Protocol):
    """An engine whose tokeniser and model can be timed apart."""

    encoder: Encoder


class Peer(Protocol):
    """Another tool's way to serve the classifier."""

    def score(self, texts: Sequence[str], batch_size: int) -> FloatArray:
        """Return logits, or what softmax turns into its probabilities, [texts, classes]."""


@dataclass(frozen=True)
class Call:
    """One text, text to label."""

    total_s: float
    tokenise_s: float | None
    run_s: float | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """Some texts, scored in an engine's batches."""

    seconds: float
    logits: FloatArray


def timed(form: Ours | Peer, text: str, clock: Clock = time.perf_counter) -> Call:
    """Answer one text and tell how long it took; runs in the engine's process."""
    tokenised = ran = None
    ours = form if isinstance(form, Ours) else None  # asked before the clock starts: it takes microseconds
    start = clock()
    if ours:
        encoded = ours.encoder.encode([text])
        tokenised = clock()
        logits = ours.run(encoded)
        ran = clock()
    else:
        logits = form.score([text], 1)  # type: ignore[union-attr]
    probabilities = softmax(logits)[0]
    int(probabilities.argmax())
    end = clock()
    return Call(
        total_s=end - start,
        tokenise_s=None if tokenised is None else tokenised - start,
        run_s=None if tokenised is None or ran is None else ran - tokenised,
        probabilities=tuple(map(float, probabilities)),
    )


def scored(form: Ours | Peer, texts: Sequence[str], setting: int, clock: Clock = time.perf_counter) -> Part:
    """Score texts in batches as `setting` says; runs in the engine's process.

    Raises:
        UserError: an answer is no finite number.
    """
    start = clock()
    logits = form.logits(texts, batch_tokens=setting) if isinstance(form, Ours) else form.score(texts, setting)
    seconds = clock() - start
    if not np.isfinite(logits).all():
        raise UserError("it answers with something that is no finite number", "take an engine of higher precision")
    return Part(seconds, logits)


def batchings(form: Ours | Peer) -> dict[str, int]:
    """Return what `scored` may be asked of an engine, by name; runs in its process."""
    return TOKEN_BATCHES if isinstance(form, Ours) else PEER_BATCHES


def batch_time(form: Ours, text: str, batch: int, length: int, clock: Clock = time.perf_counter) -> float:
    """Return the seconds that the model alone takes for `batch` texts of `length` tokens; runs in its process."""
    (encoded,) = form.encoder.encode([text])
    extra = form.encoder.max_length - form.encoder.room
    texts = [form.encoder.resize(encoded, max(1, length - extra))] * batch
    start = clock()
    form.run(texts, length)
    return clock() - start


def can_be_split(form: object) -> bool:
    """Tell whether the model can be timed alone; runs in the engine's process."""
    return isinstance(form, Ours)


def soak(form: Ours | Peer, texts: Sequence[str]) -> tuple[int, ...]:
    """Answer texts one by one and return the resident memory after each; runs in the engine's process.

    Returns:
        Bytes; nothing where they cannot be told.
    """
    resident = []
    for text in texts:
        timed(form, text)
        resident.append(resident_bytes())
    return tuple(size for size in resident if size is not None)


def resident_bytes(_: object = None) -> int | None:
    """Return the memory that this process has resident now, None where that cannot be told."""
    return _status("VmRSS")


def peak_bytes(_: object = None) -> int | None:
    """Return the most that it ever had, None where that cannot be told."""
    return _status("VmHWM")


def gpu_bytes(_: object = None) -> int | None:
    """Return the memory of this process on the GPU, None where that cannot be told.

    Of PyTorch it is the most that was ever allocated; of others what they hold now by the driver's count, which those
    that never give memory back have held at most.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    return _driver_bytes(os.getpid())


def _driver_bytes(process: int) -> int | None:
    """Ask the driver; in a container it may know the process by another number, and then does not tell."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    for line in answer.splitlines():
        number, _, mebibytes = line.partition(",")
        if number.strip() == str(process) and mebibytes.strip().isdecimal():
            return int(mebibytes) * 2**20
    return None


def _status(field: str) -> int | None:
    """Read a size from the kernel's account of this process.

    `getrusage` would do on all systems, but counts what the parent process had before this one was started.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), None)


def start_order(names: Iterable[str], restart: int, seed: int) -> list[str]:
    """Return in which order to start the engines in a restart.

    Every second order is the one before it backwards: a process that is started earlier than another is slower for as
    long as it lives, by up to a tenth, and so each is as often before as behind any other.
    """
    # A number of each name's own: so the order of the others stays where one is dropped between two restarts.
    order = sorted(names, key=lambda name: random.Random(f"{seed} {restart // 2} {name}").random())
    return order[::-1] if restart % 2 else order


def deal(sizes: Sequence[int], hands: int, rng: random.Random) -> list[list[int]]:
    """Deal what has these sizes into hands that are alike in them, as cards that lie in order.

    Returns:
        The indices of each hand, in random order; hands differ in number by one at most.
    """
    cards = sorted(rng.sample(range(len(sizes)), len(sizes)), key=lambda i: sizes[i])
    dealt: list[list[int]] = [[] for _ in range(hands)]
    for start in range(0, len(cards), hands):
        for hand, card in zip(rng.sample(range(hands), hands), cards[start : start + hands], strict=False):
            dealt[hand].append(card)
    return [rng.sample(hand, len(hand)) for hand in dealt]


def spread_out(sizes: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """Draw so many indices, in random order, evenly spaced over what has these sizes when it lies in order.

    A plain random draw has the same sizes on average; this one has them each time, so that draws can be compared.
    """
    ranked = sorted(rng.sample(range(len(sizes)), len(sizes)), key=lambda i: sizes[i])
    offset = rng.random()
    return rng.sample([ranked[int((k + offset) * len(ranked) / count)] for k in range(count)], count)


def warm_up(workers: Mapping[str, Asked], text: str, rng: random.Random) -> int:
    """Ask all engines the same text in turns, as they will be measured, until the times of each are steady.

    Returns:
        How many calls of each that took, at most 40.
    """
    before: dict[str, float] = {}
    calls = 0
    while calls < MOST_WARMUP:
        answers = rounds(workers, [(text,)] * WINDOW, timed, rng)
        last = {name: median(call.total_s for call in taken) for name, taken in answers.items()}
        calls += WINDOW
        if all(abs(before.get(name, math.inf) - last[name]) <= STEADY * last[name] for name in last):
            break
        before = last
    return calls


def try_batchings(workers: Mapping[str, Asked], texts: Sequence[str], rng: random.Random) -> list[BatchingTrial]:
    """Score `texts` with every engine in each of its batchings, three rounds in turns."""
    settings = {(name, how): size for name, worker in workers.items() for how, size in worker.call(batchings).items()}
    seconds: dict[tuple[str, str], list[float]] = {setting: [] for setting in settings}
    for _ in range(BATCHING_ROUNDS):
        for name, how in rng.sample(list(settings), len(settings)):
            time.sleep(SETTLE_S)
            seconds[name, how].append(workers[name].call(scored, texts, settings[name, how]).seconds)
    return [BatchingTrial(name, how, len(texts), tuple(taken)) for (name, how), taken in seconds.items()]


def best_batchings(trials: Sequence[BatchingTrial]) -> dict[str, str]:
    """Return the batching in which each engine was fastest, by the median of its rounds."""
    best: dict[str, BatchingTrial] = {}
    for trial in trials:
        if trial.engine not in best or median(trial.seconds) < median(best[trial.engine].seconds):
            best[trial.engine] = trial
    return {name: trial.batching for name, trial in best.items()}


def rounds(
    workers: Mapping[str, Asked], tasks: Sequence[tuple[Any, ...]], function: Callable[..., R], rng: random.Random
) -> dict[str, list[R]]:
    """Ask all engines for every task, in a new random order each time.

    Args:
        workers: the engines by name.
        tasks: arguments of `function` after the form.
        function: what to run.
        rng: decides the orders.

    Returns:
        The answers by name; answer i is that to task i.
    """
    answers: dict[str, list[R]] = {name: [] for name in workers}
    for task in tasks:
        for name in rng.sample(list(workers), len(workers)):
            time.sleep(SETTLE_S)
            answers[name].append(workers[name].call(function, *task))
    return answers
