"""TF-IDF of words and pairs of words with logistic regression: what a language model has to beat.

For several labels a text, there is one regression for each.

It is fitted once, on the training texts of the run and on no others: a run whose data has changed since is refused.
Pairs of texts are joined to one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.engines.engine import ALL_AT_ONCE, Batching
from exporter.engines.spec import EngineSpec
from trainer.run import RunDir, reload_splits
from trainer.tasks import Answers, FloatArray, task_of
from trainer.text.texts import Text, joined

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

WORDS, WEIGHTS = "words.json", "weights.npz"
NEVER = -10.0
"""The logit of a label that no text has."""


class WordCounts:
    """A fitted model.

    Args:
        vectorizer: turns texts into features.
        weights: of the features, [features, columns].
        bias: [columns].
    """

    model = None
    batchings = (ALL_AT_ONCE,)

    def __init__(self, vectorizer: TfidfVectorizer, weights: Any, bias: Any) -> None:
        self._vectorizer, self._weights, self._bias = vectorizer, weights, bias

    def logits(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> FloatArray:  # noqa: ARG002
        """Return logits, [len(texts), classes]; it has no batches."""
        columns = np.asarray(self._vectorizer.transform(map(joined, texts)) @ self._weights + self._bias)
        if columns.shape[1] == 1:  # of two classes only the second has weights
            columns = np.hstack([np.zeros_like(columns), columns])
        return columns.astype(np.float32)


def _vectorizer(**options: Any) -> TfidfVectorizer:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), **options)


def fit(run: RunDir, folder: Path) -> None:
    """Fit the model on a run's training texts and leave it in `folder`.

    Raises:
        UserError: the run's data is not known or has changed since.
    """
    record = run.load()
    train, task = reload_splits(record).train, task_of(record.task, len(record.label_names))
    vectorizer = _vectorizer(min_df=2)
    weights, bias = _fit(vectorizer.fit_transform(map(joined, train.texts)), task.truth(train.labels))
    (folder / WORDS).write_text(json.dumps(vectorizer.get_feature_names_out().tolist()), encoding="utf-8")
    np.savez(folder / WEIGHTS, idf=vectorizer.idf_, weights=weights, bias=bias)


def _fit(features: Any, truth: Answers) -> tuple[Any, Any]:
    """Return weights and bias for one label a text, [texts], or for each of several, [texts, labels]."""
    from sklearn.linear_model import LogisticRegression

    if truth.ndim > 1:
        columns = [_fit(features, column) for column in truth.T]
        return np.hstack([weights for weights, _ in columns]), np.hstack([bias for _, bias in columns])
    if len(set(truth)) == 1:  # a label that all texts have, or none
        return np.zeros((features.shape[1], 1)), np.array([NEVER if truth[0] == 0 else -NEVER])
    model = LogisticRegression(C=10, max_iter=1000).fit(features, truth)
    return model.coef_.T, model.intercept_


def load(_: RunDir, threads: int, prepared: Path) -> WordCounts:  # noqa: ARG001
    """Load what `fit` left."""
    vectorizer = _vectorizer(vocabulary=json.loads((prepared / WORDS).read_text(encoding="utf-8")))
    arrays = np.load(prepared / WEIGHTS, allow_pickle=False)
    vectorizer.idf_ = arrays["idf"]
    return WordCounts(vectorizer, arrays["weights"], arrays["bias"])


ENGINES = (
    EngineSpec(
        name="tfidf-logistic-regression",
        load=load,
        precision="none",
        imports=("sklearn",),
        packages=("scikit-learn",),
        is_peer=True,
        prepare=fit,
    ),
)
