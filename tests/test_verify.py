"""Comparisons count what they say they count, and tolerances hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from exporter.artifacts import Comparison, Tolerance
from exporter.verify import (
    SAME_ANSWERS,
    SAME_NUMBERS,
    VerificationError,
    answers,
    check,
    choose_reviews,
    compare,
)
from trainer.data import Examples

REFERENCE = np.array([[2.0, 0.0], [0.0, 2.0], [0.1, 0.0], [0.0, 0.1]], dtype=np.float32)


def logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_a_comparison_by_hand() -> None:
    candidate = logits([0.0, 2.0], [0.0, 2.5], [0.0, 0.1], [0.1, 0.0])
    found = compare(REFERENCE, candidate, [0, 1, 1, 1], SAME_NUMBERS, names=("new", "old"))
    sure, near = (1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-0.1)))
    gaps = [2 * sure - 1, 1 / (1 + np.exp(-2.5)) - sure, 2 * near - 1, 2 * near - 1]
    assert (found.candidate, found.reference, found.reviews) == ("new", "old", 4)
    assert found.max_abs_logit == 2.0
    assert found.mean_abs_logit == pytest.approx((2 + 2 + 0 + 0.5 + 4 * 0.1) / 8)
    assert found.max_abs_probability == pytest.approx(max(gaps), abs=1e-6)
    assert found.mean_abs_probability == pytest.approx(np.mean(gaps), abs=1e-6)
    # The first (sure) and the fourth (near a tie) went wrong, the third came right.
    assert (found.flips_harmful, found.flips_helpful, found.flips_other, found.flips_sure) == (2, 1, 0, 1)


def test_a_flip_between_two_wrong_answers_is_neither_harmful_nor_helpful() -> None:
    found = compare(logits([9, 0, 0]), logits([0, 9, 0]), [2], SAME_NUMBERS, names=("b", "a"))
    assert (found.flips_harmful, found.flips_helpful, found.flips_other) == (0, 0, 1)


def same(tolerance: Tolerance) -> Comparison:
    return compare(REFERENCE, REFERENCE, [0, 1, 0, 1], tolerance, names=("b", "a"))


def test_equal_forms_pass_any_tolerance() -> None:
    check(same(Tolerance(max_abs_logit=0.0, mean_abs_probability=0.0)))


@pytest.mark.parametrize(
    ("change", "tolerance", "message"),
    [
        ({"max_abs_logit": 2e-3}, SAME_NUMBERS, "largest logit difference 0.002 on 4 reviews, tolerance 0.001"),
        ({"max_abs_logit": float("nan")}, SAME_NUMBERS, "largest logit difference nan"),
        ({"flips_sure": 1}, SAME_NUMBERS, "share of sure answers changed 0.25"),
        ({"mean_abs_probability": 0.06}, SAME_ANSWERS, "mean probability difference 0.06"),
        ({"mean_abs_probability": float("nan")}, SAME_ANSWERS, "mean probability difference nan"),
        ({"flips_sure": 1}, SAME_ANSWERS, "share of sure answers changed 0.25 on 4 reviews, tolerance 0.05"),
    ],
)
def test_beyond_tolerance_is_an_error(change: dict[str, float], tolerance: Tolerance, message: str) -> None:
    with pytest.raises(VerificationError) as error:
        check(replace(same(tolerance), **change))  # type: ignore[arg-type]
    assert "`b` is not the same classifier as `a`" in error.value.message
    assert message in error.value.message


def test_reviews_of_all_lengths_are_chosen() -> None:
    lengths = [7, 3, 9, 1, 5, 2, 8, 4, 6, 0]
    examples = Examples([str(length) for length in lengths], [0] * 10)
    assert choose_reviews(examples, lengths, 4).texts == ["0", "3", "6", "9"]
    assert sorted(choose_reviews(examples, lengths, 99).texts) == sorted(examples.texts)


def test_answers_are_taken_alone_and_in_batches_and_come_in_order() -> None:
    asked = []

    class Echo:
        def logits(self, texts: list[str]) -> np.ndarray:
            asked.append(len(texts))
            return logits(*([float(text)] for text in texts))

    texts = [str(i) for i in range(40)]
    assert answers(Echo(), texts)[:, 0].tolist() == list(map(float, texts))
    assert sorted(asked) == [1] * 20 + [4, 8, 8]
