"""An engine of two stages: what the first is not sure of is cut, batched and answered by the model, as without it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.cascade.stage import FirstStage, Stage
from exporter.engines.engine import ALL_AT_ONCE, Batching, ModelEngine, ahead
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder
from trainer.text.texts import Text, parts_of
from trainer.text.tokenizing import PIECE_CHARACTERS

Sure = npt.NDArray[np.bool_]


class CascadeEngine:
    """Answers texts by the first stage where that is sure, else by the model; each text is tokenised once.

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
        return _named(self._read(texts)[2])

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
        rows, answered, found = [], [], []
        gone, asked = list[Encoded](), 0  # what went on to the model, and of how much it was asked
        for logits, sure, going_on in ahead(self._ask_first, self.engine.blocks(texts, batching or self.engine.bulk)):
            rows.append(logits)
            answered.append(sure)
            gone += going_on
            if len(gone) - asked >= self.engine.block:
                found.append(self._ask_model(gone[asked:], batching))
                asked = len(gone)
        if asked < len(gone):
            found.append(self._ask_model(gone[asked:], batching))
        logits, sure = np.concatenate(rows), np.concatenate(answered)
        truncated = np.zeros(len(texts), np.bool_)
        if found:
            logits[~sure], truncated[~sure] = np.concatenate(found), [e.truncated for e in gone]
        return truncated.tolist(), logits, _named(sure)

    def _ask_first(self, texts: Sequence[Text]) -> tuple[FloatArray, Sure, list[Encoded]]:
        """Return the first stage's logits, which of them are answers, and the other texts as the model reads them."""
        tokens, logits, sure = self._read(texts)
        return logits, sure, [self.encoder.fit(parts) for parts in compress(tokens, ~sure)]

    def _read(self, texts: Sequence[Text]) -> tuple[list[tuple[list[int], ...]], FloatArray, Sure]:
        """Return the tokens of texts, the first stage's logits, and which of them are answers."""
        tokens = self.encoder.tokens(texts)
        logits, sure = self.first.answer(tokens)
        return tokens, logits, sure & are_whole(texts)

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


def _named(sure: Sure) -> list[Stage]:
    return ["lexical" if is_sure else "model" for is_sure in sure]
