"""Scores are what they say they are, alone and against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from bench.judge.accuracy import score
from exporter.int8.budget import paired_interval
from exporter.int8.paired import pair
from trainer.tasks import SingleLabel


def test_changes_by_hand() -> None:
    rows = ([0, 0, 0, 1, 0], [0, 1, 1, 0, 1], [0, 0, 1, 1, 2])
    paired = pair(SingleLabel(3), *map(np.asarray, rows))
    assert (paired.harmful, paired.helpful) == (2, 1)


class TestScores:
    LOGITS = np.log(np.float32([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]))

    def test_they_agree_with_scikit_learn(self) -> None:
        scores = score("x", self.LOGITS, [0, 1, 2, 2], "abc", [5, 6, 7, 8], SingleLabel(3), reference=None)
        assert (scores.texts, scores.predicted) == (4, ((0,), (1,), (0,), (2,)))
        assert scores.accuracy == pytest.approx(3 / 4)
        assert scores.f1_weighted == pytest.approx((2 / 3 + 1 + 2 * 2 / 3) / 4)
        assert scores.loss == pytest.approx(-np.log([0.7, 0.6, 0.2, 0.6]).mean(), abs=1e-6)
        assert [(c.label, c.texts, c.precision, c.recall) for c in scores.classes] == [
            ("a", 1, 0.5, 1), ("b", 1, 1, 1), ("c", 2, 1, 0.5)
        ]  # fmt: skip
        assert (scores.change, scores.mcnemar_p) == (None, None)

    def test_a_confident_mistake_has_its_full_loss(self) -> None:
        scores = score("x", np.float32([[0, 40], [0, 1]]), [0, 1], "ab", [1, 2], SingleLabel(2), reference=None)
        assert scores.loss == pytest.approx((40 + np.log(1 + np.exp(-1))) / 2)

    def test_changes_are_counted_against_the_reference(self) -> None:
        scores = score(
            "x",
            self.LOGITS,
            [0, 1, 2, 2],
            "abc",
            [5, 6, 7, 8],
            SingleLabel(3),
            reference=np.array([1, 1, 2, 2]),
            tried=1,
        )
        assert scores.change
        assert (scores.change.harmful, scores.change.helpful, scores.mcnemar_p) == (1, 1, 1.0)
        assert (scores.change.lower, scores.change.upper) == paired_interval(1, 1, 4, 1.959963984540054)

    def test_lengths_are_cut_into_parts_of_equally_many_texts(self) -> None:
        logits = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0, 1, 0, 1]]
        scores = score("x", logits, [0, 1] * 4, "ab", [3, 3, 9, 10, 20, 21, 30, 40], SingleLabel(2), reference=None)
        assert [(part.least, part.most, part.texts) for part in scores.lengths] == [
            (3, 9, 3), (10, 20, 2), (21, 30, 2), (31, 40, 1)
        ]  # fmt: skip
        assert [part.score for part in scores.lengths] == pytest.approx([1 / 3, 1, 1, 1])
