"""The first stage: a linear classifier of tokens, and when its answer is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.lexical.model import Lexical
from trainer.tasks import FloatArray

Stage = Literal["lexical", "model"]
"""What answered a text: the linear classifier of the first stage, or the model."""

LEXICAL = "lexical.safetensors"
"""Its file in a bundle."""


@dataclass(frozen=True)
class Cascade:
    """When the first stage answers. All of it is chosen on texts that nothing was trained or judged on."""

    temperature: float
    """By which its logits are divided, so that its probabilities are as often right as they say."""
    threshold: float
    """The probability of its surest class from which on it answers; above 1, it never does."""
    least_known: float
    """The share of a text that training knew, by squared weights, below which the text goes on."""
    fewest_tokens: int
    """A text with fewer tokens of its own goes on."""
    most_tokens: int
    """A text with more goes on."""


@dataclass(frozen=True)
class FirstStage:
    """Answers the texts that it is sure of."""

    lexical: Lexical
    cascade: Cascade

    def answer(self, tokens: Sequence[Sequence[Sequence[int]]]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Return calibrated logits, [texts, classes], and which of them are answers, [texts].

        Args:
            tokens: of each text, or of both of a pair, all tokens of its own: see `Encoder.tokens`.
        """
        logits, shares = self.lexical.read(tokens)
        logits = logits / np.float32(self.cascade.temperature)
        sizes = np.array([sum(map(len, parts)) for parts in tokens])
        usual = (sizes >= self.cascade.fewest_tokens) & (sizes <= self.cascade.most_tokens)
        known = shares >= self.cascade.least_known
        return logits, usual & known & (surest(logits) >= self.cascade.threshold)


def surest(logits: FloatArray) -> FloatArray:
    """Return the probability of each text's most probable class, [texts]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: FloatArray = 1 / shifted.sum(axis=1)
    return found
