"""Text to token ids under one truncation rule, the same in training, export, measurement and deployment.

It builds on `tokenizers` alone, so that a deployed classifier cuts and encodes exactly as the trainer did without
installing transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from trainer.config import Truncation
from trainer.errors import UserError
from trainer.limits import MAX_JSON_BYTES, read_regular
from trainer.text.texts import Text, parts_of
from trainer.text.tokenizing import TextTokenizer, TokenizerError, guarded

IntArray = npt.NDArray[np.int64]

HEAD_SHARE = 0.25
"""The share of `head-tail` for the start of a text: 128 of 510 tokens did best on IMDB in Sun et al.
2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.1."""


@dataclass(frozen=True)
class Encoded:
    """One text, or a pair of texts, as token ids, special tokens included."""

    ids: list[int]
    truncated: bool
    sizes: tuple[int, ...]
    """How many tokens of its own each text has; the others are special."""

    def __len__(self) -> int:
        return len(self.ids)


class Encoder:
    """Encodes texts, or pairs of texts, for a classifier.

    Args:
        tokenizer: the tokenizer; its own truncation and padding are switched off.
        max_length: the maximum number of tokens in a text or in a pair, special tokens included.
        truncation: which tokens of a longer text to keep: the first, the last, or a quarter from its beginning and
            the rest from its end. Of a pair, the longer text is cut first, until both are equally long.
        pad_token_id: what fills shorter rows of a batch.
        pairs: whether it encodes pairs.

    Raises:
        UserError: `max_length` leaves no room for a text, or the tokenizer knows no letter or makes no pairs.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_length: int, truncation: Truncation, pad_token_id: int, *, pairs: bool = False
    ) -> None:
        self._tokenizer = TextTokenizer(tokenizer)
        self.pairs = pairs
        self._special, self._types = _template(self._tokenizer, 1 + pairs)
        special = sum(map(len, self._special))
        self.room = max_length - special
        """The maximum number of tokens of its own in a text, or in a pair: special tokens are not counted."""
        if self.room < 1 + pairs:
            raise UserError(
                f"a length of {max_length} tokens leaves no room beside {special} special tokens",
                "give a longer `--max-length`",
            )
        self.truncation = truncation
        self.max_length = max_length
        self.pad_token_id = pad_token_id

    @property
    def token_types(self) -> int:
        """How many token types a model needs to have for it; a single text has one."""
        return 1 + max(chain.from_iterable(self._types)) if self.pairs else 1

    @property
    def separates(self) -> bool:
        """Whether there is a token between the two texts of a pair; of single texts, there is nothing to separate."""
        return not self.pairs or bool(self._special[1])

    @classmethod
    def load(
        cls, folder: Path, max_length: int, truncation: Truncation, pad_token_id: int, *, pairs: bool = False
    ) -> Encoder:
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
        return cls(tokenizer, max_length, truncation, pad_token_id, pairs=pairs)

    def under(self, truncation: Truncation) -> Encoder:
        """Return this encoder with another truncation rule."""
        other = copy(self)
        other.truncation = truncation
        return other

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Encode each text, or pair, cut to `max_length` tokens.

        A pair is cut as the `tokenizers` library does with `longest_first`, if the rule is `head`. Of two texts of
        more than 2^16 characters, of which only the ends are tokenized, the one that looks longer gets the odd token.

        Raises:
            TypeError: a text comes where a pair is expected, or the other way round.
            UserError: the tokenizer cannot, or takes too long.
        """
        return [self.fit(bodies) for bodies in self._stream(texts)]

    def tokens(self, texts: Sequence[Text]) -> list[tuple[list[int], ...]]:
        """Return the tokens of each text, or of both of a pair, before they are cut; see `encode`.

        Of a text of more than 2^16 characters, these are the ends alone: more than are kept of it.
        """
        return [*self._stream(texts)]

    def _stream(self, texts: Sequence[Text]) -> Iterator[tuple[list[int], ...]]:
        """Yield what `tokens` returns: of long texts, all tokens of all would fill the memory."""
        parts = [parts_of(text) for text in texts]
        if any(len(of_text) != len(self._special) - 1 for of_text in parts):
            raise TypeError(f"this encoder takes {'pairs of texts' if self.pairs else 'single texts'}")
        room = self.room
        bodies = self._tokenizer.tokens([*chain.from_iterable(parts)], room, room - self._head(room))
        yield from zip(*[iter(bodies)] * (len(self._special) - 1), strict=True)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some tokens."""
        return self._tokenizer.decode(ids)

    def vocabulary(self) -> list[int]:
        """Return all tokens that a text can have, but special ones."""
        return self._tokenizer.vocabulary()

    def resize(self, encoded: Encoded, tokens: int) -> Encoded:
        """Return a text, or a pair, of exactly `tokens` tokens of its own: cut, or repeated from its start."""
        sizes = (tokens - tokens // 2, tokens // 2) if self.pairs else (tokens,)
        return self._wrap(
            [
                (own * -(-size // len(own)))[:size]
                for size, body in zip(sizes, self._bodies(encoded), strict=True)
                for own in (body or [self.pad_token_id],)
            ],
            truncated=encoded.truncated,
        )

    def pad(self, encoded: Sequence[Encoded], length: int | None = None) -> dict[str, IntArray]:
        """Return what a model can take of a batch, each [len(encoded), length], filled on the right.

        That is `input_ids`, `attention_mask`, and `token_type_ids`, which are all 0 for single texts. `length` is that
        of the longest text where None.
        """
        shape = (len(encoded), length or max(len(e) for e in encoded))
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, e in enumerate(encoded):
            ids[row, : len(e)] = e.ids
            mask[row, : len(e)] = 1
            if self.pairs:
                types[row, : len(e)] = self._types_of(e)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    def fit(self, bodies: Sequence[list[int]]) -> Encoded:
        """Cut the tokens of a text, or of both of a pair, and put the special tokens around them."""
        return self._wrap(self.cut(bodies), truncated=self.is_longer(bodies))

    def is_longer(self, bodies: Sequence[list[int]]) -> bool:
        """Return whether a text, or a pair, has more tokens than are kept of it."""
        return sum(map(len, bodies)) > self.room

    def cut(self, bodies: Sequence[list[int]]) -> Sequence[list[int]]:
        """Return the tokens that are kept of a text, or of both of a pair."""
        if not self.is_longer(bodies):
            return bodies
        shares = _shares([*map(len, bodies)], self.room)
        return [self._cut(body, size) for body, size in zip(bodies, shares, strict=True)]

    def _cut(self, body: list[int], size: int) -> list[int]:
        if len(body) <= size:
            return body
        head = self._head(size)
        return body[:head] + body[len(body) - (size - head) :]

    def _head(self, size: int) -> int:
        """Return how many of `size` tokens that are kept of a longer text are its first."""
        return {"head": size, "tail": 0, "head-tail": round(size * HEAD_SHARE)}[self.truncation]

    def _wrap(self, bodies: Sequence[list[int]], *, truncated: bool) -> Encoded:
        """Put the special tokens around texts. A row without any token is padding: a model needs something to read."""
        first, *others = self._special
        ids = first + [i for body, special in zip(bodies, others, strict=True) for i in (*body, *special)]
        return Encoded(ids or [self.pad_token_id], truncated, tuple(map(len, bodies)))

    def _bodies(self, encoded: Encoded) -> list[list[int]]:
        bodies, start = [], 0
        for special, size in zip(self._special, encoded.sizes, strict=False):
            start += len(special)
            bodies.append(encoded.ids[start : start + size])
            start += size
        return bodies

    def _types_of(self, encoded: Encoded) -> list[int]:
        """Return the token type of each token; a row of padding alone has type 0."""
        first, *others = self._types
        types = [*first]
        for size, (of_text, *special) in zip(encoded.sizes, others, strict=True):
            types += [of_text] * size + special
        return types or [0]


def _template(tokenizer: TextTokenizer, texts: int) -> tuple[list[list[int]], list[list[int]]]:
    """Find which special tokens a tokenizer puts before, between and after the texts of a row.

    Returns:
        The special tokens before the first text and after each text; and the token types of these, where those after
        a text begin with the type of the text itself.

    Raises:
        UserError: it knows no letter, or does not put the texts one after the other.
    """
    ids, types, sources = tokenizer.probe("a", "a" if texts > 1 else None)
    runs = [(source, len([*run])) for source, run in groupby(sources)]
    found = [source for source, _ in runs if source is not None]
    if found != [*range(texts)]:
        if 0 not in found:
            raise UserError("this tokenizer knows no letter", "use a checkpoint made for classification")
        raise UserError(
            f"this tokenizer cannot make {'pairs of texts' if texts > 1 else 'a row of one text'}",
            "use another base model" + ", or join the texts to one" * (texts > 1),
        )
    special: list[list[int]] = [[]]
    of_special: list[list[int]] = [[]]
    start = 0
    for source, length in runs:
        if source is None:
            special[-1] += ids[start : start + length]
            of_special[-1] += types[start : start + length]
        else:
            special.append([])
            of_special.append([types[start]])
        start += length
    return special, of_special


def _shares(sizes: Sequence[int], room: int) -> list[int]:
    """Return how many tokens are kept of each text, which together have more than `room`: the longer is cut first."""
    if len(sizes) == 1:
        return [room]
    short = min(*sizes, room // 2)
    return [short, room - short] if sizes[0] <= sizes[1] else [room - short, short]
