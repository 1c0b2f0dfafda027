"""Texts made of the tokens with the largest weights of a first stage, for a bundle to prove itself by.

No text of a user would do: a bundle is passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice, pairwise

import numpy as np
import numpy.typing as npt

from exporter.cascade.stage import FirstStage, surest
from trainer.lexical.features import features_of
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoder
from trainer.text.texts import Text

CLASSES = 8
"""For which texts are made, at most."""
CANDIDATES = 48
"""Tokens among which the next one of a text is chosen."""
STEPS = 16
"""Tokens that are chosen for a text."""
MARGIN = 1e-3
"""From the threshold, at least: another machine may round sums otherwise."""

Parts = tuple[list[int], ...]
"""The tokens of a text, or of both of a pair."""


def make_texts(first: FirstStage, encoder: Encoder, classes: int) -> list[Text]:
    """Make the surest text of each class that the first stage answers, and the next one on each side of the threshold.

    Args:
        first: the first stage.
        encoder: its tokenizer.
        classes: how many it tells apart.
    """
    fewest, labels = first.cascade.fewest_tokens, range(min(classes, CLASSES))
    grown = [_grow(first, encoder, label) for label in labels]
    if not all(grown):
        return []
    longest = [own[-1] for own in grown]
    parts = [text for own in grown for text in own]
    parts += [mixed for one, other in pairwise([*longest, longest[0]]) for mixed in _mix(one, other)]
    texts = list(dict.fromkeys(_written(encoder, text, fewest) for text in parts))
    logits, sure = first.answer(encoder.tokens(texts))
    found, shares = logits.argmax(axis=1), surest(logits)
    gaps = np.abs(shares - first.cascade.threshold)
    chosen = [_best(shares, sure & (found == label)) for label in labels]
    chosen += [_best(-gaps, side & (gaps >= MARGIN)) for side in (sure, ~sure)]
    return list(dict.fromkeys(texts[i] for i in chosen if i is not None))


def _best(scores: FloatArray, allowed: npt.NDArray[np.bool_]) -> int | None:
    """Return the place of the largest score that is allowed, None where none is."""
    return int(np.where(allowed, scores, -np.inf).argmax()) if allowed.any() else None


def _grow(first: FirstStage, encoder: Encoder, label: int) -> list[Parts]:
    """Return ever longer texts of a class: each has one more of its tokens, the one that speaks most for it then."""
    places = 1 + encoder.pairs
    candidates = [_telling(first, encoder, label, place) for place in range(places)]
    parts: Parts = ([],) * places
    texts = []
    for step in range(STEPS * places if all(candidates) else 0):
        place = step % places
        tried = [(*parts[:place], [*parts[place], token], *parts[place + 1 :]) for token in candidates[place]]
        parts = tried[_most_telling(first, tried, label)]
        texts.append(parts)
    return texts


def _mix(one: Parts, other: Parts) -> list[Parts]:
    """Return a text with ever more tokens of another after it, of which the first stage is ever less sure."""
    most = max(map(len, other))
    return [tuple(a + b[:count] for a, b in zip(one, other, strict=True)) for count in range(1, most + 1)]


def _telling(first: FirstStage, encoder: Encoder, label: int, place: int) -> list[int]:
    """Return the tokens that speak most for a class in the first or second text, and that a text can have alone."""
    vocabulary = encoder.vocabulary()
    before: Parts = ([],) * place
    margins = _margins(first.lexical.logits([(*before, [token]) for token in vocabulary]), label)
    ranked = [vocabulary[i] for i in np.argsort(-margins)[: 4 * CANDIDATES]]
    words = [encoder.decode([token]) for token in ranked]
    tokens = encoder.tokens([(word, word) for word in words] if encoder.pairs else words)
    return [token for token, parts in zip(ranked, tokens, strict=True) if parts[0] == [token]][:CANDIDATES]


def _most_telling(first: FirstStage, tried: Sequence[Parts], label: int) -> int:
    """Return which text speaks most for a class, among those of which training knew enough, if there are any."""
    features = features_of(tried, first.lexical.bits)
    unknown = np.maximum(0, first.cascade.least_known - first.lexical.known(features))
    return int(np.lexsort((-_margins(first.lexical.logits_of(features), label), unknown))[0])


def _margins(logits: FloatArray, label: int) -> FloatArray:
    others: FloatArray = np.delete(logits, label, axis=1).max(axis=1)
    return logits[:, label] - others


def _written(encoder: Encoder, parts: Parts, fewest: int) -> Text:
    """Return a text, or a pair, of these tokens, repeated until there are at least so many."""
    each = -(-fewest // len(parts))
    written = [encoder.decode([*islice(cycle(own), max(len(own), each))]) for own in parts]
    return (written[0], written[1]) if encoder.pairs else written[0]
