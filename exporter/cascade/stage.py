"""The first stage: a linear classifier of tokens, and when its answer is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.lexical.model import Lexical
from trainer.tasks import FloatArray

Stage = Literal["lexical", "model", "both"]
"""What answered a text: the linear classifier of the first stage, the model, or their logits, added."""

LEXICAL = "lexical.safetensors"
"""Its file in a bundle."""


@dataclass(frozen=True)
class Stack:
    """By what the logits of both stages are multiplied before they are added, for usual texts that the first leaves."""

    first: float
    """Those of the first stage, after the temperature."""
    model: float


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
    stack: Stack | None = None
    """None where the model alone answers what goes on."""

    def is_usual(self, known: FloatArray, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which texts the first stage is asked about, [texts].

        Args:
            known: see `Lexical.known`, [texts].
            tokens: how many of its own each has, [texts].
        """
        return (known >= self.least_known) & (tokens >= self.fewest_tokens) & (tokens <= self.most_tokens)

    def combine(self, first: FloatArray, usual: npt.NDArray[np.bool_], model: FloatArray) -> FloatArray:
        """Return the logits of texts that go on, [texts, classes]; of unusual ones they are the model's as they are.

        Args:
            first: those of the first stage, after the temperature, [texts, classes].
            usual: which of the texts are, [texts].
            model: those of the model, [texts, classes].
        """
        if self.stack is None:
            return model
        added = np.float32(self.stack.first) * first + np.float32(self.stack.model) * model
        return np.where(usual[:, None], added, model)


@dataclass(frozen=True)
class FirstStage:
    """Answers the texts that it is sure of."""

    lexical: Lexical
    cascade: Cascade

    def read(self, tokens: Sequence[Sequence[Sequence[int]]]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Return calibrated logits, [texts, classes], and which texts are usual, [texts].

        Args:
            tokens: of each text, or of both of a pair, all tokens of its own: see `Encoder.tokens`.
        """
        logits, known = self.lexical.read(tokens)
        sizes = np.array([sum(map(len, parts)) for parts in tokens])
        return logits / np.float32(self.cascade.temperature), self.cascade.is_usual(known, sizes)

    def answer(self, tokens: Sequence[Sequence[Sequence[int]]]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Return calibrated logits, [texts, classes], and which of them are answers, [texts]; see `read`."""
        logits, usual = self.read(tokens)
        return logits, usual & self.is_sure(logits)

    def is_sure(self, logits: FloatArray) -> npt.NDArray[np.bool_]:
        """Return which of its logits are answers, if the text is usual, [texts]."""
        return surest(logits) >= self.cascade.threshold


def surest(logits: FloatArray) -> FloatArray:
    """Return the probability of each text's most probable class, [texts]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: FloatArray = 1 / shifted.sum(axis=1)
    return found
