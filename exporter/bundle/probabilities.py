"""From logits to probabilities, and how far two sets of them are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def softmax(logits: FloatArray) -> FloatArray:
    """Return the probabilities for logits, along the last axis."""
    return np.asarray(np.exp(log_softmax(logits)), dtype=np.float32)


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the logarithms of the probabilities for logits, along the last axis; a probability itself may be 0."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def divergence(reference: FloatArray, candidate: FloatArray) -> float:
    """Return the mean Kullback-Leibler divergence of the candidate's probabilities from the reference's, in nats.

    Args:
        reference: logits, [texts, classes].
        candidate: logits of the same texts.
    """
    before, after = (log_softmax(logits.astype(np.float64)) for logits in (reference, candidate))
    return float(np.maximum((np.exp(before) * (before - after)).sum(-1).mean(), 0))  # rounding can make it negative
