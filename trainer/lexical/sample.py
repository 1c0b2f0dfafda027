"""As many texts as a linear classifier needs, whatever their length."""

from __future__ import annotations

from trainer.data.load import Examples
from trainer.data.splitting import draw, strata
from trainer.text.encoding import Encoder

MOST_TOKENS = 10_000_000
"""Of all texts together; their features take less than a gigabyte."""
COUNTED = 200
"""Texts, by which the tokens of all are estimated."""


def sample(encoder: Encoder, examples: Examples, most: int, seed: int) -> Examples:
    """Draw `most` examples by label, or about as many as have `MOST_TOKENS`; all where these are fewer."""
    by_label = strata(examples.labels)
    counted = examples.take(draw(by_label, COUNTED, seed))
    tokens = sum(len(part) for parts in encoder.tokens(counted.texts) for part in parts)
    affordable = max(1, len(counted) * MOST_TOKENS // max(tokens, 1))
    return examples.take(draw(by_label, min(most, affordable), seed))
