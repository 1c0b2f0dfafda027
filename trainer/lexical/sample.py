"""As many texts as a linear classifier needs, whatever their length."""

from __future__ import annotations

from trainer.data.load import Examples
from trainer.data.splitting import draw, strata
from trainer.text.texts import parts_of
from trainer.text.tokenizing import PIECE_CHARACTERS

MOST_CHARACTERS = 2**25
"""Of all texts together: some ten million tokens, and their features take less than a gigabyte."""


def sample(examples: Examples, most: int, seed: int) -> Examples:
    """Draw `most` examples by label, or as many as have `MOST_CHARACTERS`; all where these are fewer."""
    read = sum(min(len(part), 2 * PIECE_CHARACTERS) for text in examples.texts for part in parts_of(text))
    affordable = max(1, len(examples) * MOST_CHARACTERS // max(read, 1))
    return examples.take(draw(strata(examples.labels), min(most, affordable), seed))
