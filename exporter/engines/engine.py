"""The contract of whatever answers texts: an `Engine`, and how many texts go into one call of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from exporter.bundle.artifact import Artifact
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder
from trainer.text.texts import Text


@dataclass(frozen=True)
class Batching:
    """How many texts go into one call of the model at most. Without a limit all go into one."""

    texts: int | None = None
    tokens: int | None = None
    """Padding included. A longer text is a batch of its own."""

    @property
    def name(self) -> str:
        """What tables and records call it."""
        if self == ONE_BY_ONE:
            return "one by one"
        limits = [f"{count:,} {unit}" for count, unit in ((self.texts, "texts"), (self.tokens, "tokens")) if count]
        return f"batches of {' and '.join(limits)}" if limits else "all at once"


ONE_BY_ONE = Batching(texts=1)
ALL_AT_ONCE = Batching()


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


class ModelEngine(Generic[M]):
    """An engine made of a model: it encodes, batches texts of similar length, and runs.

    Args:
        model: the model.
    """

    batchings: Sequence[Batching] = (ONE_BY_ONE, Batching(tokens=2048), Batching(tokens=8192))

    def __init__(self, model: M) -> None:
        self.model = model

    def logits(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> FloatArray:
        """Return the logits of texts, [len(texts), classes]."""
        return self.run_all(self.model.encoder.encode(texts), batching)

    def run_all(self, encoded: Sequence[Encoded], batching: Batching) -> FloatArray:
        """Return the logits of encoded texts, one or more, [len(encoded), classes]."""
        batches = batches_of([len(e) for e in encoded], batching)
        rows = np.concatenate([self.model.run([encoded[i] for i in batch]) for batch in batches])
        logits = np.empty_like(rows)
        logits[[i for batch in batches for i in batch]] = rows
        return logits


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
    if batching == ALL_AT_ONCE:
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
