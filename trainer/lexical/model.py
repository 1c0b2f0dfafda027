"""The classifier itself: a weight for each bucket and class, in one small file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.lexical.features import Features, features_of
from trainer.tasks import FloatArray

MOST_BYTES = 2**19
"""Of all weights: half a megabyte."""
MOST_BITS, FEWEST_BITS = 17, 12
"""Logarithms of numbers of buckets: with fewer, most of them are of many unlike tokens."""


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
        return self.logits_of(features_of(texts, self.bits))

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


def bits_for(classes: int) -> int:
    """Return how many buckets, as a logarithm, a classifier of so many classes may have."""
    columns = 1 if classes == 2 else classes
    return min(MOST_BITS, (MOST_BYTES // (2 * columns)).bit_length() - 1)
