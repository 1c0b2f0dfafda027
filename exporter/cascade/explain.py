"""Why a first stage answered as it did: the tokens and pairs of a text whose weights decided, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.cascade.stage import FirstStage
from trainer.lexical.features import buckets_of, features_of
from trainer.text.encoding import Encoder
from trainer.text.texts import Text


@dataclass(frozen=True)
class Reason:
    """A token, or two neighbours, and what it adds to the logit of the answer over that of the next class."""

    tokens: str
    """Several, with a comma between, where they share a bucket, and with it a weight."""
    weight: float


def reasons(first: FirstStage, encoder: Encoder, text: Text) -> list[Reason]:
    """Return all reasons of the first stage's answer to a text, the one that decided most first.

    With the biases, their weights add up to the logit of the answer less that of the second most probable class.
    """
    (tokens,) = encoder.tokens([text])
    lexical = first.lexical
    features = features_of([tokens], lexical.bits)
    answer, second = np.argsort(-lexical.logits_of(features)[0])[:2]
    of_class = lexical.weights[features.buckets].astype(np.float32)
    if of_class.shape[1] == 1:
        of_class = np.hstack([np.zeros_like(of_class), of_class])
    weights = (of_class[:, answer] - of_class[:, second]) * features.weights / first.cascade.temperature
    named: dict[int, list[str]] = {}
    for bucket, ids in _found(tokens, lexical.bits):
        named.setdefault(bucket, []).append(encoder.decode(ids).strip())
    return [
        Reason(", ".join(dict.fromkeys(named[int(features.buckets[i])])), float(weights[i]))
        for i in np.argsort(-np.abs(weights), kind="stable")
    ]


def _found(tokens: Sequence[Sequence[int]], bits: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield the bucket of each token and of each two neighbours, with their ids."""
    for place, own in enumerate(tokens):
        for width, buckets in enumerate(buckets_of(own, place, bits), 1):
            for start, bucket in enumerate(buckets):
                yield int(bucket), own[start : start + width]
