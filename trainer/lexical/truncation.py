"""Which tokens of longer texts are kept: the rule that costs the linear classifier least, on training texts alone.

Where the tokens stand that tell labels apart is a matter of the texts. The linear classifier finds it in seconds, and a
transformer gains by the same rule: see docs/measurements.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from trainer.config import Truncation
from trainer.data.load import Examples
from trainer.lexical.fit import Question, has_company, losses, objection, out_of_fold, same_texts
from trainer.lexical.sample import sample
from trainer.tasks import FloatArray, Task
from trainer.text.encoding import Encoder

MOST_TEXTS = 5_000
LEAST_LONGER = 0.01
"""The share of longer texts below which nothing is compared: it matters to too few."""
MOST_LABELS = 10
"""Where a text may have several labels, the most frequent are asked about."""
ERRORS = 2.0
"""How many standard errors of the mean difference a rule has to be better by."""


@dataclass(frozen=True)
class TruncationTrial:
    """What one rule leaves of the texts, read by a linear classifier that was not fitted on them."""

    rule: Truncation
    loss: float
    """The mean negative log-likelihood of a text's label, in nats; of several labels, the sum of theirs."""
    accuracy: float
    """Of several labels, of all decisions whether a text has one."""


@dataclass(frozen=True)
class TruncationChoice:
    """The rule that was taken, and why."""

    rule: Truncation
    reason: str
    """Why nothing was compared; empty where it was."""
    texts: int
    """How many training texts were looked at."""
    longer: float
    """The share of them that is longer than what is kept."""
    trials: tuple[TruncationTrial, ...] = ()

    def __str__(self) -> str:
        """Return it in a line, for a person."""
        seen = f"{self.longer:.0%} of {self.texts:,} training texts are longer than `--max-length`"
        compared = ", ".join(f"{trial.rule} {trial.loss:.3f}" for trial in self.trials)
        return f"truncation: {self.rule} ({seen}; {self.reason or f'loss of a linear classifier: {compared}'})"


def choose_truncation(encoder: Encoder, train: Examples, task: Task, seed: int) -> TruncationChoice:
    """Choose the rule by which an encoder is to cut longer texts.

    It is `head`, unless another is better by more than chance; then `head-tail`, unless `tail` is better than that. A
    text whose label has no other text is left out of the comparison, which could not know it.

    Args:
        encoder: has the length; its own rule does not matter.
        train: the training texts, of which a sample is looked at.
        task: what their labels mean.
        seed: decides the sample and the folds.
    """
    chosen = sample(encoder, train, MOST_TEXTS, seed)
    tokens = encoder.under("tail").tokens(chosen.texts)  # of the longest texts, both ends are right for every rule
    longer = float(np.mean([*map(encoder.is_longer, tokens)]))
    asked, same = _questions(task, chosen), same_texts(tokens)
    reasons = [objection(same, question) for question in asked]
    questions = [question for question, reason in zip(asked, reasons, strict=True) if not reason]
    if longer < LEAST_LONGER or not questions:
        reason = "nothing to compare" if longer < LEAST_LONGER else next(iter(reasons), "no text has a label")
        return TruncationChoice("head", reason, len(chosen), longer)
    known, trials, by_text = np.all([has_company(same, question) for question in questions], axis=0), [], {}
    for rule in get_args(Truncation):
        logits = out_of_fold([*map(encoder.under(rule).cut, tokens)], same, questions, seed)
        answers = [(row[known], truth[known]) for row, (truth, _) in zip(logits, questions, strict=True)]
        by_text[rule] = np.sum([losses(*answer) for answer in answers], axis=0)
        right = float(np.mean([row.argmax(axis=1) == truth for row, truth in answers]))
        trials.append(TruncationTrial(rule, float(by_text[rule].mean()), right))
    return TruncationChoice(best_rule(by_text), "", len(chosen), longer, tuple(trials))


def best_rule(by_text: Mapping[Truncation, FloatArray]) -> Truncation:
    """Return the rule to take by the losses of the same texts under each, [texts]."""
    head, tail, both = (by_text[rule] for rule in get_args(Truncation))
    if not (_is_better(tail, head) or _is_better(both, head)):
        return "head"
    return "tail" if _is_better(tail, both) else "head-tail"


def _is_better(losses: FloatArray, than: FloatArray) -> bool:
    gains = np.asarray(than, np.float64) - losses
    return bool(gains.mean() > ERRORS * gains.std(ddof=1) / np.sqrt(len(gains)))


def _questions(task: Task, examples: Examples) -> list[Question]:
    """Return what is asked about each text: which label it has, or whether it has each of the frequent ones."""
    truth = task.truth(examples.labels)
    if truth.ndim == 1:
        return [(truth, task.classes)]
    frequent = np.argsort(-truth.sum(axis=0), kind="stable")[:MOST_LABELS]
    return [(truth[:, i], 2) for i in frequent]
