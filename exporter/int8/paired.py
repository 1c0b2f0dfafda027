"""Two classifiers' answers to the same texts: how their score differs, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.int8.budget import CONFIDENCE, ScoreChange, accuracy_change, critical_value, paired_interval
from trainer.tasks import Answers, Metric, Task

Parts = npt.NDArray[np.float64]
"""What a score is made of, [texts, 2]: it is the sum of the first column over that of the second."""
TAIL_DRAWS = 100
"""How many resamples lie beyond each end of an interval."""
BLOCK = 2**22
"""Numbers that are drawn at a time."""


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
        change, z = ratio_of(self.after) - ratio_of(self.before), critical_value(tried)
        resampled = resampled_interval(self.before, self.after, (1 - CONFIDENCE) / tried)
        counted = counted_interval(self.before, self.after, z)
        bounds = min(*resampled[:1], *counted[:1], change), max(*resampled[1:], *counted[1:], change)
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

    Args:
        before: what the score was made of, [texts, 2].
        after: the same texts' parts of the score to compare.
        error: the chance that the change lies outside.
        seed: of the resamples.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    rows, counts = np.unique(np.hstack([before, after]), axis=0, return_counts=True)
    rng, total = np.random.default_rng(seed), int(counts.sum())
    left, changes = math.ceil(2 * TAIL_DRAWS / error), []
    while left > 0:
        size = min(left, max(1, BLOCK // len(rows)))
        sums = rng.multinomial(total, counts / total, size=size) @ rows
        changes.append(_ratio(sums[:, 2:].T) - _ratio(sums[:, :2].T))
        left -= size
    low, high = np.quantile(np.concatenate(changes), [error / 2, 1 - error / 2])
    return float(low), float(high)


def counted_interval(before: Parts, after: Parts, z: float) -> tuple[float, float]:
    """Return an interval for the change of a ratio of sums by how many texts lost or gained, and what each did.

    A bootstrap sees too little where few texts changed, or none. Tango's interval for their share does not close there.

    Args:
        before: what the score was made of, [texts, 2].
        after: the same texts' parts of the score to compare.
        z: how many standard errors it reaches.
    """
    gain, weight = (after - before).T
    score, mean_weight = ratio_of(after), max(1.0, float(after[:, 1].mean()))
    effects = (gain - score * weight) / mean_weight  # of each text on the score, times the number of texts
    lost, gained = int((effects < 0).sum()), int((effects > 0).sum())
    size = math.sqrt(float((effects**2).sum()) / (lost + gained)) if lost + gained else 1.0
    low, high = paired_interval(lost, gained, len(before), z)
    return size * low, size * high


def _ratio(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the first over the second; where nothing is true and nothing answered, all is right."""
    return np.asarray(np.where(sums[1] == 0, 1.0, sums[0] / np.maximum(sums[1], 1)))
