"""TF-IDF of words and pairs of words with logistic regression: what a language model has to beat.

It is fitted once, on the training texts of the run and on no others: a run whose data has changed since is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.bundle.probabilities import FloatArray
from exporter.engines.engine import ALL_AT_ONCE, Batching
from exporter.engines.spec import EngineSpec
from trainer.run import RunDir, reload_splits

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

WORDS, WEIGHTS = "words.json", "weights.npz"


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

    def logits(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> FloatArray:  # noqa: ARG002
        """Return logits, [len(texts), classes]; it has no batches."""
        columns = np.asarray(self._vectorizer.transform(texts) @ self._weights + self._bias)
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
    from sklearn.linear_model import LogisticRegression

    train = reload_splits(run.load()).train
    vectorizer = _vectorizer(min_df=2)
    model = LogisticRegression(C=10, max_iter=1000).fit(vectorizer.fit_transform(train.texts), train.labels)
    (folder / WORDS).write_text(json.dumps(vectorizer.get_feature_names_out().tolist()), encoding="utf-8")
    np.savez(folder / WEIGHTS, idf=vectorizer.idf_, weights=model.coef_.T, bias=model.intercept_)


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
