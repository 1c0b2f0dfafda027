"""Word vectors from co-occurrence counts, as a start for a model trained from scratch.

A small encoder needs tens of millions of tokens until its masked-language-model loss moves its embeddings to anything
useful. Counting which tokens stand near each other, and factorising the counts, is done in a minute and gets much of
the way: Levy & Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.pretrain.terms import IdArray

WINDOW = 20
"""Tokens to either side. Wide windows bring out what a text is about and how it feels, narrow ones grammar."""
MAX_CONTEXTS = 8192
"""Only the most frequent tokens are counted as neighbours, to bound the memory: a table takes vocabulary × this × 4
bytes, and there are up to three at a time."""
SMOOTHING = 0.75
"""Exponent on the neighbours' frequencies: Levy et al. 2015, section 3.2."""


def word_vectors(documents: Sequence[IdArray], vocabulary: int, width: int) -> npt.NDArray[np.float32]:
    """Factorise the positive pointwise mutual information of tokens and their neighbours within a text.

    Args:
        documents: token ids of each text.
        vocabulary: number of tokens.
        width: of the vectors.

    Returns:
        One unit vector per token, [vocabulary, width]; zero for tokens without a neighbour.
    """
    from sklearn.utils.extmath import randomized_svd

    counts = _cooccurrences(documents, vocabulary)
    expected = counts.sum(axis=0) ** SMOOTHING
    expected /= max(expected.sum(), 1)
    totals = counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        counts /= totals
        counts /= expected
        np.log(counts, out=counts)
    np.nan_to_num(counts, copy=False, nan=0, posinf=0, neginf=0)
    np.maximum(counts, 0, out=counts)
    left, _, _ = randomized_svd(counts, min(width, *counts.shape), n_iter=3, random_state=0)
    vectors = np.zeros((vocabulary, width), np.float32)
    vectors[:, : left.shape[1]] = left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-9)
    return vectors


def _cooccurrences(documents: Sequence[IdArray], vocabulary: int) -> npt.NDArray[np.float32]:
    """Count how often each token has each context token within WINDOW tokens, [vocabulary, contexts]."""
    ids = np.concatenate(documents)
    document = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    frequent = np.argsort(-np.bincount(ids, minlength=vocabulary), kind="stable")[:MAX_CONTEXTS]
    context_of = np.full(vocabulary, -1)
    context_of[frequent] = np.arange(len(frequent))
    contexts = context_of[ids]
    counts = np.zeros(vocabulary * len(frequent), np.float32)
    for distance in range(1, WINDOW + 1):
        same = document[:-distance] == document[distance:]
        ahead, behind = slice(distance, None), slice(None, -distance)
        for token, context in ((ahead, behind), (behind, ahead)):
            counted = same & (contexts[context] >= 0)
            pairs = ids[token][counted] * len(frequent) + contexts[context][counted]
            counts += np.bincount(pairs, minlength=len(counts))
    return counts.reshape(vocabulary, len(frequent))
