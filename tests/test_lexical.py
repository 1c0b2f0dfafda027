"""A linear classifier of hashed tokens: what it reads, what it answers, and its file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import UserError
from trainer.lexical.features import features_of
from trainer.lexical.file import read_lexical, to_bytes
from trainer.lexical.fit import FLOOR, fit, objection, out_of_fold, same_texts
from trainer.lexical.model import BLOCK_TOKENS, Lexical, bits_for

TEXTS = [[[3, 4, 3]], [[]], [[9]], [[4, 3]]]


def test_a_text_has_its_tokens_and_their_pairs_with_damped_counts() -> None:
    features = features_of(TEXTS, 17)
    assert np.diff(features.starts).tolist() == [4, 0, 1, 3]  # 3 twice, 4, (3, 4), (4, 3)
    first = features.weights[:4]
    assert (first**2).sum() == pytest.approx(1)
    assert first.max() / first.min() == pytest.approx(1 + math.log(2))
    again = set(features.buckets[:4]) & set(features.buckets[5:])
    assert len(again) == 3  # 3, 4 and (4, 3) of the last text are in the first as well


def test_both_texts_of_a_pair_have_buckets_of_their_own() -> None:
    buckets = [set(features_of([parts], 17).buckets) for parts in ([[5, 6], [7]], [[7], [5, 6]])]
    assert not buckets[0] & buckets[1]


@given(st.lists(st.lists(st.integers(0, 250_000), max_size=30), min_size=1, max_size=8), st.integers(8, 17))
def test_texts_are_hashed_alone_as_together(texts: list[list[int]], bits: int) -> None:
    together = features_of([[text] for text in texts], bits)
    for i, text in enumerate(texts):
        own = slice(*together.starts[i : i + 2])
        alone = features_of([[text]], bits)
        np.testing.assert_array_equal(together.buckets[own], alone.buckets)
        np.testing.assert_array_equal(together.weights[own], alone.weights)


def learn(classes: int) -> tuple[Lexical, float]:
    rng = np.random.default_rng(0)
    labels = [i % classes for i in range(240)]
    texts = [[[*rng.integers(100, 140, 20), *rng.choice([label, label, 50], 6)]] for label in labels]
    fitted = fit(texts, labels, classes, seed=0)
    assert fitted.texts == len(texts)
    return fitted.lexical, fitted.accuracy


@pytest.mark.parametrize("classes", [2, 4])
def test_it_learns_what_words_say_and_tells_it_of_texts_that_it_has_not_seen(classes: int, tmp_path: Path) -> None:
    lexical, out_of_fold = learn(classes)
    assert out_of_fold > 0.95
    answers = lexical.logits([[[label] * 9] for label in range(classes)])
    assert answers.argmax(axis=1).tolist() == [*range(classes)]
    assert lexical.logits([[[]]]).shape == (1, classes)
    path = tmp_path / "lexical.safetensors"
    path.write_bytes(to_bytes(lexical))
    assert path.stat().st_size < 2**19 + 2**12
    np.testing.assert_array_equal(read_lexical(path, classes).logits(TEXTS), lexical.logits(TEXTS))
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(load_file(path)["weights"], lexical.weights)


def noise(count: int, words: int = 6) -> list[list[list[int]]]:
    rng = np.random.default_rng(1)
    return [[[*map(int, rng.integers(0, 10_000, words))]] for _ in range(count)]


def test_of_texts_that_stand_there_twice_nothing_is_learnt_for_the_other() -> None:
    """Labels are chance, and whoever knew a text's other copy would be right on all."""
    rng = np.random.default_rng(0)
    texts, truth = noise(300) * 2, np.tile(rng.integers(0, 2, 300), 2)
    assert fit(texts, truth.tolist(), 2, seed=0).accuracy < 0.6
    same = same_texts(texts)
    assert same[:300].tolist() == same[300:].tolist() == [*range(300)]
    logits = out_of_fold(texts, same, [(truth, 2)], seed=0)[0]
    np.testing.assert_allclose(logits[:300], logits[300:], atol=1e-5)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([200, 100], ""),
        ([200, 99], "299 texts are too few"),
        ([300, 1], "1 of 2 labels has more than one text"),
        ([300, 1, 1], "1 of 3 labels has more than one text"),
        ([300, 2, 1, 0], ""),
        ([4] * 64 + [60], "65 labels are too many"),
        ([5] * 64, ""),
        ([4] * 80, "80 labels are too many"),
    ],
)
def test_a_classifier_is_fitted_where_every_fold_leaves_something_to_learn(counts: list[int], reason: str) -> None:
    truth, texts = np.repeat(np.arange(len(counts)), counts), noise(sum(counts))
    assert objection(same_texts(texts), (truth, len(counts))) == reason
    if not reason and len(counts) < 10:
        fitted = fit(texts, truth.tolist(), len(counts), seed=0)
        assert 0 <= fitted.accuracy <= 1
        assert np.isfinite(fitted.loss)


def test_labels_of_few_texts_each_are_refused() -> None:
    truth, texts = np.arange(60).repeat(4), noise(240)
    assert objection(same_texts(texts), (truth, 60)) == "240 texts are too few"
    one = noise(301)
    assert objection(same_texts([*one, *one]), (np.arange(602) % 2, 2)) == ""
    assert objection(same_texts(noise(1) * 400), (np.arange(400) % 2, 2)) == "1 texts are too few"


def test_a_label_without_texts_is_never_answered_and_one_with_a_single_text_is_no_harm() -> None:
    truth = np.repeat([0, 1, 3], [150, 150, 1])
    texts = [[[*text[0], 20_000 + label]] for text, label in zip(noise(301), truth, strict=True)]
    fitted = fit(texts, truth.tolist(), 5, seed=0)
    logits = fitted.lexical.logits(texts)
    assert (logits[:, [2, 4]] == FLOOR).all()
    assert (logits.argmax(axis=1) == truth).mean() > 0.99
    assert fitted.accuracy == pytest.approx(300 / 301)


def test_what_training_never_saw_is_not_known() -> None:
    lexical = Lexical(np.zeros((2**17, 1), np.float16), np.zeros(1, np.float32))
    features = features_of([[[7, 8]], [[]]], 17)
    assert lexical.known(features).tolist() == [0, 0]
    lexical.weights[features_of([[[7]]], 17).buckets] = 1
    np.testing.assert_allclose(lexical.known(features), [1 / 3, 0])


def test_many_texts_are_hashed_in_blocks_and_one_by_one_where_they_are_long() -> None:
    rng = np.random.default_rng(0)
    lexical = Lexical(rng.normal(0, 1, (2**12, 3)).astype(np.float16), np.ones(3, np.float32))
    sizes = [0, 5, BLOCK_TOKENS - 5, 1, BLOCK_TOKENS + 1, BLOCK_TOKENS, 2, 0]
    texts = [([*rng.integers(5, 500, size)],) for size in sizes]
    logits, known = lexical.read(texts)
    features = features_of(texts, lexical.bits)
    np.testing.assert_allclose(logits, lexical.logits_of(features), rtol=1e-5)
    np.testing.assert_allclose(known, lexical.known(features), rtol=1e-5)
    np.testing.assert_array_equal(lexical.logits(texts), logits)
    assert [len(part) for part in lexical.read([])] == [0, 0]


def test_more_classes_have_fewer_buckets() -> None:
    assert [bits_for(classes) for classes in (2, 3, 4, 20)] == [17, 16, 16, 13]
    assert all(2 * classes * 2 ** bits_for(classes) <= 2**19 for classes in range(3, 2000))


def with_header(content: bytes, header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + content


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[:-2], "not in the file"),
        (lambda content: b"\0" * len(content), "does not begin"),
        (lambda content: content.replace(b'"F16"', b'"I16"'), "not F16"),
        (lambda content: content[:-4] + np.float32(np.nan).tobytes(), "not a finite number"),
        (lambda content: content[:-4] + np.float32(3e38).tobytes(), "a bias too large"),
        (lambda content: content + b"x" * 2**20, "cannot be read"),
        (
            lambda content: content.replace(b"[131072,1]", b"[0,1]     ").replace(b"[0,262144]", b"[0,0]     "),
            "buckets",
        ),
        (lambda content: with_header(content, b"[" * 4000), "cannot be read"),
        (lambda content: content.replace(b"[131072,1]", b"[131e999]"), "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(spoil: object, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "lexical.safetensors"
    lexical = Lexical(np.ones((2**17, 1), np.float16), np.zeros(1, np.float32))
    path.write_bytes(spoil(to_bytes(lexical)))  # type: ignore[operator]
    with pytest.raises(UserError, match=reason):
        read_lexical(path, 2)
    path.write_bytes(to_bytes(lexical))
    with pytest.raises(UserError, match="another number of classes"):
        read_lexical(path, 3)
