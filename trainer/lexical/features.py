"""Token ids to weights of hashed tokens and of hashed pairs of neighbours, in numpy alone.

Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"; counts are damped, and a text's weights
have the length 1, so that long and short texts are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.tasks import FloatArray

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: Knuth's multiplicative hashing, The Art of Computer Programming 6.4."""


@dataclass(frozen=True)
class Features:
    """The weights of texts, in the form of a sparse matrix in rows: see `scipy.sparse.csr_array`."""

    starts: npt.NDArray[np.int64]
    """Where the weights of each text begin, and where the last ones end, [texts + 1]."""
    buckets: npt.NDArray[np.int64]
    """[weights], ascending within a text."""
    weights: FloatArray
    """[weights]; their squares sum to 1 in each text that has a token."""


def features_of(texts: Sequence[Sequence[Sequence[int]]], bits: int) -> Features:
    """Hash texts into 2^bits buckets.

    Args:
        texts: of each text, or of both of a pair, the ids of its own tokens; the second of a pair has other buckets.
        bits: up to 32.
    """
    count = len(texts)
    hashed, rows = [], []
    for place in range(max((len(parts) for parts in texts), default=0)):
        sizes = np.fromiter((len(parts[place]) for parts in texts), np.int64, count)
        ids = np.fromiter((i for parts in texts for i in parts[place]), np.uint64, int(sizes.sum()))
        row = np.repeat(np.arange(count), sizes)
        same = row[1:] == row[:-1]
        tokens, pairs = _keys(ids, place)
        hashed += [tokens, pairs[same]]
        rows += [row, row[1:][same]]
    buckets = _hash(np.concatenate(hashed or [np.empty(0, np.uint64)]), bits)
    keys, counts = np.unique((np.concatenate(rows or [buckets]) << bits) | buckets, return_counts=True)
    row, buckets = keys >> bits, keys & ((1 << bits) - 1)
    weights = (1 + np.log(counts)).astype(np.float32)
    lengths = np.sqrt(np.bincount(row, weights**2, count))
    starts = np.concatenate([[0], np.bincount(row, minlength=count).cumsum()])
    return Features(starts, buckets, (weights / lengths[row]).astype(np.float32))


def buckets_of(own: Sequence[int], place: int, bits: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the bucket of each token of a text, and of each pair of neighbours in it.

    Args:
        own: the ids of its tokens.
        place: 1 for the second of a pair of texts, else 0.
        bits: see `features_of`.
    """
    tokens, pairs = _keys(np.array(own, np.uint64), place)
    return _hash(tokens, bits), _hash(pairs, bits)


def _keys(ids: npt.NDArray[np.uint64], place: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return what is hashed for each token, and for each two neighbours."""
    tokens = ids + np.uint64(1 + (place << 24))
    return tokens, (tokens[:-1] << np.uint64(32)) | tokens[1:]


def _hash(values: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.int64]:
    with np.errstate(over="ignore"):  # the product is meant to be cut to 64 bits
        return ((values * MULTIPLIER) >> np.uint64(64 - bits)).astype(np.int64)
