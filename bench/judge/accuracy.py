"""How right each engine is: scores of its logits on the evaluation texts, alone and against the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.judge.stats import brier_score, expected_calibration_error, mcnemar_exact
from bench.results import Accuracy, ClassScores, LengthScores
from exporter.bundle.probabilities import FloatArray, log_softmax, softmax
from exporter.int8.budget import accuracy_change, count_changes

BUCKETS = 4
"""Parts of equally many texts into which their lengths are cut."""


def score(
    engine: str,
    logits: FloatArray,
    labels: Sequence[int],
    label_names: Sequence[str],
    tokens: Sequence[int],
    *,
    reference: Sequence[int] | None,
    tried: int = 1,
) -> Accuracy:
    """Score an engine's answers, alone and against those of the reference, which are None for itself.

    The logits are [texts, classes], and `tokens` the length of each text as the classifier reads it. `tried` engines
    are compared with the reference, and their intervals hold jointly.
    """
    from sklearn.metrics import accuracy_score, f1_score

    predicted = [int(label) for label in logits.argmax(axis=-1)]
    probabilities = softmax(logits)
    change = p = None
    if reference is not None:
        harmful, helpful = count_changes(reference, predicted, labels)
        change = accuracy_change(harmful, helpful, len(labels), tried=tried)
        p = mcnemar_exact(harmful, helpful)
    return Accuracy(
        engine=engine,
        texts=len(labels),
        accuracy=float(accuracy_score(labels, predicted)),
        f1_weighted=float(f1_score(labels, predicted, average="weighted")),
        loss=float(-log_softmax(logits.astype(np.float64))[np.arange(len(labels)), labels].mean()),
        calibration_error=expected_calibration_error(probabilities, labels),
        brier=brier_score(probabilities, labels),
        classes=_by_class(labels, predicted, label_names),
        lengths=_by_length(np.asarray(labels) == predicted, tokens),
        change=change,
        mcnemar_p=p,
        predicted=tuple(predicted),
    )


def _by_class(labels: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> tuple[ClassScores, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(labels, predicted, labels=range(len(names)), zero_division=0)
    return tuple(
        ClassScores(name, int(support), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    )


def _by_length(is_right: FloatArray, tokens: Sequence[int]) -> tuple[LengthScores, ...]:
    """Cut the texts into four parts by length; those of one length stay together."""
    lengths = np.asarray(tokens)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BUCKETS + 1)[1:], method="higher"))
    least, parts = int(lengths.min()), []
    for edge in edges:
        inside = (lengths >= least) & (lengths <= edge)
        parts.append(LengthScores(least, int(edge), int(inside.sum()), float(is_right[inside].mean())))
        least = int(edge) + 1
    return tuple(parts)
