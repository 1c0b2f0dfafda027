"""How right each backend is: scores of its logits on the whole evaluation split."""

from __future__ import annotations

from collections.abc import Sequence

from bench.results import Accuracy
from exporter.runtime import FloatArray, softmax


def score(backend: str, logits: FloatArray, labels: Sequence[int]) -> Accuracy:
    """Score `logits`, [reviews, classes], against the true `labels`."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    predicted = logits.argmax(axis=-1)
    return Accuracy(
        backend=backend,
        reviews=len(labels),
        accuracy=float(accuracy_score(labels, predicted)),
        f1_weighted=float(f1_score(labels, predicted, average="weighted")),
        loss=float(log_loss(labels, softmax(logits.astype("float64")), labels=range(logits.shape[1]))),
        predicted=tuple(int(label) for label in predicted),
    )
