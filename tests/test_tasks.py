"""What a task means, by hand and beside scikit-learn and torch; and how sure a change of its score is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from exporter.int8.budget import judge, texts_to_decide
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
    def test_they_are_where_the_best_f1_is_and_apart_for_each_label(self) -> None:
        rng = np.random.default_rng(0)
        truth = matrix(400, 2, share=0.3)
        probabilities = np.float32(np.where(truth == 1, [0.4, 0.8], [0.2, 0.6]) + rng.uniform(-0.05, 0.05, (400, 2)))
        first, second = choose_thresholds(probabilities, truth)
        assert 0.25 < first < 0.35
        assert 0.65 < second < 0.75

    def test_they_stay_as_usual_where_others_would_be_luck(self) -> None:
        truth = matrix(60, 3, share=0.3)
        few = truth * (np.arange(60) < 9)[:, None]
        assert choose_thresholds(np.float32(np.where(few == 1, 0.4, 0.2)), few) == (USUAL,) * 3
        clear = np.float32(np.where(truth == 1, 0.9, 0.1))
        assert choose_thresholds(clear, truth) == (USUAL,) * 3


class TestPaired:
    def test_a_change_that_no_text_shows_is_as_unsure_as_for_one_label(self) -> None:
        truth, task = matrix(2000, 3), MultiLabel(3, (0.5,) * 3)
        change = pair(task, truth, truth, truth).change()
        assert change.change == 0
        assert -0.003 < change.lower < -0.001
        assert change.metric == "micro F1"
        assert judge(change, 0.005) == "within budget"
        few = pair(task, truth[:100], truth[:100], truth[:100]).change()
        assert judge(few, 0.005) == "undecided"
        needed = texts_to_decide(few, 0.005)
        assert needed is not None
        assert 500 < needed < 10_000

    def test_a_loss_is_seen(self) -> None:
        truth, task = matrix(1000, 4), MultiLabel(4, (0.5,) * 4)
        after = truth.copy()
        after[:200, 0] ^= 1
        change = pair(task, truth, after, truth).change(tried=3)
        assert (change.harmful, change.helpful) == (200, 0)
        assert judge(change, 0.005) == "over budget"
        assert change.lower < change.change < change.upper < -0.02

    def test_intervals_hold_what_they_promise(self) -> None:
        """Half of the changes are losses: the true change is nothing, and 95 % of the intervals hold it."""
        rng, task, inside = np.random.default_rng(5), MultiLabel(3, (0.5,) * 3), 0
        for trial in range(200):
            truth = matrix(300, 3, seed=trial)
            before, after = (np.where(rng.random(truth.shape) < 0.02, 1 - truth, truth) for _ in range(2))
            change = pair(task, before, after, truth).change()
            inside += change.lower <= 0 <= change.upper
        assert inside >= 0.93 * 200
