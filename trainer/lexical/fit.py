"""Fits the linear classifier with scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.lexical.features import features_of
from trainer.lexical.model import Lexical, bits_for
from trainer.tasks import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Question = tuple[npt.NDArray[np.int64], int]
"""The right class of each text, and how many classes there are."""

FEWEST_TEXTS, FEWEST_OF_A_CLASS = 300, 2
"""Fewer texts are not worth a classifier; with two of each class, every fold leaves one to learn from."""
FOLDS = 5
STRENGTHS = (4.0, 16.0, 64.0)
"""Inverses of the regularisation to choose from."""
STEPS = 60
"""Of the solver at most: more changed no answer of a thousand."""


@dataclass(frozen=True)
class Fitted:
    """A classifier, and what classifiers like it answered to texts that they were not fitted on."""

    lexical: Lexical
    out_of_fold: FloatArray
    """Logits, [texts, classes]; see `Lexical.logits`."""


def objection(question: Question) -> str:
    """Return why no classifier can be fitted to a question, empty where one can."""
    truth, classes = question
    if len(truth) < FEWEST_TEXTS:
        return f"{len(truth):,} texts are too few"
    rarest = np.bincount(truth, minlength=classes).min()
    return f"a label has {rarest} of {len(truth):,} texts" if rarest < FEWEST_OF_A_CLASS else ""


def fit(texts: Sequence[Sequence[Sequence[int]]], labels: Sequence[int], classes: int, seed: int) -> Fitted:
    """Fit a classifier of one label a text.

    Args:
        texts: of each text, or of both of a pair, the ids of its own tokens.
        labels: the class of each, to which there is no `objection`.
        classes: how many there are.
        seed: decides the folds.
    """
    truth = np.asarray(labels)
    matrix, idf = _weighted(texts, bits_for(classes))
    tried = {strength: _out_of_fold(matrix, truth, classes, strength, seed) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: losses(tried[strength], truth).mean())
    weights, bias = _solve(matrix, truth, best)
    return Fitted(Lexical((weights * idf[:, None]).astype(np.float16), bias), tried[best])


def out_of_fold(texts: Sequence[Sequence[Sequence[int]]], questions: Sequence[Question], seed: int) -> list[FloatArray]:
    """Return what classifiers answer to texts that they were not fitted on, for each question logits, [texts, classes].

    Args:
        texts: see `fit`.
        questions: to none of which there is an `objection`.
        seed: decides the folds.
    """
    matrix, _ = _weighted(texts, bits_for(max(classes for _, classes in questions)))
    return [_out_of_fold(matrix, truth, classes, STRENGTHS[0], seed) for truth, classes in questions]


def losses(logits: FloatArray, truth: npt.NDArray[np.int64]) -> FloatArray:
    """Return the negative log-likelihood of each text's class, in nats, [texts]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: FloatArray = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(truth)), truth]
    return found


def _weighted(texts: Sequence[Sequence[Sequence[int]]], bits: int) -> tuple[csr_array, npt.NDArray[np.float64]]:
    """Return the weights of texts, [texts, buckets], rare buckets weighing more, and how much more, [buckets]."""
    from scipy.sparse import csr_array

    features = features_of(texts, bits)
    idf = np.log((1 + len(texts)) / (1 + np.bincount(features.buckets, minlength=1 << bits))) + 1
    weights = features.weights * idf[features.buckets].astype(np.float32)
    return csr_array((weights, features.buckets, features.starts), shape=(len(texts), 1 << bits)), idf


def _out_of_fold(
    matrix: csr_array, truth: npt.NDArray[np.int64], classes: int, strength: float, seed: int
) -> FloatArray:
    from sklearn.model_selection import StratifiedKFold

    logits = np.zeros((len(truth), classes), np.float32)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has fewer texts than there are folds
        parts = [*folds.split(truth, truth)]
    for rest, out in parts:
        weights, bias = _solve(matrix[rest], truth[rest], strength)
        logits[out, -weights.shape[1] :] = matrix[out] @ weights + bias
    return logits


def _solve(matrix: csr_array, truth: npt.NDArray[np.int64], strength: float) -> tuple[FloatArray, FloatArray]:
    """Return weights, [buckets, columns], and biases, [columns]."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(C=strength, max_iter=STEPS, tol=1e-3)
    used = np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1]))  # few, where texts are few or short
    # On two busy cores, one thread took a seventh of the time: the solver's many small sums only wait for a second one.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # that the last step was not small
        model.fit(matrix[:, used], truth)
    weights = np.zeros((matrix.shape[1], len(model.intercept_)), np.float32)
    weights[used] = model.coef_.T
    return weights, model.intercept_.astype(np.float32)
