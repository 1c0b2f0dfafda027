"""The encoder gives what transformers gives, and keeps the tokens that its truncation rule names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from toys import WORDS, make_texts
from transformers import AutoTokenizer

from trainer.config import Truncation
from trainer.encoding import Encoder
from trainer.errors import UserError


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
    ids, mask = encoder(checkpoint, 64).pad(encoder(checkpoint, 64).encode(["soup", "soup bread salt"]))
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


def test_a_tokenizer_without_special_tokens_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    with pytest.raises(UserError, match="no special token"):
        encoder(tmp_path, 8)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no `tokenizer.json`"):
        encoder(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        encoder(tmp_path, 8)
