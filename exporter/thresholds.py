"""From which probability on a label is given, where a text may have several: chosen on texts kept for that alone."""

from __future__ import annotations

import numpy as np

from trainer.tasks import Answers, FloatArray, MultiLabel

USUAL = 0.5
FEWEST = 10
"""Texts with a label, and without, that it takes to choose its threshold: fewer would choose by luck."""


def choose_thresholds(probabilities: FloatArray, truth: Answers) -> tuple[float, ...]:
    """Return the threshold of each label: what gives it the best F1, if that holds on texts it was not chosen on.

    Each half of the texts is answered by the thresholds of the other. Only if the micro F1 of all is then better than
    with one half for each label are those of all texts taken.

    Args:
        probabilities: of each label, [texts, classes].
        truth: 1 where a text has it, [texts, classes].
    """
    usual = (USUAL,) * truth.shape[1]
    halves = [np.arange(len(truth)) % 2 == i for i in range(2)]
    answers = np.empty_like(truth)
    for chosen_on, answered in (halves, halves[::-1]):
        thresholds = _best(probabilities[chosen_on], truth[chosen_on])
        answers[answered] = probabilities[answered] >= thresholds
    is_better = _f1(answers, truth) > _f1((probabilities >= USUAL).astype(np.int64), truth)
    return tuple(map(float, _best(probabilities, truth))) if is_better else usual


def _f1(answers: Answers, truth: Answers) -> float:
    right, all_given = MultiLabel(truth.shape[1], ()).parts(answers, truth).sum(axis=0)
    return float(right / max(all_given, 1))


def _best(probabilities: FloatArray, truth: Answers) -> FloatArray:
    """Return the threshold with the best F1 for each label, in the middle between two probabilities."""
    thresholds = np.full(truth.shape[1], USUAL, dtype=np.float32)
    for label, (scores, has_it) in enumerate(zip(probabilities.T, truth.T, strict=True)):
        if FEWEST <= has_it.sum() <= len(has_it) - FEWEST:
            order = np.argsort(-scores)
            f1 = 2 * has_it[order].cumsum() / (np.arange(1, len(order) + 1) + has_it.sum())
            ranked = scores[order]
            is_gap = np.diff(ranked, append=-1.0) < 0  # between equal ones nothing can be cut
            best = max(np.flatnonzero(is_gap), key=lambda i: f1[i])
            following = ranked[best + 1] if best + 1 < len(ranked) else 0.0
            thresholds[label] = (ranked[best] + following) / 2
    return thresholds
