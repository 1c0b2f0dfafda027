"""What is asked of loaded backends, and in which order: interleaved rounds, so that a drift of the machine hits all."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from exporter.probabilities import FloatArray, softmax
from exporter.worker import Form
from trainer.encoding import Encoder
from trainer.errors import UserError

SETTLE_S = 0.02
"""Pause before a call, in which the threads of the backend asked before it stop spinning."""
STEADY = 0.05
"""Warm-up ends when the medians of two successive windows differ by no more than this share."""
WINDOW = 5
MOST_WARMUP = 40
BATCHING_ROUNDS = 3
TOKEN_BATCHES = {"one by one": 1, "2,048 tokens": 2048, "8,192 tokens": 8192}
"""Batchings tried for bulk scoring: reviews of similar length, with so many tokens in a batch."""
PEER_BATCHES = {"one by one": 1, "batches of 32": 32}

R = TypeVar("R")
Clock = Callable[[], float]


class Asked(Protocol):
    """A process that holds a backend."""

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Run a function on it."""


@runtime_checkable
class Ours(Form, Protocol):
    """A backend whose tokeniser and model can be timed apart."""

    encoder: Encoder


class Peer(Protocol):
    """Another tool's way to serve the classifier."""

    def score(self, texts: Sequence[str], batch_size: int) -> FloatArray:
        """Return logits, or what softmax turns into its probabilities, [texts, classes]."""


@dataclass(frozen=True)
class Call:
    """One review, text to label."""

    total_s: float
    tokenise_s: float | None
    run_s: float | None
    rss_bytes: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """Some reviews, scored in a backend's batches."""

    seconds: float
    logits: FloatArray


def timed(form: Ours | Peer, text: str, clock: Clock = time.perf_counter) -> Call:
    """Answer one review and tell how long it took; runs in the backend's process."""
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
        rss_bytes=resident_bytes(),
        probabilities=tuple(map(float, probabilities)),
    )


def scored(form: Ours | Peer, texts: Sequence[str], setting: int, clock: Clock = time.perf_counter) -> Part:
    """Score reviews in batches as `setting` says; runs in the backend's process.

    Raises:
        UserError: an answer is no finite number.
    """
    start = clock()
    logits = form.logits(texts, batch_tokens=setting) if isinstance(form, Ours) else form.score(texts, setting)
    seconds = clock() - start
    if not np.isfinite(logits).all():
        raise UserError("it answers with something that is no finite number", "take a backend of higher precision")
    return Part(seconds, logits)


def batchings(form: Ours | Peer) -> dict[str, int]:
    """Return what `scored` may be asked of a backend, by name; runs in its process."""
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
    """Tell whether the model can be timed alone; runs in the backend's process."""
    return isinstance(form, Ours)


def resident_bytes(_: object = None) -> int:
    """Return the memory that this process has resident now; 0 where that cannot be read."""
    return _status("VmRSS")


def peak_bytes(_: object = None) -> int:
    """Return the most that it ever had."""
    return _status("VmHWM")


def peak_gpu_bytes(_: object = None) -> int | None:
    """Return the most that PyTorch ever allocated on the GPU, None where there is no GPU or no PyTorch in use."""
    import sys

    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch and torch.cuda.is_available() else None


def _status(field: str) -> int:
    """Read a size from the kernel's account of this process.

    `getrusage` would do on all systems, but counts what the parent process had before this one was started.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)


def warm_up(worker: Asked, text: str) -> int:
    """Ask a backend the same review until its times are steady.

    Returns:
        How many calls that took, at most 40.
    """
    before, calls = math.inf, 0
    while calls < MOST_WARMUP:
        last = median(worker.call(timed, text).total_s for _ in range(WINDOW))
        calls += WINDOW
        if abs(before - last) <= STEADY * last:
            break
        before = last
    return calls


def best_batchings(workers: Mapping[str, Asked], texts: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Find, for every backend, the batching in which it scores `texts` fastest, by the median of three rounds."""
    chosen = {}
    for name, worker in workers.items():
        settings = worker.call(batchings)
        seconds: dict[str, list[float]] = {setting: [] for setting in settings}
        for _ in range(BATCHING_ROUNDS):
            for setting in rng.sample(list(settings), len(settings)):
                time.sleep(SETTLE_S)
                seconds[setting].append(worker.call(scored, texts, settings[setting]).seconds)
        chosen[name] = min(seconds, key=lambda setting: median(seconds[setting]))
    return chosen


def rounds(
    workers: Mapping[str, Asked], tasks: Sequence[tuple[Any, ...]], function: Callable[..., R], rng: random.Random
) -> dict[str, list[R]]:
    """Ask all backends for every task, in a new random order each time.

    Args:
        workers: the backends by name.
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
