"""How right each backend is: scores of its logits on the whole evaluation split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.results import Accuracy
from exporter.probabilities import FloatArray


def score(backend: str, logits: FloatArray, labels: Sequence[int]) -> Accuracy:
    """Score `logits`, [reviews, classes], against the true `labels`."""
    from sklearn.metrics import accuracy_score, f1_score

    predicted = logits.argmax(axis=-1)
    return Accuracy(
        backend=backend,
        reviews=len(labels),
        accuracy=float(accuracy_score(labels, predicted)),
        f1_weighted=float(f1_score(labels, predicted, average="weighted")),
        loss=_log_loss(logits, labels),
        predicted=tuple(int(label) for label in predicted),
    )


def _log_loss(logits: FloatArray, labels: Sequence[int]) -> float:
    """Return the mean negative log-likelihood from the logits, as confident mistakes need: a probability would be 0."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())
