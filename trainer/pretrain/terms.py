"""Words and frequent phrases of a corpus, which a sequence's first vector learns to predict.

DistilBERT classifies by the vector of [CLS], which plain masking never trains. Predicting from it which words stand in
the sequence does (Ma et al. 2024, "Drop your Decoder: Pre-training with Bag-of-Word Prediction for Dense Passage
Retrieval"), and phrases beside words make it notice their order, which decides between "good" and "not good" (Li et
al. 2015, "Learning Document Embeddings by Predicting N-grams for Sentiment Classification of Long Movie Reviews").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IdArray = npt.NDArray[np.int64]

MAX_PHRASES = 16_384
MIN_COUNT = 20
"""Phrases that occur less often are left out: there is little to learn from a few examples."""
FREQUENT = 1e-4
"""Terms with a larger share of the corpus count less: Mikolov et al. 2013, "Distributed Representations of Words and
Phrases and their Compositionality", section 2.3, with a weight where theirs is a chance to be left out."""


class Terms:
    """The terms of a corpus, numbered: words as the tokenizer does, then phrases of two and of three tokens.

    Args:
        stream: the corpus' token ids, end to end.
        vocabulary: number of the model's word embeddings; there may be more of them than tokens.
        special: ids of the special tokens. No term is or contains one.
    """

    def __init__(self, stream: IdArray, vocabulary: int, special: Sequence[int]) -> None:
        self._vocabulary = vocabulary
        self._special = np.asarray(special, dtype=np.int64)
        ordinary = ~np.isin(stream, self._special)
        counts = np.bincount(stream[ordinary], minlength=vocabulary)
        self._pairs, pair_counts = _most_frequent(_keys(stream, 2, vocabulary)[ordinary[:-1] & ordinary[1:]])
        frequent = np.isin(_keys(stream, 2, vocabulary), self._pairs)
        self._triples, triple_counts = _most_frequent(_keys(stream, 3, vocabulary)[frequent[:-1] & frequent[1:]])
        self.shares = np.concatenate([counts, pair_counts, triple_counts]) / max(counts.sum(), 1)
        """How often each term occurs, relative to the corpus' number of words, [terms]."""

    def __len__(self) -> int:
        return len(self.shares)

    @property
    def phrases(self) -> list[tuple[int, ...]]:
        """The token ids of each phrase, in their order."""
        base = self._vocabulary
        pairs = [(int(key) // base, int(key) % base) for key in self._pairs]
        return pairs + [(int(key) // base // base, int(key) // base % base, int(key) % base) for key in self._triples]

    def weights(self) -> npt.NDArray[np.float32]:
        """Return how much each term counts, [terms]; zero for those that never occur."""
        weights = np.sqrt(FREQUENT / np.maximum(self.shares, FREQUENT))
        return np.where(self.shares > 0, weights, 0).astype(np.float32)

    def within(self, ids: IdArray) -> tuple[IdArray, IdArray]:
        """Find the distinct terms in sequences of token ids, [rows, length].

        Returns:
            The row of each term found, and the term, both [found].
        """
        rows = np.arange(len(ids))[:, None] * len(self)
        ordinary = ~np.isin(ids, self._special)
        terms = [(rows + ids)[ordinary]]
        for width, keys, first in ((2, self._pairs, 0), (3, self._triples, len(self._pairs))):
            if len(keys) and ids.shape[1] >= width:
                here = _keys(ids, width, self._vocabulary)
                place = np.minimum(np.searchsorted(keys, here), len(keys) - 1)
                terms.append((rows + self._vocabulary + first + place)[keys[place] == here])
        row, term = np.divmod(np.unique(np.concatenate(terms)), len(self))
        return row, term


def _keys(ids: IdArray, width: int, vocabulary: int) -> IdArray:
    """Return one number for each run of `width` tokens along the last axis; unique up to two million tokens."""
    count = ids.shape[-1] - width + 1
    keys = ids[..., :count]
    for i in range(1, width):
        keys = keys * vocabulary + ids[..., i : count + i]
    return keys


def _most_frequent(keys: IdArray) -> tuple[IdArray, IdArray]:
    """Return the most frequent keys in ascending order, and their counts: half of the phrases have either width."""
    unique, counts = np.unique(keys, return_counts=True)
    best = np.argsort(-counts, kind="stable")[: MAX_PHRASES // 2]
    best = np.sort(best[counts[best] >= MIN_COUNT])
    return unique[best], counts[best]
