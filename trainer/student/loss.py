"""What a student is asked for: its teacher's probabilities, and the labels where there are some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everywhere

from trainer.config import TaskName
from trainer.training.graphs import GraphTrainer

LABEL_SHARE = 0.1
"""Of the loss of a text with a label. Hinton et al. 2015, section 2, found that labels should weigh considerably less
than the soft targets; the teacher has learnt from the same labels already."""
TEACHER, LABELLED = "teacher_logits", "is_labelled"
"""What a batch has for a student beside what its model takes: [rows, classes] and [rows]."""

StudentLoss = Callable[..., torch.Tensor]
"""Takes the student's logits, labels, and what a batch has for a student by name; returns the loss."""


def make_loss(task: TaskName, temperature: float) -> StudentLoss:
    """Return the loss of a batch, whose gradients do not depend on the temperature's square (Hinton et al. 2015).

    For a text without a label it is the divergence of the student's probabilities from its teacher's, both at a
    `temperature`; a text with a label has a share of the usual loss.
    """

    def loss(
        logits: torch.Tensor, labels: torch.Tensor, *, teacher_logits: torch.Tensor, is_labelled: torch.Tensor
    ) -> torch.Tensor:
        logits = logits.float()
        soft = temperature**2 * _divergence(task, teacher_logits / temperature, logits / temperature)
        share = LABEL_SHARE * is_labelled
        return ((1 - share) * soft + share * _from_labels(task, logits, labels)).mean()

    return loss


def _divergence(task: TaskName, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of each row, in nats; of several labels the mean."""
    first, second = (_outcomes(task, logits).log_softmax(-1) for logits in (before, after))
    return F.kl_div(second, first, log_target=True, reduction="none").sum(-1).mean(-1)


def _outcomes(task: TaskName, logits: torch.Tensor) -> torch.Tensor:
    """Return the logits of each choice: one among all labels, or for each label to have it or not."""
    if task == "single-label":
        return logits[:, None]
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1)


def _from_labels(task: TaskName, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the usual loss of each row."""
    if task == "single-label":
        return F.cross_entropy(logits, labels, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


class StudentTrainer(GraphTrainer):
    """A Trainer for batches that bring a teacher's logits; evaluation batches bring none, and have the usual loss."""

    def __init__(self, student_loss: StudentLoss, **kwargs: Any) -> None:
        """Take the loss, and what a Trainer takes."""
        super().__init__(**kwargs)
        self.student_loss = student_loss
        self.model_accepts_loss_kwargs = False  # the loss is a mean over its batch, also where batches are accumulated

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a batch, and what else its model gives where asked."""
        taught = {name: inputs.pop(name) for name in (TEACHER, LABELLED) if name in inputs}
        if not taught:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        _, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = self.student_loss(outputs["logits"], labels, **taught)
        return (loss, outputs) if return_outputs else loss
