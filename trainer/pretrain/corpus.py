"""Plain text to masked batches: read, hold some out, learn a vocabulary, pack, mask.

Texts are packed end to end, so that no token is padding (Liu et al. 2019, "RoBERTa", section 4.2, FULL-SENTENCES).
Every batch is a function of the seed and its number: masks differ from pass to pass, and a run that is resumed sees
what it would have seen.
"""

from __future__ import annotations

import codecs
import hashlib
import random
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.normalizers import BertNormalizer
from transformers import DistilBertTokenizerFast, PreTrainedTokenizerFast

from trainer.data.load import check_unicode, read_texts
from trainer.errors import UserError
from trainer.files.tables import FILE_TYPES, Reading, file_type
from trainer.pretrain.terms import IdArray, Terms
from trainer.text.texts import joined

HELD_OUT = 0.01
"""The share of the texts that is kept for the evaluation loss."""
MAX_HELD_OUT = 1000

SHORT_SHARE = 0.75
"""The share of the training that runs on sequences of half the length, which cost less; the rest teaches the other
positions. Devlin et al. 2019 ("BERT", appendix A.2) did 0.9 at a quarter of the length."""

ALPHABET = 1000
"""The maximum number of characters that get a piece of their own; rarer ones are unknown."""
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

TEXTS_AT_ONCE = 2000
"""Texts tokenised in one call: the library's own objects for all of them would take many times the memory."""

POSITIONS = 512
"""Of a model made from scratch, as many as DistilBERT has."""


@dataclass(frozen=True)
class Corpus:
    """Texts to train on and texts to evaluate on, all distinct."""

    train: list[str]
    held_out: list[str]

    def sha256(self) -> str:
        """Return one hash over all texts."""
        digest = hashlib.sha256()
        for text in (*self.train, *self.held_out):
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()


def read_corpus(paths: Sequence[Path], text_column: str | None, seed: int, reading: Reading | None = None) -> Corpus:
    """Read texts from files, drop duplicates and empty ones, and hold out a hundredth, a thousand at most.

    A `.txt` file has one text a line; the others have a column of them.

    Raises:
        UserError: a file cannot be read, or there are fewer than two texts.
    """
    texts = list(
        dict.fromkeys(text for path in paths for text in _read(path, text_column, reading or Reading()) if text.strip())
    )
    check_unicode(texts, "`--text`")
    if len(texts) < 2:
        raise UserError(f"{len(texts)} different texts are too few to train on", "give a file with more texts")
    random.Random(seed).shuffle(texts)
    size = min(max(1, round(len(texts) * HELD_OUT)), MAX_HELD_OUT)
    return Corpus(texts[size:], texts[:size])


def learn_pieces(texts: Sequence[str], size: int) -> dict[str, int]:
    """Learn at most `size` uncased word pieces and number them: special tokens, then starts of words, then the rest.

    The library would number the characters inside words in the order of a hash table, and these numbers decide between
    pieces that are equally frequent. To be reproducible, they are numbered here.
    """
    alphabet = min(ALPHABET, size // 4)  # each may take two pieces, and the library drops none of them
    normalize = BertNormalizer(lowercase=True).normalize_str
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(normalize(text))
    inside = sorted("##" + character for character, _ in seen.most_common(alphabet) if _within_words(character))
    wordpiece = BertWordPieceTokenizer(lowercase=True)
    wordpiece.train_from_iterator(
        texts, size, limit_alphabet=alphabet, special_tokens=[*_SPECIAL, *inside], show_progress=False
    )
    others = sorted(set(wordpiece.get_vocab()) - set(_SPECIAL), key=lambda piece: (piece.startswith("##"), piece))
    return {piece: number for number, piece in enumerate([*_SPECIAL, *others])}


def _within_words(character: str) -> bool:
    """Return whether a character may be part of a word: white space and punctuation end one."""
    return not character.isspace() and character not in string.punctuation and unicodedata.category(character)[0] != "P"


def make_tokenizer(pieces: dict[str, int]) -> PreTrainedTokenizerFast:
    """Make a tokenizer like BERT's from its word pieces."""
    wordpiece = BertWordPieceTokenizer(pieces, lowercase=True)
    return DistilBertTokenizerFast(tokenizer_object=wordpiece._tokenizer, model_max_length=POSITIONS)


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[IdArray]:
    """Return the token ids of each text, without special tokens."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [
        np.array(encoded.ids, dtype=np.int64)
        for start in range(0, len(texts), TEXTS_AT_ONCE)
        for encoded in backend.encode_batch(list(texts[start : start + TEXTS_AT_ONCE]), add_special_tokens=False)
    ]


def stream_of(documents: Sequence[IdArray], tokenizer: PreTrainedTokenizerFast) -> IdArray:
    """Return all documents end to end, with [SEP] after each."""
    _, sep, _ = _special_ids(tokenizer)
    return np.concatenate([part for ids in documents for part in (ids, np.array([sep]))])


class Batches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Batches of packed, masked sequences.

    Item i is a whole batch: `input_ids` [rows, length], `positions` [masked], which index the flattened batch, and
    `labels` [masked]; with `terms` also `term_rows` and `terms` [matches], the terms in each row before masking.

    Each stage draws every sequence of the stream once before it draws any of them again; stages draw independently.

    Args:
        stream: token ids of the texts, end to end.
        tokenizer: names the special tokens.
        tokens: how many tokens all batches together hold.
        lengths: the sequence length of each stage of the training with its share of the tokens.
        batch_tokens: tokens of one batch.
        mask_ratio: share of the tokens to predict. Of these, 80 % are masked, 10 % replaced by a random token and 10 %
            kept, as in Devlin et al. 2019.
        seed: decides order and masks.
        terms: what the first vector of a sequence is to predict, if anything.

    Raises:
        UserError: the tokenizer lacks a special token, or the texts do not fill one sequence.
    """

    def __init__(
        self,
        stream: IdArray,
        tokenizer: PreTrainedTokenizerFast,
        *,
        tokens: float,
        lengths: Sequence[tuple[int, float]],
        batch_tokens: int,
        mask_ratio: float,
        seed: int,
        terms: Terms | None = None,
    ) -> None:
        self._cls, self._sep, self._mask = _special_ids(tokenizer)
        self._vocabulary = len(tokenizer)
        self._special = np.array(tokenizer.all_special_ids)
        self._stream = stream
        self._terms = terms
        self._mask_ratio = mask_ratio
        self._seed = seed
        if len(self._stream) < max(length for length, _ in lengths):
            raise UserError(
                f"{len(self._stream)} tokens of text do not fill one sequence of {max(lengths)[0]}",
                "give more text, or a shorter `--max-length`",
            )
        self._stages = [
            (length, batch_tokens // length, max(1, round(tokens * share / (batch_tokens // length * length))))
            for length, share in lengths
        ]

    def __len__(self) -> int:
        return sum(batches for _, _, batches in self._stages)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = index
        for stage, (length, rows, batches) in enumerate(self._stages):  # noqa: B007
            if number < batches:
                break
            number -= batches
        ids = np.stack([self._row(stage, length, number * rows + row) for row in range(rows)])
        batch = self._masked(ids, np.random.default_rng((self._seed, index)))
        if self._terms:
            batch["term_rows"], batch["terms"] = map(torch.from_numpy, self._terms.within(ids))
        return batch

    def tokens_before(self, step: int) -> int:
        """Return how many tokens the first `step` batches hold."""
        tokens = 0
        for length, rows, batches in self._stages:
            tokens += min(step, batches) * rows * length
            step -= min(step, batches)
        return tokens

    def _row(self, stage: int, length: int, number: int) -> IdArray:
        """Return sequence `number` of a stage: [CLS], the next tokens of the stream, [SEP]."""
        body = length - 2
        count = -(-len(self._stream) // body)
        turn, place = divmod(number, count)
        start = min(int(_permutation(self._seed, stage, turn, count)[place]) * body, len(self._stream) - body)
        return np.concatenate(([self._cls], self._stream[start : start + body], [self._sep]))

    def _masked(self, ids: IdArray, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        flat = ids.ravel().copy()
        candidates = np.flatnonzero(~np.isin(flat, self._special))
        if not len(candidates):
            raise UserError("the tokenizer knows none of the words in a batch", "use another model or other text")
        size = max(1, round(len(candidates) * self._mask_ratio))
        positions = np.sort(generator.choice(candidates, size, replace=False))
        labels = flat[positions]
        fate = generator.random(size)
        flat[positions[fate < 0.8]] = self._mask
        chance = positions[fate >= 0.9]
        flat[chance] = generator.integers(0, self._vocabulary, len(chance))
        return {
            "input_ids": torch.from_numpy(flat.reshape(ids.shape)),
            "positions": torch.from_numpy(positions),
            "labels": torch.from_numpy(labels),
        }


@lru_cache(maxsize=4)
def _permutation(seed: int, stage: int, turn: int, count: int) -> IdArray:
    return np.random.default_rng((seed, stage, turn)).permutation(count)


def whole(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the only item of a list: it is a batch already."""
    (batch,) = batches
    return batch


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> tuple[int, int, int]:
    ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)
    if None in ids:
        raise UserError("this tokenizer lacks a [CLS], [SEP] or [MASK] token", "use an encoder checkpoint")
    return ids


def _read(path: Path, text_column: str | None, reading: Reading) -> list[str]:
    if path.suffix.lower() != ".txt":
        if path.is_file() and not file_type(path):
            raise UserError(
                f"cannot read `{path}`: unknown file type `{path.suffix}`",
                f"give one of {', '.join(('.txt', *FILE_TYPES))}",
            )
        return [joined(text) for text in read_texts(path, (text_column,) if text_column else None, reading)]
    if reading.no_header:
        raise UserError(f"`--no-header` is for CSV and TSV files, and `{path}` is none", "leave it out")
    is_utf8 = codecs.lookup(reading.encoding).name == "utf-8"
    try:  # splitlines would also split at rarer marks
        return path.read_text(encoding="utf-8-sig" if is_utf8 else reading.encoding).split("\n")
    except FileNotFoundError:
        raise UserError(f"no file `{path}`", "check the path") from None
    except UnicodeDecodeError as error:
        encoding = "UTF-8" if is_utf8 else reading.encoding
        raise UserError(f"`{path}` is not valid {encoding} at byte {error.start}", "give its `--encoding`") from None
    except UnicodeError as error:  # such as UTF-16 without its mark
        raise UserError(f"`{path}` is not valid {reading.encoding}: {error}", "give its `--encoding`") from None
    except OSError as error:
        raise UserError(f"cannot read `{path}`: {error.strerror}", "check the file") from None
