"""From which probability on a label is given, where a text may have several: chosen on texts kept for that alone."""

from __future__ import annotations

import numpy as np

from trainer.tasks import Answers, FloatArray

USUAL = 0.5
FEWEST = 20
"""Texts with a label, and without, that it takes to choose its threshold: fewer would choose by luck."""


def choose_thresholds(probabilities: FloatArray, truth: Answers) -> tuple[float, ...]:
    """Return the threshold of each label: what gives it the best F1, if that holds on texts it was not chosen on.

    Each half of the texts is answered by the threshold of the other. Only if the F1 of all is then better than with one
    half is that of all texts taken.

    Args:
        probabilities: of each label, [texts, classes].
        truth: 1 where a text has it, [texts, classes].
    """
    return tuple(_choose(*of_label) for of_label in zip(probabilities.T, truth.T, strict=True))


def _choose(scores: FloatArray, has_it: Answers) -> float:
    """Choose the threshold of one label; both are [texts]."""
    if not FEWEST <= has_it.sum() <= len(has_it) - FEWEST:
        return USUAL
    halves = has_it.cumsum() % 2 == 1  # as many texts with the label in each, and about as many without
    answers = np.empty_like(has_it)
    for half in (halves, ~halves):
        answers[~half] = scores[~half] >= _best(scores[half], has_it[half])
    is_better = _f1(answers, has_it) > _f1((scores >= USUAL).astype(np.int64), has_it)
    return _best(scores, has_it) if is_better else USUAL


def _f1(answers: Answers, truth: Answers) -> float:
    return float(2 * (answers & truth).sum() / max(answers.sum() + truth.sum(), 1))


def _best(scores: FloatArray, has_it: Answers) -> float:
    """Return the threshold with the best F1, in the middle between two probabilities."""
    order = np.argsort(-scores)
    f1 = 2 * has_it[order].cumsum() / (np.arange(1, len(order) + 1) + has_it.sum())
    ranked = scores[order]
    is_gap = np.diff(ranked, append=-1.0) < 0  # between equal ones nothing can be cut
    best = max(np.flatnonzero(is_gap), key=lambda i: f1[i])
    following = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + following) / 2)
