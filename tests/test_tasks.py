"""What a task means, by hand and beside scikit-learn and torch; and how sure a change of its score is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from exporter.int8.budget import critical_value, judge, paired_interval, texts_to_decide
from exporter.int8.paired import pair, ratio_of
from exporter.thresholds import USUAL, choose_thresholds
from trainer.tasks import MultiLabel, SingleLabel, Task, task_of

THREE = MultiLabel(3, (0.5, 0.2, 0.9))
LOGITS = np.float32([[0.1, -1.0, 2.0], [-3.0, -2.0, 3.0], [2.0, 2.0, -9.0]])


def matrix(rows: int, labels: int, seed: int = 0, share: float = 0.4) -> np.ndarray:
    return (np.random.default_rng(seed).random((rows, labels)) < share).astype(np.int64)


def test_a_label_is_given_from_its_own_threshold_on() -> None:
    np.testing.assert_allclose(THREE.probabilities(LOGITS), 1 / (1 + np.exp(-LOGITS)), rtol=1e-6)
    assert THREE.label_sets(THREE.answers(LOGITS)) == [(0, 1), (2,), (0, 1)]
    assert task_of("multi-label", 3).answers(np.float32([[0.0, -0.1, 0.1]])).tolist() == [[1, 0, 1]]  # 50 % is enough
    assert THREE.is_sure(LOGITS).tolist() == [False, False, True]  # 0.52 of 0.5, 0.95 of 0.9


def test_texts_without_any_label_have_scores() -> None:
    scores = THREE.scores(LOGITS, np.zeros((3, 3), dtype=np.int64))
    assert (scores["f1_micro"], scores["f1_macro"], scores["average_precision"]) == (0, 0, 0)
    assert scores["recalls"] == [None] * 3


@given(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=9))
def test_labels_become_answers_and_come_back(sets: list[set[int]]) -> None:
    task, labels = MultiLabel(5, (0.5,) * 5), [tuple(sorted(s)) for s in sets]
    assert task.label_sets(task.truth(labels)) == labels
    assert (np.array(task.targets(labels)) == task.truth(labels)).all()
    assert not task.differ(task.truth(labels), task.truth(labels)).any()


@pytest.mark.parametrize("task", [SingleLabel(4), MultiLabel(4, (0.5,) * 4)], ids=["single", "multi"])
def test_scores_losses_and_divergences_are_those_of_the_libraries(task: Task) -> None:
    rng = np.random.default_rng(1)
    logits, other = rng.normal(size=(2, 40, 4)).astype(np.float32)
    truth = rng.integers(4, size=40) if task.name == "single-label" else matrix(40, 4)
    answers, functional = task.answers(logits), torch.nn.functional
    if task.name == "single-label":
        loss = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth))
        p, q = (torch.from_numpy(x).double().log_softmax(-1) for x in (logits, other))
        divergence = (p.exp() * (p - q)).sum(-1).mean()
    else:
        loss = functional.binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(truth).float())
        p, q = (torch.from_numpy(x).double().sigmoid() for x in (logits, other))
        divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1).mean()
        assert ratio_of(task.parts(answers, truth)) == pytest.approx(f1_score(truth, answers, average="micro"))
    scores = task.scores(logits, truth)
    assert scores["f1_micro" if task.metric == "micro F1" else "accuracy"] == ratio_of(task.parts(answers, truth))
    assert scores["answers"] == [sum(i in labels for labels in task.label_sets(answers)) for i in range(4)]
    assert task.loss(logits, truth) == pytest.approx(float(loss), rel=1e-6)
    assert task.divergence(logits, other) == pytest.approx(float(divergence), rel=1e-5)
    assert task.divergence(logits, logits) == 0
    np.testing.assert_allclose(
        task.probabilities(task.logits(task.probabilities(logits))), task.probabilities(logits), atol=1e-6
    )


def test_weights_let_the_texts_with_a_label_count_as_much_as_those_without() -> None:
    loss = MultiLabel(3, (0.5,) * 3).training_loss([(0,), (0, 1), (0,), (0,)])
    logits, labels = torch.zeros(2, 3), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    # No text is without the first label, one of four has the second, none has the third.
    expected = np.log(2) * (0 + 3 + 1 + 3)
    assert float(loss({"logits": logits}, labels)) * 6 == pytest.approx(expected, rel=1e-6)
    assert float(loss({"logits": logits}, labels, num_items_in_batch=torch.tensor(12))) * 12 == pytest.approx(expected)


class TestThresholds:
    TRUTH = matrix(400, 2, share=0.3)

    def test_they_are_where_the_best_f1_is_and_apart_for_each_label(self) -> None:
        noise = np.random.default_rng(0).uniform(-0.05, 0.05, (400, 2))
        probabilities = np.float32(np.where(self.TRUTH == 1, [0.4, 0.8], [0.2, 0.6]) + noise)
        first, second = choose_thresholds(probabilities, self.TRUTH)
        assert 0.25 < first < 0.35
        assert 0.65 < second < 0.75

    def test_one_that_is_no_better_on_other_texts_is_not_taken(self) -> None:
        certain = np.float32(np.where(self.TRUTH == 1, 0.9, 0.3))  # the middle is at 0.6, and 0.5 does as well
        assert choose_thresholds(certain, self.TRUTH) == (USUAL, USUAL)

    def test_of_few_texts_none_is_chosen(self) -> None:
        truth = self.TRUTH * (self.TRUTH.cumsum(axis=0) <= [19, 20])
        probabilities = np.float32(np.where(truth == 1, 0.4, 0.2))
        first, second = choose_thresholds(probabilities, truth)
        assert (first, second) == (USUAL, pytest.approx(0.3))
        assert choose_thresholds(1 - probabilities, 1 - truth)[0] == USUAL


class TestPaired:
    @pytest.mark.parametrize("tried", [1, 12])
    def test_a_change_that_no_text_shows_is_as_unsure_as_for_one_label(self, tried: int) -> None:
        truth, task = matrix(1000, 3), MultiLabel(3, (0.5,) * 3)
        change = pair(task, truth, truth, truth).change(tried)
        assert (change.change, change.metric) == (0, "micro F1")
        assert (change.lower, change.upper) == pytest.approx(paired_interval(0, 0, 1000, critical_value(tried)))
        assert judge(change, 0.005) == ("within budget" if tried == 1 else "undecided")

    def test_how_many_texts_would_decide_is_told(self) -> None:
        truth, task = matrix(200, 3), MultiLabel(3, (0.5,) * 3)
        change = pair(task, truth, truth, truth).change()
        needed = texts_to_decide(change, 0.005)
        assert judge(change, 0.005) == "undecided"
        assert needed is not None
        assert 500 < needed < 20_000

    def test_a_loss_is_seen(self) -> None:
        truth, task = matrix(1000, 4), MultiLabel(4, (0.5,) * 4)
        after = truth.copy()
        after[:200, 0] ^= 1
        change = pair(task, truth, after, truth).change(tried=3)
        assert (change.harmful, change.helpful) == (200, 0)
        assert judge(change, 0.005) == "over budget"
        assert change.lower < change.change < change.upper < -0.02

    def test_more_candidates_widen_the_bootstrap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("exporter.int8.paired.counted_interval", lambda *_: (np.inf, -np.inf))
        rng, truth, task = np.random.default_rng(0), matrix(500, 4), MultiLabel(4, (0.5,) * 4)
        after = np.where(rng.random(truth.shape) < 0.05, 1 - truth, truth)
        one, twelve = (pair(task, truth, after, truth).change(tried) for tried in (1, 12))
        assert twelve.lower < one.lower < one.change < one.upper < twelve.upper

    @pytest.mark.parametrize("tried", [1, 4])
    def test_a_loss_of_the_budget_seldom_passes(self, tried: int) -> None:
        """One text in a hundred loses all of its labels: half a point of micro F1."""
        rng, task, passed = np.random.default_rng(5), MultiLabel(3, (0.5,) * 3), 0
        for trial in range(120):
            truth = matrix(1000, 3, seed=trial)
            after = truth * (rng.random((1000, 1)) >= 0.00995)
            passed += judge(pair(task, truth, after, truth).change(tried), 0.005) == "within budget"
        assert passed <= {1: 7, 4: 2}[tried]  # of 120, 2.5 % and 0.6 % are 3 and 1

    def test_intervals_hold_what_they_promise(self) -> None:
        """Half of the changes are losses: the true change is nothing, and 95 % of the intervals hold it."""
        rng, task, inside = np.random.default_rng(5), MultiLabel(3, (0.5,) * 3), 0
        for trial in range(120):
            truth = matrix(300, 3, seed=trial)
            before, after = (np.where(rng.random(truth.shape) < 0.02, 1 - truth, truth) for _ in range(2))
            change = pair(task, before, after, truth).change()
            inside += change.lower <= 0 <= change.upper
        assert inside >= 0.92 * 120
