"""What a task means: what a row of logits answers, what the loss is, and how right an answer is.

Nothing else looks at which logit is the largest. A text has one label, or any number of them; what both have in common
is that a score is a sum over texts divided by another one, which is all that the accuracy budget has to know.

It builds on numpy alone, so that a deployed classifier answers as the trainer did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from trainer.config import TaskName

if TYPE_CHECKING:
    import torch

Label = int | tuple[int, ...]
"""The index of a text's one label, or those of all that it has."""
Metric = Literal["accuracy", "micro F1"]
FloatArray = npt.NDArray[np.float32]
Answers = npt.NDArray[np.int64]
"""The index of each text's label, [texts]; or 1 for each label that a text has, [texts, classes]."""
BoolArray = npt.NDArray[np.bool_]

NO_LABEL = "no label"
"""What a person reads where a text has none."""
SURE = 0.6
"""From this probability on a classifier counts as sure of one label among several; below it a change is a near tie."""
SURE_MARGIN = 0.1
"""How far from its threshold a probability counts as sure, for a label that a text has or not."""
SMALLEST = 1e-12
"""Probabilities are kept above it, so that their logarithm is a number."""


class Task(Protocol):
    """What the logits of a classifier mean."""

    @property
    def classes(self) -> int:
        """How many labels there are."""

    @property
    def name(self) -> TaskName:
        """What flags and records call it."""

    @property
    def problem_type(self) -> str:
        """What transformers calls it."""

    @property
    def metric(self) -> Metric:
        """The score that an export must not lose."""

    def truth(self, labels: Sequence[Label]) -> Answers:
        """Return labels as answers."""

    def targets(self, labels: Sequence[Label]) -> list[Any]:
        """Return labels as a training step takes them, one for each text."""

    def probabilities(self, logits: npt.NDArray[Any]) -> FloatArray:
        """Return probabilities, [texts, classes]."""

    def logits(self, probabilities: FloatArray) -> FloatArray:
        """Return logits that have these probabilities."""

    def answers(self, logits: npt.NDArray[Any]) -> Answers:
        """Return what logits of [texts, classes] answer."""

    def label_sets(self, answers: Answers) -> list[tuple[int, ...]]:
        """Return the labels of each answer."""

    def differ(self, first: Answers, second: Answers) -> BoolArray:
        """Return for each text whether two answers differ, [texts]."""

    def is_sure(self, logits: FloatArray) -> BoolArray:
        """Return for each text whether its answer is more than a near tie, [texts]."""

    def parts(self, answers: Answers, truth: Answers) -> npt.NDArray[np.float64]:
        """Return what the metric is made of, [texts, 2]: it is the sum of the first column over that of the second."""

    def loss(self, logits: FloatArray, truth: Answers) -> float:
        """Return the mean negative log-likelihood of the truth, in nats: of a text's label, or of a label of a text."""

    def divergence(self, reference: FloatArray, candidate: FloatArray) -> float:
        """Return the mean Kullback-Leibler divergence of the candidate's probabilities from the reference's, in nats.

        Both are logits of the same texts, [texts, classes].
        """

    def choices(self, logits: FloatArray, truth: Answers) -> tuple[FloatArray, Answers]:
        """Return each choice that was made, as probabilities of its options and the index of the true one."""

    def scores(self, logits: FloatArray, truth: Answers) -> dict[str, Any]:
        """Return all scores: numbers by name, and of each label its recall and how often it was answered.

        A recall is None where no text has the label.
        """

    def headline(self, scores: Mapping[str, Any]) -> str:
        """Render the scores that say most."""

    def training_loss(self, labels: Sequence[Label]) -> Callable[..., torch.Tensor]:
        """Return the loss in which rare labels weigh as much as frequent ones, as `Trainer` takes it.

        `labels` are those of the training texts.
        """


def task_of(name: TaskName, classes: int, thresholds: Sequence[float] = ()) -> Task:
    """Return the task of that name among `classes` labels."""
    if name == "single-label":
        return SingleLabel(classes)
    return MultiLabel(classes, tuple(thresholds) or (0.5,) * classes)


def as_set(label: Label) -> tuple[int, ...]:
    """Return the labels of a text."""
    return (label,) if isinstance(label, int) else label


@dataclass(frozen=True)
class SingleLabel:
    """Each text has one of the labels."""

    classes: int
    name: TaskName = "single-label"
    problem_type: str = "single_label_classification"
    metric: Metric = "accuracy"

    def truth(self, labels: Sequence[Label]) -> Answers:
        """Return labels as answers, [texts]."""
        return np.asarray([label for text in labels for label in as_set(text)], dtype=np.int64)

    def targets(self, labels: Sequence[Label]) -> list[Any]:
        """Return the index of each label."""
        return list(labels)

    def probabilities(self, logits: npt.NDArray[Any]) -> FloatArray:
        """Return the softmax."""
        return np.asarray(np.exp(_log_softmax(logits)), dtype=np.float32)

    def logits(self, probabilities: FloatArray) -> FloatArray:
        """Return the logarithms."""
        return np.asarray(np.log(np.maximum(probabilities, SMALLEST)), dtype=np.float32)

    def answers(self, logits: npt.NDArray[Any]) -> Answers:
        """Return the index of the largest logit, [texts]."""
        return np.asarray(logits.argmax(axis=-1), dtype=np.int64)

    def label_sets(self, answers: Answers) -> list[tuple[int, ...]]:
        """Return the label of each answer."""
        return [(int(answer),) for answer in answers]

    def differ(self, first: Answers, second: Answers) -> BoolArray:
        """Return where the labels differ."""
        return np.asarray(first != second)

    def is_sure(self, logits: FloatArray) -> BoolArray:
        """Return where a label has a probability of 60 % or more."""
        return np.asarray(self.probabilities(logits).max(axis=-1) >= SURE)

    def parts(self, answers: Answers, truth: Answers) -> npt.NDArray[np.float64]:
        """Return 1 for a right answer, and 1 for each text."""
        return np.stack([answers == truth, np.ones(len(truth))], axis=1).astype(np.float64)

    def loss(self, logits: FloatArray, truth: Answers) -> float:
        """Return the cross-entropy."""
        return float(-_log_softmax(logits.astype(np.float64))[np.arange(len(truth)), truth].mean())

    def divergence(self, reference: FloatArray, candidate: FloatArray) -> float:
        """Return that of the distributions over the labels."""
        before, after = (_log_softmax(logits.astype(np.float64)) for logits in (reference, candidate))
        return float(np.maximum((np.exp(before) * (before - after)).sum(-1).mean(), 0))  # rounding can make it negative

    def choices(self, logits: FloatArray, truth: Answers) -> tuple[FloatArray, Answers]:
        """Return one choice a text, among all labels."""
        return self.probabilities(logits), truth

    def scores(self, logits: FloatArray, truth: Answers) -> dict[str, Any]:
        """Return accuracy, weighted and macro F1."""
        from sklearn.metrics import accuracy_score, f1_score, recall_score

        answers, present = self.answers(logits), sorted(set(truth.tolist()))
        recalls = recall_score(truth, answers, labels=range(self.classes), average=None, zero_division=0)
        return {
            "accuracy": float(accuracy_score(truth, answers)),
            "f1_weighted": float(f1_score(truth, answers, average="weighted")),
            "f1_macro": float(f1_score(truth, answers, average="macro", labels=present)),
            "recalls": [float(recall) if i in present else None for i, recall in enumerate(recalls)],
            "answers": np.bincount(answers, minlength=self.classes).tolist(),
        }

    def headline(self, scores: Mapping[str, Any]) -> str:
        """Render accuracy and weighted F1."""
        return f"accuracy {scores['accuracy']:.1%}, weighted F1 {scores['f1_weighted']:.1%}"

    def training_loss(self, labels: Sequence[Label]) -> Callable[..., torch.Tensor]:
        """Return the cross-entropy in which each text has the weight of its label, on average 1."""
        import torch

        counts = np.bincount(self.truth(labels), minlength=self.classes)
        weights = torch.tensor([len(labels) / (np.count_nonzero(counts) * n) if n else 0.0 for n in counts])

        def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
            logits = outputs["logits"].float()
            total = torch.nn.functional.cross_entropy(logits, labels, weights.to(logits), reduction="sum")
            return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

        return loss


@dataclass(frozen=True)
class MultiLabel:
    """Each text has any number of the labels, each for itself: those whose probability reaches its threshold."""

    classes: int
    thresholds: tuple[float, ...]
    name: TaskName = "multi-label"
    problem_type: str = "multi_label_classification"
    metric: Metric = "micro F1"

    def truth(self, labels: Sequence[Label]) -> Answers:
        """Return labels as answers, [texts, classes]."""
        answers = np.zeros((len(labels), self.classes), dtype=np.int64)
        for row, label in enumerate(labels):
            answers[row, list(as_set(label))] = 1
        return answers

    def targets(self, labels: Sequence[Label]) -> list[Any]:
        """Return 1.0 or 0.0 for each label."""
        return list(self.truth(labels).astype(float).tolist())

    def probabilities(self, logits: npt.NDArray[Any]) -> FloatArray:
        """Return the sigmoid of each."""
        return np.asarray(np.exp(-np.logaddexp(0, -logits.astype(np.float64))), dtype=np.float32)

    def logits(self, probabilities: FloatArray) -> FloatArray:
        """Return the log-odds."""
        kept = np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST, 1 - SMALLEST)
        return np.asarray(np.log(kept) - np.log1p(-kept), dtype=np.float32)

    def answers(self, logits: npt.NDArray[Any]) -> Answers:
        """Return 1 for each label whose probability reaches its threshold, [texts, classes]."""
        return np.asarray(self.probabilities(logits) >= np.asarray(self.thresholds, dtype=np.float32), dtype=np.int64)

    def label_sets(self, answers: Answers) -> list[tuple[int, ...]]:
        """Return the labels of each answer, perhaps none."""
        return [tuple(np.flatnonzero(row).tolist()) for row in answers]

    def differ(self, first: Answers, second: Answers) -> BoolArray:
        """Return where any label differs."""
        return np.asarray((first != second).any(axis=-1))

    def is_sure(self, logits: FloatArray) -> BoolArray:
        """Return where no label is near its threshold."""
        gaps = np.abs(self.probabilities(logits) - np.asarray(self.thresholds, dtype=np.float32))
        return np.asarray((gaps >= SURE_MARGIN).all(axis=-1))

    def parts(self, answers: Answers, truth: Answers) -> npt.NDArray[np.float64]:
        """Return twice the labels that are right, and the labels answered and true together: their ratio is F1."""
        return np.stack([2 * (answers & truth).sum(-1), answers.sum(-1) + truth.sum(-1)], axis=1).astype(np.float64)

    def loss(self, logits: FloatArray, truth: Answers) -> float:
        """Return the binary cross-entropy, over all labels of all texts."""
        signs = np.where(truth == 1, -1.0, 1.0)
        return float(np.logaddexp(0, signs * logits.astype(np.float64)).mean())

    def divergence(self, reference: FloatArray, candidate: FloatArray) -> float:
        """Return that of each label's two outcomes, summed over the labels."""
        total = np.zeros(reference.shape)
        for sign in (-1.0, 1.0):  # with the label, and without it
            before, after = (-np.logaddexp(0, sign * x.astype(np.float64)) for x in (reference, candidate))
            total += np.exp(before) * (before - after)
        return float(np.maximum(total.sum(-1).mean(), 0))  # rounding can make it negative

    def choices(self, logits: FloatArray, truth: Answers) -> tuple[FloatArray, Answers]:
        """Return one choice for each label of each text: not to give it, or to give it."""
        given = self.probabilities(logits).reshape(-1)
        return np.stack([1 - given, given], axis=1), truth.reshape(-1)

    def scores(self, logits: FloatArray, truth: Answers) -> dict[str, Any]:
        """Return F1 in its three kinds, average precision, and how often all labels of a text are right."""
        from sklearn.metrics import accuracy_score, average_precision_score, f1_score, recall_score

        answers, present = self.answers(logits), np.flatnonzero(truth.any(axis=0))
        recalls = recall_score(truth, answers, average=None, zero_division=0)
        kinds: tuple[Literal["micro", "weighted"], ...] = ("micro", "weighted")
        f1 = {f"f1_{kind}": float(f1_score(truth, answers, average=kind, zero_division=0)) for kind in kinds}
        by_label = f1_score(truth, answers, average=None, zero_division=0)
        precisions = [average_precision_score(truth[:, i], logits[:, i]) for i in present]
        return {
            "accuracy": float(accuracy_score(truth, answers)),
            **f1,
            "f1_macro": float(by_label[present].mean()) if len(present) else 0.0,
            "average_precision": float(np.mean(precisions)) if len(present) else 0.0,
            "recalls": [float(recall) if i in present else None for i, recall in enumerate(recalls)],
            "answers": answers.sum(axis=0).tolist(),
        }

    def headline(self, scores: Mapping[str, Any]) -> str:
        """Render micro and macro F1 and average precision."""
        names = {"f1_micro": "micro F1", "f1_macro": "macro F1", "average_precision": "average precision"}
        return ", ".join(f"{name} {scores[key]:.1%}" for key, name in names.items())

    def training_loss(self, labels: Sequence[Label]) -> Callable[..., torch.Tensor]:
        """Return the binary cross-entropy in which the texts with a label weigh as much as those without."""
        import torch

        with_label = self.truth(labels).sum(axis=0)
        weights = torch.tensor([(len(labels) - n) / n if n else 1.0 for n in with_label.tolist()])

        def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
            logits = outputs["logits"].float()
            total = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, labels, pos_weight=weights.to(logits), reduction="sum"
            )
            return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

        return loss


def _log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the logarithms of the probabilities, along the last axis; a probability itself may be 0."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
