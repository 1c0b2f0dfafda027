"""Two classifiers' answers to the same texts: how their score differs, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.int8.budget import CONFIDENCE, ScoreChange, accuracy_change
from trainer.tasks import Answers, Metric, Task

Parts = npt.NDArray[np.float64]
"""What a score is made of, [texts, 2]: it is the sum of the first column over that of the second."""
TAIL_DRAWS = 100
"""How many resamples lie beyond each end of an interval."""


@dataclass(frozen=True)
class Paired:
    """What the score of each of two classifiers is made of, text by text."""

    metric: Metric
    before: Parts
    after: Parts
    harmful: int
    """Answers that were right and are wrong; an answer of several labels is right where all are."""
    helpful: int

    def change(self, tried: int = 1) -> ScoreChange:
        """Judge the change of the score.

        Args:
            tried: how many candidates are judged on these texts; see `accuracy_change`.
        """
        if self.metric == "accuracy":
            return accuracy_change(self.harmful, self.helpful, len(self.before), tried=tried)
        change = ratio_of(self.after) - ratio_of(self.before)
        lower, upper = resampled_interval(self.before, self.after, (1 - CONFIDENCE) / tried)
        bounds = min(lower, change), max(upper, change)
        return ScoreChange(len(self.before), self.harmful, self.helpful, change, *bounds, tried, self.metric)


def pair(task: Task, before: Answers, after: Answers, truth: Answers) -> Paired:
    """Put the answers of two classifiers to the same texts side by side."""
    was_wrong, is_wrong = task.differ(before, truth), task.differ(after, truth)
    harmful, helpful = int((is_wrong & ~was_wrong).sum()), int((was_wrong & ~is_wrong).sum())
    return Paired(task.metric, task.parts(before, truth), task.parts(after, truth), harmful, helpful)


def ratio_of(parts: Parts) -> float:
    """Return the score that `parts` make up, [texts, 2]."""
    return float(_ratio(parts.sum(axis=0)))


def resampled_interval(before: Parts, after: Parts, error: float, seed: int = 0) -> tuple[float, float]:
    """Return an interval for the change of a ratio of sums: the paired bootstrap over texts.

    Where few answers changed, or none, a bootstrap sees too little. So to the texts come two that nobody has seen: one
    whose labels all turn wrong, and one whose labels all turn right.

    Args:
        before: what the score was made of, [texts, 2].
        after: the same texts' parts of the score to compare.
        error: the chance that the change lies outside.
        seed: of the resamples.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13, for percentiles; Bonett and
    Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data", for
    the two.
    """
    rows, counts = np.unique(np.hstack([before, after]), axis=0, return_counts=True)
    size = max(1.0, float(before[:, 1].mean()))
    rows = np.vstack([rows, [size, size, 0, size], [0, size, size, size]])
    counts = np.append(counts, [1, 1])
    total = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=math.ceil(2 * TAIL_DRAWS / error))
    sums = drawn @ rows
    changes = _ratio(sums[:, 2:].T) - _ratio(sums[:, :2].T)
    low, high = np.quantile(changes, [error / 2, 1 - error / 2])
    return float(low), float(high)


def _ratio(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the first over the second; where nothing is true and nothing answered, all is right."""
    return np.asarray(np.where(sums[1] == 0, 1.0, sums[0] / np.maximum(sums[1], 1)))
