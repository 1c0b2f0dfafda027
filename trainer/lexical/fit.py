"""Fits the linear classifier with scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.lexical.features import Features, features_of
from trainer.lexical.model import Lexical, bits_for
from trainer.tasks import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

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


def fit(texts: Sequence[Sequence[Sequence[int]]], labels: Sequence[int], classes: int, seed: int) -> Fitted:
    """Fit a classifier of one label a text.

    Args:
        texts: of each text, or of both of a pair, the ids of its own tokens.
        labels: the class of each, of which every one occurs.
        classes: how many there are.
        seed: decides the folds.
    """
    bits = bits_for(classes)
    features, truth = features_of(texts, bits), np.asarray(labels)
    matrix = _matrix(features, bits)
    idf = np.log((1 + len(texts)) / (1 + np.bincount(features.buckets, minlength=1 << bits))) + 1
    matrix.data *= idf[features.buckets].astype(np.float32)
    tried = {strength: _out_of_fold(matrix, truth, classes, strength, seed) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: _loss(tried[strength], truth))
    weights, bias = _solve(matrix, truth, classes, best)
    return Fitted(Lexical((weights * idf[:, None]).astype(np.float16), bias), tried[best])


def _matrix(features: Features, bits: int) -> csr_array:
    from scipy.sparse import csr_array

    shape = (len(features.starts) - 1, 1 << bits)
    return csr_array((features.weights, features.buckets, features.starts), shape=shape)


def _out_of_fold(
    matrix: csr_array, truth: npt.NDArray[np.int64], classes: int, strength: float, seed: int
) -> FloatArray:
    from sklearn.model_selection import StratifiedKFold

    logits = np.zeros((len(truth), classes), np.float32)
    for rest, out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(truth, truth):
        weights, bias = _solve(matrix[rest], truth[rest], classes, strength)
        logits[out, -weights.shape[1] :] = matrix[out] @ weights + bias
    return logits


def _solve(
    matrix: csr_array, truth: npt.NDArray[np.int64], classes: int, strength: float
) -> tuple[FloatArray, FloatArray]:
    """Return weights, [buckets, columns], and biases, [columns]."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=STEPS, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the last step was not small
        model.fit(matrix, truth)
    columns = 1 if classes == 2 else classes
    weights, bias = np.zeros((matrix.shape[1], columns), np.float32), np.full(columns, -30.0, np.float32)
    places = [0] if classes == 2 else model.classes_
    weights[:, places], bias[places] = model.coef_.T, model.intercept_
    return weights, bias


def _loss(logits: FloatArray, truth: npt.NDArray[np.int64]) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(truth)), truth]).mean())
