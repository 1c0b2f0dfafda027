"""Fits the linear classifier with scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.lexical.features import features_of
from trainer.lexical.model import FEWEST_BITS, Lexical, bits_for
from trainer.tasks import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Texts = Sequence[Sequence[Sequence[int]]]
"""Of each text, or of both of a pair, the ids of its own tokens."""
Ints = npt.NDArray[np.int64]
Question = tuple[Ints, int]
"""The right class of each text, and how many classes there are."""

FEWEST_TEXTS = 300
"""Different ones: fewer are not worth a classifier."""
FOLDS = 5
STRENGTHS = (4.0, 16.0, 64.0)
"""Inverses of the regularisation to choose from."""
STEPS = 60
"""Of the solver at most: more changed no answer of a thousand."""
FLOOR = -30.0
"""The logit of a class that no text was fitted to: a probability of less than one in a trillion."""


@dataclass(frozen=True)
class Fitted:
    """A classifier, and how well ones like it answered the texts that they were not fitted on."""

    lexical: Lexical
    texts: int
    """How many it was fitted on."""
    loss: float
    """The mean negative log-likelihood of a text's class, in nats."""
    accuracy: float


def same_texts(texts: Texts) -> Ints:
    """Return for each text the index of the first that has the same tokens, [texts]."""
    first: dict[int, int] = {}
    return np.array([first.setdefault(hash(tuple(map(tuple, parts))), i) for i, parts in enumerate(texts)], np.int64)


def has_company(same: Ints, question: Question) -> npt.NDArray[np.bool_]:
    """Return for each text whether there are different texts of its class, without which no fold can know it, [texts].

    Args:
        same: see `same_texts`.
        question: its texts' classes.
    """
    answer: npt.NDArray[np.bool_] = _texts_by_class(same, question)[question[0]] > 1
    return answer


def objection(same: Ints, question: Question) -> str:
    """Return why no classifier is fitted to a question, empty where one is; texts that are the same count once.

    Of two labels each, and of more at least two, have several texts: every fold leaves one of both to learn from. A
    label has a text in every fold, or else nothing can be said of texts that were not fitted.
    """
    classes, counts = question[1], _texts_by_class(same, question)
    if bits_for(classes) < FEWEST_BITS:
        return f"{classes:,} labels are too many"
    if counts.sum() < FEWEST_TEXTS:
        return f"{counts.sum():,} texts are too few"
    if (several := (counts > 1).sum()) < 2:
        return f"{several} of {classes:,} labels {'has' if several == 1 else 'have'} more than one text"
    return f"no label has {FOLDS} texts" if counts.max() < FOLDS else ""


def fit(texts: Texts, labels: Sequence[int], classes: int, seed: int) -> Fitted:
    """Fit a classifier of one label a text.

    Args:
        texts: what to fit.
        labels: the class of each, to which there is no `objection`.
        classes: how many there are.
        seed: decides the folds.
    """
    truth = np.asarray(labels)
    matrix, idf = _weighted(texts, bits_for(classes))
    fold = _folds(same_texts(texts), truth, seed)
    tried = {strength: _out_of_fold(matrix, (truth, classes), fold, strength) for strength in STRENGTHS}
    loss = {strength: float(losses(logits, truth).mean()) for strength, logits in tried.items()}
    best = min(STRENGTHS, key=lambda strength: loss[strength])
    weights, bias = _solve(matrix, (truth, classes), best)
    accuracy = float((tried[best].argmax(axis=1) == truth).mean())
    return Fitted(Lexical((weights * idf[:, None]).astype(np.float16), bias), len(texts), loss[best], accuracy)


def out_of_fold(texts: Texts, same: Ints, questions: Sequence[Question], seed: int) -> list[FloatArray]:
    """Return what classifiers answer to texts that they were not fitted on, for each question logits, [texts, classes].

    Args:
        texts: which may be cut.
        same: of whole texts, see `same_texts`; they share a fold.
        questions: to none of which there is an `objection`.
        seed: decides the folds.
    """
    matrix, _ = _weighted(texts, bits_for(max(classes for _, classes in questions)))
    folds = (_folds(same, truth, seed) for truth, _ in questions)
    return [_out_of_fold(matrix, *part, STRENGTHS[0]) for part in zip(questions, folds, strict=True)]


def losses(logits: FloatArray, truth: Ints) -> FloatArray:
    """Return the negative log-likelihood of each text's class, in nats, [texts]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: FloatArray = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(truth)), truth]
    return found


def _texts_by_class(same: Ints, question: Question) -> Ints:
    """Return how many different texts each class has, [classes]; one with two labels counts for its first."""
    truth, classes = question
    return np.bincount(truth[np.unique(same)], minlength=classes)


def _weighted(texts: Texts, bits: int) -> tuple[csr_array, npt.NDArray[np.float64]]:
    """Return the weights of texts, [texts, buckets], rare buckets weighing more, and how much more, [buckets]."""
    from scipy.sparse import csr_array

    features = features_of(texts, bits)
    idf = np.log((1 + len(texts)) / (1 + np.bincount(features.buckets, minlength=1 << bits))) + 1
    weights = features.weights * idf[features.buckets].astype(np.float32)
    return csr_array((weights, features.buckets, features.starts), shape=(len(texts), 1 << bits)), idf


def _folds(same: Ints, truth: Ints, seed: int) -> Ints:
    """Return the fold of each text, [texts]: the texts of a class in turn, and those that are the same in one."""
    firsts, place = np.unique(same, return_inverse=True)
    chance = np.random.default_rng(seed).random(len(firsts))
    fold = np.empty(len(firsts), np.int64)
    fold[np.lexsort((chance, truth[firsts]))] = np.arange(len(firsts)) % FOLDS
    return fold[place]


def _out_of_fold(matrix: csr_array, question: Question, fold: Ints, strength: float) -> FloatArray:
    truth, classes = question
    logits = np.zeros((len(truth), classes), np.float32)
    for number in range(FOLDS):
        rest, out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        weights, bias = _solve(matrix[rest], (truth[rest], classes), strength)
        logits[out, -len(bias) :] = matrix[out] @ weights + bias
    return logits


def _solve(matrix: csr_array, question: Question, strength: float) -> tuple[FloatArray, FloatArray]:
    """Return weights, [buckets, columns], and biases, [columns], by which a class that no text has is not answered."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    truth, classes = question
    model = LogisticRegression(C=strength, max_iter=STEPS, tol=1e-3)
    used = np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1]))  # few, where texts are few or short
    # On two busy cores, one thread took a seventh of the time: the solver's many small sums only wait for a second one.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # that the last step was not small
        model.fit(matrix[:, used], truth)
    columns = model.classes_[-len(model.intercept_) :]  # of two classes, the second alone
    weights = np.zeros((matrix.shape[1], classes), np.float32)
    bias = np.full(classes, FLOOR, np.float32)
    bias[model.classes_] = 0
    weights[np.ix_(used, columns)] = model.coef_.T
    bias[columns] = model.intercept_
    return (weights[:, 1:], bias[1:]) if classes == 2 else (weights, bias)
