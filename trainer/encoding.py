"""Text to token ids under one truncation rule, the same in training, export, measurement and deployment.

It builds on `tokenizers` alone, so that a deployed classifier cuts and encodes exactly as the trainer did without
installing transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from trainer.config import Truncation
from trainer.errors import UserError
from trainer.limits import MAX_JSON_BYTES, read_regular
from trainer.tokenizing import TextTokenizer, TokenizerError, guarded

IntArray = npt.NDArray[np.int64]

HEAD_SHARE = 0.25
"""The share of `head-tail` for the start of a text: 128 of 510 tokens did best on IMDB in Sun et al.
2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.1."""


@dataclass(frozen=True)
class Encoded:
    """One text as token ids, special tokens included."""

    ids: list[int]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class Encoder:
    """Encodes texts for a single-sequence classifier.

    Args:
        tokenizer: the tokenizer; its own truncation and padding are switched off.
        max_length: the maximum number of tokens in a text, special tokens included.
        truncation: which tokens of a longer text to keep: the first, the last, or a quarter from its beginning and
            the rest from its end.
        pad_token_id: what fills shorter rows of a batch.

    Raises:
        UserError: `max_length` leaves no room for a text, or the tokenizer knows no letter.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, truncation: Truncation, pad_token_id: int) -> None:
        self._tokenizer = TextTokenizer(tokenizer)
        ids, special = self._tokenizer.probe("a")  # shows which special tokens go before a text and which after
        body = [i for i, is_special in enumerate(special) if not is_special]
        if not body:
            raise UserError("this tokenizer knows no letter", "use a checkpoint made for classification")
        self._before = ids[: body[0]]
        self._after = ids[body[-1] + 1 :]
        self.room = max_length - len(self._before) - len(self._after)
        """The maximum number of a text's own tokens, special tokens not counted."""
        if self.room < 1:
            raise UserError(
                f"a length of {max_length} tokens leaves no room beside {max_length - self.room} special tokens",
                "give a longer `--max-length`",
            )
        self.truncation = truncation
        self.max_length = max_length
        self.pad_token_id = pad_token_id
        self._head = {"head": self.room, "tail": 0, "head-tail": round(self.room * HEAD_SHARE)}[truncation]

    @classmethod
    def load(cls, folder: Path, max_length: int, truncation: Truncation, pad_token_id: int) -> Encoder:
        """Make an encoder from the `tokenizer.json` in `folder`, or raise a UserError if it is missing or damaged."""
        path = folder / "tokenizer.json"
        try:
            content = read_regular(path, MAX_JSON_BYTES).decode("utf-8")
            tokenizer = guarded(lambda: Tokenizer.from_str(content))
        except FileNotFoundError:
            raise UserError(f"no `tokenizer.json` in `{folder}`", "make the folder again") from None
        except (OSError, ValueError, TokenizerError) as error:
            reason = error.reason if isinstance(error, TokenizerError) else error
            raise UserError(f"`{path}` is damaged: {reason}", "make the folder again") from None
        return cls(tokenizer, max_length, truncation, pad_token_id)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode each text, cut to `max_length` tokens.

        Raises:
            UserError: the tokenizer cannot, or takes too long.
        """
        return [
            self._wrap(self._cut(ids), truncated=len(ids) > self.room)
            for ids in self._tokenizer.tokens(texts, self.room, self.room - self._head)
        ]

    def resize(self, encoded: Encoded, tokens: int) -> Encoded:
        """Return a text of exactly `tokens` tokens of its own: cut, or repeated from its start."""
        body = encoded.ids[len(self._before) : len(encoded) - len(self._after)] or [self.pad_token_id]
        body = (body * -(-tokens // len(body)))[:tokens]
        return self._wrap(body, truncated=encoded.truncated)

    def pad(self, encoded: Sequence[Encoded], length: int | None = None) -> tuple[IntArray, IntArray]:
        """Return token ids and attention mask, both [len(encoded), length], filled on the right.

        `length` is that of the longest text where None.
        """
        shape = (len(encoded), length or max(len(e) for e in encoded))
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, e in enumerate(encoded):
            ids[row, : len(e)] = e.ids
            mask[row, : len(e)] = 1
        return ids, mask

    def _wrap(self, body: list[int], *, truncated: bool) -> Encoded:
        """Put the special tokens around a text. One without any token is padding: a model needs something to read."""
        return Encoded([*self._before, *body, *self._after] or [self.pad_token_id], truncated)

    def _cut(self, body: list[int]) -> list[int]:
        if len(body) <= self.room:
            return body
        return body[: self._head] + body[len(body) - (self.room - self._head) :]
