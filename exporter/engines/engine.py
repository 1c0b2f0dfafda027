"""The contract of whatever answers texts: an `Engine`, and how many texts it is given at a time.

Where a model can be split, each of several streams makes its calls on threads of its own. One call on all cores waits
at every operator for the slowest of them. Calls on a core each never wait, least of all where the machine is shared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from exporter.bundle.artifact import Artifact
from exporter.engines.shapes import FewShapes
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder
from trainer.text.texts import Text


@dataclass(frozen=True)
class Batching:
    """How many texts are scored: how many go into one call of the model at most, and how many calls run at a time.

    Without a limit all texts go into one call.
    """

    texts: int | None = None
    tokens: int | None = None
    """Padding included. A longer text is a batch of its own."""
    streams: int = 1
    """Calls at a time, among which the threads are divided."""

    @property
    def name(self) -> str:
        """What tables and records call it."""
        limits = [f"{count:,} {unit}" for count, unit in ((self.texts, "texts"), (self.tokens, "tokens")) if count]
        calls = f"batches of {' and '.join(limits)}" if limits else "all at once"
        if self.texts == 1:
            calls = "one by one"
        return f"{calls}, {self.streams} at a time" if self.streams > 1 else calls


ONE_BY_ONE = Batching(texts=1)
ALL_AT_ONCE = Batching()
MOST_TEXTS = 32
"""In one call, where nobody asks for more: so many does the exporter try, to see what batching does to answers."""
CAREFUL = Batching(texts=MOST_TEXTS, tokens=256)
"""What is taken where nothing was measured: short texts share a call, and longer ones are alone in theirs."""
BLOCK_TEXTS = 256
"""Texts that are sorted by length together. While the model runs one block, the next one is tokenised."""
GPU_BLOCK_TEXTS = 1024
"""The same on a GPU: they fill batches of all widths."""
FEW = 4
"""Texts a stream below which one call after the other, on all threads, is as fast: at the end some streams idle."""
OPENING_PAYS = 128
"""Texts in lists after which a model is opened again for streams: opening it takes as long as some tens of texts."""


def usual_batching(threads: int) -> Batching:
    """Return how many texts are scored on so many threads where nothing was measured."""
    return replace(CAREFUL, streams=threads)


class Model(Protocol):
    """A loaded model that takes encoded texts."""

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer and truncation rule."""

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of one batch, [len(batch), classes], padded to the longest text or to `length` tokens."""


class Engine(Protocol):
    """A loaded classifier. It returns when the numbers are on the host, so that no timer has to know the device."""

    @property
    def model(self) -> Model | None:
        """What runs apart from the tokenizer; None where nobody can look inside."""

    @property
    def batchings(self) -> Sequence[Batching]:
        """The ways worth trying to score many texts."""

    def logits(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> FloatArray:
        """Return logits, or what softmax turns into the engine's probabilities, [len(texts), classes]."""


M = TypeVar("M", bound=Model, covariant=True)
R = TypeVar("R")
T = TypeVar("T")


class ModelEngine(Generic[M]):
    """An engine made of a model: it encodes, batches texts of similar length, and runs.

    Args:
        model: the model; its calls use all threads.
        bulk: how it scores many texts.
        split: opens the model so that so many calls can run at a time, and returns what each stream calls; None where
            it cannot be split.
        shapes: the sizes to which the model rounds a batch up, where it does.
        block: how many texts are sorted by length together.
    """

    batchings: Sequence[Batching] = (ONE_BY_ONE, Batching(tokens=2048), Batching(tokens=8192))

    def __init__(
        self,
        model: M,
        bulk: Batching | None = None,
        split: Callable[[int], Sequence[Model]] | None = None,
        *,
        shapes: FewShapes | None = None,
        block: int = BLOCK_TEXTS,
    ) -> None:
        self.model = model
        self.bulk = bulk or CAREFUL
        if bulk:
            self.batchings = (bulk,)
        self._split, self._shapes, self.block = split, shapes, block
        self._streams: dict[int, Sequence[Model]] = {}
        self._opening = threading.Lock()
        self._listed = 0

    def logits(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> FloatArray:
        """Return the logits of texts, one or more, [len(texts), classes]."""
        return self.answer(texts, batching)[1]

    def answer(self, texts: Sequence[Text], batching: Batching) -> tuple[list[Encoded], FloatArray]:
        """Return texts, one or more, as the model reads them, and their logits, [len(texts), classes]."""
        done: list[Encoded] = []
        rows = []
        for block in ahead(self.model.encoder.encode, self.blocks(texts, batching)):
            rows.append(self.run_all(block, batching))
            done += block
        return done, np.concatenate(rows)

    def blocks(self, texts: Sequence[Text], batching: Batching) -> list[Sequence[Text]]:
        """Return texts, one or more, in the parts that are encoded together."""
        size = len(texts) if batching == ALL_AT_ONCE else self.block
        return [texts[i : i + size] for i in range(0, len(texts), size)]

    def run_all(self, encoded: Sequence[Encoded], batching: Batching) -> FloatArray:
        """Return the logits of encoded texts, one or more, [len(encoded), classes]."""
        lengths = [len(e) for e in encoded]
        if self._shapes and batching != ALL_AT_ONCE:
            batches = self._shapes.batches(lengths, batching.texts, batching.tokens)
        else:
            batches = batches_of(lengths, batching)
        found = _run(self._models(batching.streams), [[encoded[i] for i in batch] for batch in batches])
        rows = np.concatenate(found)
        logits = np.empty_like(rows)
        logits[[i for batch in batches for i in batch]] = rows
        return logits

    def for_list(self, count: int) -> Batching:
        """Return how to score a list of so many texts: in streams once that pays, which earlier lists decide, too."""
        self._listed += count
        if self.bulk.streams == 1:
            return self.bulk
        are_open = self.bulk.streams in self._streams or self._listed >= OPENING_PAYS
        return self.bulk if are_open and count >= FEW * self.bulk.streams else CAREFUL

    def _models(self, streams: int) -> Sequence[Model]:
        """Return what each stream calls: the model itself where it cannot be split."""
        if self._split is None or streams == 1:
            return [self.model]
        with self._opening:
            if streams not in self._streams:
                self._streams[streams] = self._split(streams)
            return self._streams[streams]


def _run(models: Sequence[Model], batches: Sequence[Sequence[Encoded]]) -> list[FloatArray]:
    """Return the logits of batches that are in ascending order of their lengths; each model takes the next one left."""
    if len(models) == 1:
        return [models[0].run(batch) for batch in batches]
    left = list(range(len(batches)))  # taken from its end, the longest first: so the streams finish together
    found: dict[int, FloatArray] = {}

    def work(model: Model) -> None:
        while left:
            try:
                number = left.pop()
            except IndexError:  # another stream took the last one
                return
            try:
                found[number] = model.run(batches[number])
            except BaseException:  # or Ctrl-C: the others stop after the call that they are in
                left.clear()
                raise

    others = [_Later(partial(work, model)) for model in models[1:]]
    try:
        work(models[0])
    finally:
        for other in others:
            other.wait()
    for other in others:
        other.result()
    return [found[number] for number in range(len(batches))]


def ahead(function: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
    """Yield what a function returns for each part, the next of which is computed meanwhile."""
    if len(parts) == 1:
        yield function(parts[0])
        return
    coming = _Later(partial(function, parts[0]))
    for following in parts[1:]:
        done, coming = coming.result(), _Later(partial(function, following))
        yield done
    yield coming.result()


class _Later(Generic[R]):
    """What a function returns, computed on a thread of its own meanwhile.

    Pools of threads refuse work once the main thread has ended, while a server's other threads may still answer. Where
    no thread can be started any more, it is computed when it is asked for.
    """

    def __init__(self, function: Callable[[], R]) -> None:
        self._function, self._found, self._error = function, list[R](), list[BaseException]()
        self._thread: threading.Thread | None = threading.Thread(target=self._work, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is on its way out
            self._thread = None

    def _work(self) -> None:
        try:
            self._found.append(self._function())
        except BaseException as error:  # raised where the result is asked for
            self._error.append(error)

    def wait(self) -> None:
        """Wait until it is computed."""
        if self._thread:
            self._thread.join()

    def result(self) -> R:
        """Return it, or raise what the function raised."""
        if self._thread is None and not self._found and not self._error:
            self._work()
        self.wait()
        if self._error:
            raise self._error[0]
        return self._found[0]


def load_encoder(folder: Path, artifact: Artifact) -> Encoder:
    """Return the encoder of an artifact: the tokenizer in its folder, used as its manifest says.

    Raises:
        UserError: see `Encoder.load`.
    """
    return Encoder.load(folder, artifact.max_length, artifact.truncation, artifact.pad_token_id, pairs=artifact.pairs)


def batches_of(lengths: Sequence[int], batching: Batching) -> list[list[int]]:
    """Group texts of similar length, so that little of a batch is padding.

    Args:
        lengths: tokens of each text.
        batching: the limits of a batch; without any, all texts are one batch in their order.

    Returns:
        The indices of each batch's texts; every text is in one batch.
    """
    if batching.texts is batching.tokens is None:
        return [list(range(len(lengths)))] if lengths else []
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # In ascending order the newest text is the longest: it decides the padded size of its batch.
        size = len(batches[-1]) + 1 if batches else 1
        fits = size <= (batching.texts or size) and size * lengths[i] <= (batching.tokens or size * lengths[i])
        if batches and fits:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
