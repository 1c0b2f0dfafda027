"""The encoder gives what transformers gives, and keeps the tokens that its truncation rule names."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from toys import WORDS, make_texts
from transformers import AutoTokenizer

from trainer.config import Truncation
from trainer.errors import UserError
from trainer.text.encoding import Encoder
from trainer.text.tokenizing import TextTokenizer, TokenizerError, within


def encoder(folder: Path, max_length: int, truncation: Truncation = "head") -> Encoder:
    return Encoder.load(folder, max_length, truncation, pad_token_id=0)


@pytest.mark.parametrize("max_length", [4, 9, 64])
def test_head_is_what_transformers_does(checkpoint: Path, max_length: int) -> None:
    texts = ["", "soup", "unheard of", *(text for text, _ in make_texts(20))]
    theirs = AutoTokenizer.from_pretrained(checkpoint)(texts, truncation=True, max_length=max_length)["input_ids"]
    assert [e.ids for e in encoder(checkpoint, max_length).encode(texts)] == theirs


@given(words=st.lists(st.sampled_from(WORDS), max_size=40), max_length=st.integers(4, 30))
def test_each_rule_keeps_its_tokens(checkpoint: Path, words: list[str], max_length: int) -> None:
    text, room = " ".join(words), max_length - 2
    body = encoder(checkpoint, 64).encode([text])[0].ids[1:-1]
    quarter = round(room / 4)
    kept = {"head": body[:room], "tail": body[-room:], "head-tail": body[:quarter] + body[quarter - room :]}
    for rule, tokens in kept.items():
        (encoded,) = encoder(checkpoint, max_length, rule).encode([text])
        assert encoded.truncated == (len(body) > room)
        assert encoded.ids == [2, *(tokens if encoded.truncated else body), 3]


def test_padding_is_masked_and_on_the_right(checkpoint: Path) -> None:
    batch = encoder(checkpoint, 64).pad(encoder(checkpoint, 64).encode(["soup", "soup bread salt"]))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert not batch["token_type_ids"].any()
    assert ids.shape == mask.shape == (2, 5)
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert np.all(ids[mask == 0] == 0)


def test_special_tokens_come_from_the_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] [CLS] $A [SEP] [MASK] [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3), ("[MASK]", 4)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (encoded,) = encoder(tmp_path, 8, "tail").encode(["soup bread salt oven"])
    assert [*encoded.ids[:2], *encoded.ids[-3:]] == [2, 2, 3, 4, 3]
    assert len(encoded) == 8


def test_a_limit_that_the_special_tokens_fill_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="special tokens"):
        encoder(checkpoint, 2)


def test_without_special_tokens_a_text_is_its_own_and_an_empty_one_is_padding(checkpoint: Path, tmp_path: Path) -> None:
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    bare = encoder(tmp_path, 4)
    texts = ["soup bread salt", ""]
    assert [e.ids for e in bare.encode(texts)] == [encoder(checkpoint, 9).encode(texts)[0].ids[1:-1], [0]]
    assert [len(bare.resize(e, 6)) for e in bare.encode(texts)] == [6, 6]
    assert bare.encode(["soup " * 5])[0].truncated


def test_a_tokenizer_that_knows_no_letter_is_refused(tmp_path: Path) -> None:
    Tokenizer(models.BPE({}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="knows no letter"):
        encoder(tmp_path, 8)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no `tokenizer.json`"):
        encoder(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        encoder(tmp_path, 8)


# --- long texts are cut before they are tokenized

FRAGMENTS = [
    "a",
    "good",
    " ",
    "  ",
    "\n",
    "\t",
    "#",
    ".",
    "[MASK]",
    " <mask> ",
    "[SEP",
    "é",
    "e\u0301",
    "\u0301",
    "中",
    "文",
]
FRAGMENTS += [
    "\x00",
    "\u200b",
    "x" * 120,
    "x" * 90,
    "İ",
    "ΑΣ",
    "1",
    "'s",
    "\u00a0",
    "\u3000",
    "\r\n",
    "\u1100\u1161",
    "ß",
]
NORMALIZERS: list[Any] = [
    None,
    normalizers.BertNormalizer(),
    normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=False),
    normalizers.NFKC(),
    normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
]
WORDWISE = [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit()]


def word_piece(normalizer: Any, pre_tokenizer: Any) -> Tokenizer:
    pieces = ["[UNK]", "[MASK]", "[SEP]", *"ago1xs#.'中文", *(f"##{c}" for c in "agodxs1"), "good", "e", "i", "##e"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.add_special_tokens(["[MASK]", AddedToken("<mask>", lstrip=True, rstrip=True), "[SEP]"])
    return tokenizer


def byte_level(normalizer: Any, *, add_prefix_space: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" good a good 's xxxx"] * 5, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), "[MASK]"])
    return tokenizer


PROVED = [word_piece(normalizer, splitter) for normalizer in NORMALIZERS for splitter in WORDWISE]


def charsmap(rule: str) -> bytes:
    """Return SentencePiece's own normalization of this name."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["a good mask"] * 9), model_writer=model, vocab_size=14, normalization_rule_name=rule,
        hard_vocab_limit=False, minloglevel=9,
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    return bytes(proto.normalizer_spec.precompiled_charsmap)


def sentence_piece(normalizer: Any, *splitters: Any) -> Tokenizer:
    words = ["▁a", "▁good", "a", "g", "o", "▁", "d", "x", "good", "▁中", "e", "s", "1"]
    pieces = [("<unk>", 0.0), *((word, -float(i)) for i, word in enumerate(words))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitters[0] if len(splitters) == 1 else pre_tokenizers.Sequence(list(splitters))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), "[MASK]"])
    return tokenizer


TWO_SPACES = Regex(" {2,}")
NMT, NFKC_CF = (normalizers.Precompiled(charsmap(rule)) for rule in ("nmt_nfkc", "nfkc_cf"))
METASPACE = pre_tokenizers.Metaspace()
SENTENCE_PIECES = [
    sentence_piece(normalizers.Sequence([NMT, normalizers.Replace(TWO_SPACES, " ")]), METASPACE),
    sentence_piece(normalizers.Sequence([NMT]), pre_tokenizers.WhitespaceSplit(), METASPACE),
    sentence_piece(
        normalizers.Sequence([normalizers.Strip(left=False), normalizers.Replace(TWO_SPACES, "▁")]),
        pre_tokenizers.Metaspace(prepend_scheme="first"),
    ),
    sentence_piece(
        normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), NFKC_CF]),
        pre_tokenizers.Metaspace(prepend_scheme="never"),
    ),
    sentence_piece(None, METASPACE),
]
"""As XLM-R, T5, DeBERTa and ALBERT have them."""
PROVED += SENTENCE_PIECES
PROVED += [byte_level(n, add_prefix_space=add) for n in (None, normalizers.NFC()) for add in (True, False)]


@settings(max_examples=1000, deadline=None)
@given(
    tokenizer=st.sampled_from(PROVED),
    parts=st.lists(st.sampled_from(FRAGMENTS) | st.characters(codec="utf-8"), max_size=60),
    piece=st.integers(2, 40),
    room=st.integers(1, 20),
    share=st.floats(0, 1),
)
def test_a_text_read_from_its_ends_has_the_tokens_of_the_whole(
    tokenizer: Tokenizer, parts: list[str], piece: int, room: int, share: float
) -> None:
    text, tail = "".join(parts), round(room * share)
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    (found,) = TextTokenizer(tokenizer, piece).tokens([text], room, tail)
    if len(whole) <= room:
        assert found == whole
    else:
        assert len(found) > room
        assert found[:room] == whole[:room]
        assert not tail or found[-tail:] == whole[-tail:]


@pytest.mark.parametrize("truncation", ["head", "tail", "head-tail"])
@pytest.mark.parametrize("filling", [" ", "x", "\n\n", "中"])
def test_a_text_of_megabytes_is_cut_as_the_whole_would_be(
    checkpoint: Path, truncation: Truncation, filling: str
) -> None:
    text = "soup bread " * 3 + filling * 300_000 + " salt oven" * 3
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    body = tokenizer.encode(text, add_special_tokens=False).ids
    for length in (8, 12, 24):
        room = length - 2
        head = {"head": room, "tail": 0, "head-tail": round(room / 4)}[truncation]
        (encoded,) = encoder(checkpoint, length, truncation).encode([text])
        assert encoded.truncated == (len(body) > room)
        assert encoded.ids[1:-1] == (body[:head] + body[len(body) - room + head :] if encoded.truncated else body)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": normalizers.Replace("a b", "c")},
        {"normalizer": normalizers.Strip()},
        {"pre_tokenizer": None},
    ],
)
def test_without_a_proof_the_whole_text_is_tokenized(change: dict[str, Any]) -> None:
    tokenizer = word_piece(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer())
    for name, value in change.items():
        setattr(tokenizer, name, value)
    text = "a good a b " * 20
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert list(TextTokenizer(tokenizer, 4).tokens([text], 5, 2)) == [whole]


@pytest.mark.parametrize(
    "tokenizer",
    [
        sentence_piece(None, pre_tokenizers.Metaspace(split=False)),
        sentence_piece(normalizers.Replace("a", " a"), METASPACE),
        sentence_piece(normalizers.Replace("a b", "c"), METASPACE),
        sentence_piece(normalizers.Strip(), METASPACE),
        sentence_piece(normalizers.Prepend("a"), METASPACE),
    ],
)
def test_without_a_proof_sentence_piece_gets_the_whole_text(tokenizer: Tokenizer) -> None:
    text = "a good a b " * 20
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert list(TextTokenizer(tokenizer, 4).tokens([text], 5, 2)) == [whole]


@pytest.mark.parametrize("tokenizer", PROVED)
def test_with_a_proof_the_middle_is_left_out(tokenizer: Tokenizer) -> None:
    (found,) = TextTokenizer(tokenizer, 4).tokens(["a good a go " * 2000], 5, 2)
    assert 5 < len(found) < 50


def test_a_tokenizer_that_takes_too_long_is_an_error() -> None:
    stop = threading.Event()
    with pytest.raises(TokenizerError, match="no answer within"):
        within(0.05, stop.wait)
    stop.set()
    assert within(60, lambda: 5) == 5


def test_a_tokenizer_that_fails_is_an_error() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="b"))  # noqa: S106
    with pytest.raises(TokenizerError, match="the tokenizer fails"):
        list(TextTokenizer(tokenizer).tokens(["c"], 5, 0))
