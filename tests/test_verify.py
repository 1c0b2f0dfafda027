"""Comparisons count what they say they count, the plan covers the grid, and tolerances hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.proof.verify import (
    SAME_ANSWERS,
    SAME_NUMBERS,
    Answers,
    VerificationError,
    ask,
    check,
    choose_examples,
    compare,
    plan,
)
from exporter.records import Comparison, Tolerance
from trainer.data import Examples
from trainer.errors import UserError
from trainer.tasks import SingleLabel
from trainer.text.encoding import Encoded, Encoder

TASK = SingleLabel(2)
REFERENCE = np.array([[2.0, 0.0], [0.0, 2.0], [0.1, 0.0], [0.0, 0.1]], dtype=np.float32)


def logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def answers(rows: np.ndarray, texts: Sequence[int] | None = None) -> Answers:
    count = len(rows)
    return Answers(rows, np.arange(count) + 1, np.arange(count) * 10, np.array(texts or range(count)))


def test_a_comparison_by_hand() -> None:
    candidate = logits([0.0, 2.0], [0.0, 2.5], [0.0, 0.1], [0.1, 0.0])
    found = compare(
        answers(REFERENCE), answers(candidate), np.array([0, 1, 1, 1]), TASK, SAME_NUMBERS, names=("new", "old")
    )
    sure, near = (1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-0.1)))
    gaps = [2 * sure - 1, 1 / (1 + np.exp(-2.5)) - sure, 2 * near - 1, 2 * near - 1]
    assert (found.candidate, found.reference, found.texts, found.pieces) == ("new", "old", 4, 0)
    assert found.max_abs_logit == 2.0
    assert (found.worst_batch_size, found.worst_length) == (1, 0)
    assert found.mean_abs_logit == pytest.approx((2 + 2 + 0 + 0.5 + 4 * 0.1) / 8)
    assert found.max_abs_probability == pytest.approx(max(gaps), abs=1e-6)
    assert found.mean_abs_probability == pytest.approx(np.mean(gaps), abs=1e-6)
    # The first (sure) and the fourth (near a tie) went wrong, the third came right.
    assert (found.flips_harmful, found.flips_helpful, found.flips_other, found.flips_sure) == (2, 1, 0, 1)


def test_pieces_of_texts_count_for_numbers_and_not_for_answers() -> None:
    before, after = (answers(rows, [1, -1]) for rows in (logits([2, 0], [2, 0]), logits([2, 0], [0, 3])))
    found = compare(before, after, np.array([1, 0]), TASK, SAME_NUMBERS, names=("b", "a"))
    assert (found.texts, found.pieces, found.flips_harmful + found.flips_helpful) == (1, 1, 0)
    assert (found.max_abs_logit, found.worst_batch_size, found.worst_length) == (3.0, 2, 10)


def test_divergence_is_kullback_and_leiblers() -> None:
    before, after = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([[0.6, 0.4], [0.5, 0.5]])
    expected = (0.8 * np.log(0.8 / 0.6) + 0.2 * np.log(0.2 / 0.4)) / 2
    assert TASK.divergence(np.log(before), np.log(after)) == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(TASK.divergence(logits([0, 500]), logits([500, 0])))


def test_a_flip_between_two_wrong_answers_is_neither_harmful_nor_helpful() -> None:
    found = compare(
        answers(logits([9, 0, 0])),
        answers(logits([0, 9, 0])),
        np.array([2]),
        SingleLabel(3),
        SAME_NUMBERS,
        names=("b", "a"),
    )
    assert (found.flips_harmful, found.flips_helpful, found.flips_other) == (0, 0, 1)


def same(tolerance: Tolerance) -> Comparison:
    return compare(answers(REFERENCE), answers(REFERENCE), np.array([0, 1, 0, 1]), TASK, tolerance, names=("b", "a"))


def test_equal_steps_pass_any_tolerance() -> None:
    check(same(Tolerance(max_abs_logit=0.0, mean_abs_probability=0.0)))


@pytest.mark.parametrize(
    ("change", "tolerance", "message"),
    [
        (
            {"max_abs_logit": 2e-3, "worst_batch_size": 3, "worst_length": 17},
            SAME_NUMBERS,
            "largest logit difference 0.002 in a batch of 3, 17 tokens long, tolerance 0.001",
        ),
        ({"max_abs_logit": float("nan")}, SAME_NUMBERS, "largest logit difference nan"),
        ({"flips_sure": 1}, SAME_NUMBERS, "share of sure answers changed 0.5"),
        ({"mean_abs_probability": 0.06}, SAME_ANSWERS, "mean probability difference 0.06"),
        ({"mean_abs_probability": float("nan")}, SAME_ANSWERS, "mean probability difference nan"),
        ({"flips_sure": 1}, SAME_ANSWERS, "share of sure answers changed 0.5 of 2, tolerance 0.05"),
    ],
)
def test_beyond_tolerance_is_an_error(change: dict[str, float], tolerance: Tolerance, message: str) -> None:
    with pytest.raises(VerificationError) as error:
        check(replace(same(tolerance), **change))  # type: ignore[arg-type]
    assert "`b` is not the same classifier as `a`" in error.value.message
    assert message in error.value.message


def test_texts_of_all_lengths_are_chosen() -> None:
    lengths = [7, 3, 9, 1, 5, 2, 8, 4, 6, 0]
    examples = Examples([str(length) for length in lengths], [0] * 10)
    assert choose_examples(examples, lengths, 4).texts == ["0", "3", "6", "9"]
    assert sorted(choose_examples(examples, lengths, 99).texts) == sorted(examples.texts)


def test_the_plan_has_every_text_once_and_the_grid_from_one_token_to_the_most(checkpoint: Path) -> None:
    encoder = Encoder.load(checkpoint, 24, "head", 0)
    batches = plan(encoder, ["soup", "a soup", "bread and cheese", "oven salt the a of and we saw"] * 5)
    assert sorted(text for batch in batches for text in batch.indices) == list(range(20))
    assert sorted(len(batch.encoded) for batch in batches if batch.indices) == [1] * 10 + [2, 8]
    shapes = {(len(batch.encoded), batch.length) for batch in batches if not batch.indices}
    assert shapes == {(size, tokens + 2) for size in (1, 3, 16) for tokens in (1, 2, 4, 8, 16, 22)}
    ragged = [batch for batch in batches if len({len(e) for e in batch.encoded}) > 1 and not batch.indices]
    assert {min(len(e) for e in batch.encoded) for batch in ragged} == {3}  # [CLS], a token, [SEP]


class Echo:
    """Answers with each text's first own token."""

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> np.ndarray:  # noqa: ARG002
        return logits(*([float(e.ids[1]), 0.0] for e in batch))


def test_answers_come_in_the_order_of_the_plan_with_where_they_come_from(checkpoint: Path) -> None:
    batches = plan(Encoder.load(checkpoint, 24, "head", 0), ["soup bread", "a", "cheese"])
    found = ask("echo", Echo().run, batches, 2)
    assert found.logits[:, 0].tolist() == [e.ids[1] for batch in batches for e in batch.encoded]
    assert found.indices.tolist()[:3] == [0, 2, 1]
    assert set(found.indices.tolist()[3:]) == {-1}
    assert found.lengths.tolist() == [batch.length for batch in batches for _ in batch.encoded]
    assert found.batch_sizes.tolist() == [len(batch.encoded) for batch in batches for _ in batch.encoded]


@pytest.mark.parametrize("rows", [logits([np.nan, 0]), logits([np.inf, 0]), logits([0, 0], [0, 0]), logits([0])])
def test_what_is_no_finite_answer_is_refused(checkpoint: Path, rows: np.ndarray) -> None:
    class Odd:
        def run(self, *_: object) -> np.ndarray:
            return rows

    batches = plan(Encoder.load(checkpoint, 24, "head", 0), ["soup"])
    with pytest.raises(VerificationError, match="`odd` returned NaN, infinity or another shape than 2 logits"):
        ask("odd", Odd().run, batches, 2)


def test_a_step_that_cannot_answer_a_shape_is_named_with_it(checkpoint: Path) -> None:
    class Narrow:
        def run(self, batch: Sequence[Encoded], length: int | None = None) -> np.ndarray:  # noqa: ARG002
            if len(batch) > 1:
                raise UserError("no such shape", "")
            return Echo().run(batch)

    batches = plan(Encoder.load(checkpoint, 24, "head", 0), ["soup"])
    with pytest.raises(VerificationError, match="`narrow` cannot answer 3 texts of up to 3 tokens: no such shape"):
        ask("narrow", Narrow().run, batches, 2)
