"""An engine of two stages: what the first is not sure of is cut and batched for the model, as without it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exporter.cascade.stage import FirstStage, Stage
from exporter.engines.engine import ALL_AT_ONCE, Batching, ModelEngine, ahead
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder
from trainer.text.texts import Text, parts_of
from trainer.text.tokenizing import PIECE_CHARACTERS

Which = npt.NDArray[np.bool_]


class _Said(NamedTuple):
    """What the first stage says of texts: a row each."""

    logits: FloatArray
    usual: Which
    sure: Which
    """Which of the logits are answers."""


class CascadeEngine:
    """Answers texts by the first stage where that is sure, else by the model or both; each text is tokenised once.

    Args:
        engine: of the model.
        first: the first stage, for the same tokens and classes.
    """

    model = None
    """Two stages are no model that could be run apart from its tokenizer."""

    def __init__(self, engine: ModelEngine[Any], first: FirstStage) -> None:
        self.engine, self.first = engine, first
        self.batchings: Sequence[Batching] = engine.batchings

    @property
    def encoder(self) -> Encoder:
        """The tokenizer and truncation rule of both."""
        encoder: Encoder = self.engine.model.encoder
        return encoder

    def logits(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> FloatArray:
        """Return the logits of texts, one or more, [len(texts), classes]; those of the first stage are calibrated."""
        return self.answer_all(texts, batching)[1]

    def stages(self, texts: Sequence[Text]) -> list[Stage]:
        """Return which stage answers each text, without asking the model."""
        said = self._read(texts)[1]
        return self._named(said.usual, said.sure)

    def answer_all(
        self, texts: Sequence[Text], batching: Batching | None = None
    ) -> tuple[list[bool], FloatArray, list[Stage]]:
        """Answer texts, one or more.

        Args:
            texts: the texts.
            batching: how the model is given what goes on to it; as suits a list of so many texts where None.

        Returns:
            Whether the stage that answered left out a part of the text, which the first never does; the logits,
            [len(texts), classes]; and the stages.
        """
        said, found = [], []
        gone, asked = list[Encoded](), 0  # what went on to the model, and of how much it was asked
        for of_block, going_on in ahead(self._ask_first, self.engine.blocks(texts, batching or self.engine.bulk)):
            said.append(of_block)
            gone += going_on
            if len(gone) - asked >= self.engine.block:
                found.append(self._ask_model(gone[asked:], batching))
                asked = len(gone)
        if asked < len(gone):
            found.append(self._ask_model(gone[asked:], batching))
        logits, usual, sure = map(np.concatenate, zip(*said, strict=True))
        truncated, goes_on = np.zeros(len(texts), np.bool_), ~sure
        if found:
            of_model = np.concatenate(found)
            logits[goes_on] = self.first.cascade.combine(logits[goes_on], usual[goes_on], of_model)
            truncated[goes_on] = [e.truncated for e in gone]
        return truncated.tolist(), logits, self._named(usual, sure)

    def _ask_first(self, texts: Sequence[Text]) -> tuple[_Said, list[Encoded]]:
        """Return what the first stage says, and what it is not sure of as the model reads it."""
        tokens, said = self._read(texts)
        return said, [self.encoder.fit(parts) for parts in compress(tokens, ~said.sure)]

    def _read(self, texts: Sequence[Text]) -> tuple[list[tuple[list[int], ...]], _Said]:
        """Return the tokens of texts, and what the first stage says."""
        tokens = self.encoder.tokens(texts)
        logits, usual = self.first.read(tokens)
        usual &= are_whole(texts)
        return tokens, _Said(logits, usual, usual & self.first.is_sure(logits))

    def _named(self, usual: Which, sure: Which) -> list[Stage]:
        added: Stage = "both" if self.first.cascade.stack else "model"
        return ["lexical" if own else added if may else "model" for may, own in zip(usual, sure, strict=True)]

    def _ask_model(self, encoded: Sequence[Encoded], batching: Batching | None) -> FloatArray:
        return self.engine.run_all(encoded, batching or self.engine.for_list(len(encoded)))


def are_whole(texts: Sequence[Text]) -> npt.NDArray[np.bool_]:
    """Return whether the first stage sees all of each text, [texts]; it answers no other.

    Of a text of more characters, `Encoder.tokens` may leave out the middle.
    """
    return np.array([all(len(part) <= PIECE_CHARACTERS for part in parts_of(text)) for text in texts], np.bool_)


def ask_both(cascade: CascadeEngine, texts: Sequence[Text], batching: Batching) -> tuple[FloatArray, float]:
    """Return logits, [texts, classes], and the share that the first stage answers; runs in the engine's process."""
    _, logits, stages = cascade.answer_all(texts, batching)
    return logits, stages.count("lexical") / len(texts)
