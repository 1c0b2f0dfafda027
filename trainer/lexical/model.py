"""The classifier itself: a weight for each bucket and class, in one small file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.lexical.features import Features, features_of
from trainer.tasks import FloatArray

MOST_BYTES = 2**19
"""Of all weights: half a megabyte."""
MOST_BITS, FEWEST_BITS = 17, 12
"""Logarithms of numbers of buckets: with fewer, most of them are of many unlike tokens."""
BLOCK_TOKENS = 2**16
"""Texts are hashed so many tokens at a time: the weights of all would fill the memory. A longer one is hashed alone."""


@dataclass(frozen=True)
class Lexical:
    """A linear classifier of one label a text."""

    weights: npt.NDArray[np.float16]
    """[2^bits, columns]: a column a class; of two classes, the second alone."""
    bias: FloatArray
    """[columns]."""

    @property
    def bits(self) -> int:
        """The logarithm of the number of buckets."""
        return len(self.weights).bit_length() - 1

    def logits(self, texts: Sequence[Sequence[Sequence[int]]]) -> FloatArray:
        """Return logits, [texts, classes]; of two classes, the first is 0.

        Args:
            texts: see `features_of`.
        """
        return self.read(texts)[0]

    def read(self, texts: Sequence[Sequence[Sequence[int]]]) -> tuple[FloatArray, FloatArray]:
        """Return what `logits` and `known` do, in memory that grows with the texts' number alone.

        Args:
            texts: see `features_of`.
        """
        blocks = (features_of(block, self.bits) for block in _blocks(texts))
        logits, known = zip(*((self.logits_of(block), self.known(block)) for block in blocks), strict=True)
        return np.concatenate(logits), np.concatenate(known)

    def logits_of(self, features: Features) -> FloatArray:
        """Return the logits of texts that are hashed into as many buckets; see `logits`."""
        terms = self.weights[features.buckets].astype(np.float32) * features.weights[:, None]
        summed = np.zeros((len(features.starts) - 1, self.weights.shape[1]), np.float32)
        filled = np.flatnonzero(np.diff(features.starts))
        if len(filled):
            summed[filled] = np.add.reduceat(terms, features.starts[filled])
        logits = summed + self.bias
        return np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits

    def known(self, features: Features) -> FloatArray:
        """Return the share of each text, by its squared weights, in buckets that some text had in training, [texts]."""
        seen = (self.weights[features.buckets] != 0).any(axis=1) * features.weights**2
        row = np.repeat(np.arange(len(features.starts) - 1), np.diff(features.starts))
        return np.bincount(row, seen, len(features.starts) - 1).astype(np.float32)


def _blocks(texts: Sequence[Sequence[Sequence[int]]]) -> Iterator[Sequence[Sequence[Sequence[int]]]]:
    """Yield texts in order, some at a time; of no text, one block of none."""
    start = tokens = 0
    for i, parts in enumerate(texts):
        size = sum(map(len, parts))
        if i > start and tokens + size > BLOCK_TOKENS:
            yield texts[start:i]
            start, tokens = i, 0
        tokens += size
    yield texts[start:]


def bits_for(classes: int) -> int:
    """Return how many buckets, as a logarithm, a classifier of so many classes may have."""
    columns = 1 if classes == 2 else classes
    return min(MOST_BITS, (MOST_BYTES // (2 * columns)).bit_length() - 1)
