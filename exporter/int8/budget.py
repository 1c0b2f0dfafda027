"""The accuracy budget: does a candidate lose at most so many points of its score, or can these texts not tell?

Both answer the same texts, so their difference is judged by the answers that changed alone. A candidate is
within the budget if the lower end of an interval for its change of accuracy is (non-inferiority). That a test of
equality, such as McNemar's, finds nothing would be no evidence: with few texts it never finds anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from trainer.tasks import Metric

CONFIDENCE = 0.95
"""Of all intervals of one search together."""

Judgement = Literal["within budget", "over budget", "undecided"]

POWER_80 = 0.8416212335729143
"""The 80 % point of the normal distribution."""
MAX_TEXTS = 10_000_000
"""Where to stop looking for a number of texts that would decide."""


@dataclass(frozen=True)
class ScoreChange:
    """How a classifier's score differs from its reference's, on the same texts."""

    texts: int
    harmful: int
    """Answers that were right and are wrong; an answer of several labels is right where all are."""
    helpful: int
    """Answers that were wrong and are right."""
    change: float
    """The score after less that before, from -1 to 1."""
    lower: float
    """Lower end of the paired interval of `change`."""
    upper: float
    tried: int
    """How many intervals hold together with 95 %."""
    metric: Metric = "accuracy"
    """What the score is."""


def accuracy_change(harmful: int, helpful: int, texts: int, *, tried: int = 1) -> ScoreChange:
    """Judge how the accuracy of a classifier differs from that of another on the same texts.

    Args:
        harmful: answers that went from right to wrong.
        helpful: answers that went from wrong to right.
        texts: all answers.
        tried: how many candidates are judged on these texts. Each has its chance to pass by luck, so that their
            intervals are widened until all hold together with 95 % (Bonferroni).
    """
    lower, upper = paired_interval(harmful, helpful, texts, critical_value(tried))
    return ScoreChange(texts, harmful, helpful, (helpful - harmful) / texts, lower, upper, tried)


def critical_value(tried: int) -> float:
    """Return how many standard errors an interval reaches, so that `tried` of them hold together with 95 %."""
    return NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * tried))


def paired_interval(harmful: float, helpful: float, texts: float, z: float) -> tuple[float, float]:
    """Return the score interval of (helpful - harmful) / texts.

    It keeps its coverage where few answers changed, or none, and where a normal approximation collapses to a point.

    Args:
        harmful: answers that went from right to wrong.
        helpful: answers that went from wrong to right.
        texts: all answers, at least one. Counts may be fractions, to ask what more texts would show.
        z: how many standard errors it reaches; 1.96 for 95 %.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, equations 9 to 12.
    """
    observed = (helpful - harmful) / texts

    def score(change: float) -> float:
        return _score(harmful, helpful, texts, change)

    lower = -1.0 if observed <= -1 else _crossing(lambda change: score(change) > z, -1.0, observed)
    upper = 1.0 if observed >= 1 else _crossing(lambda change: score(change) >= -z, observed, 1.0)
    return lower, upper


def judge(change: ScoreChange, max_drop: float) -> Judgement:
    """Say whether a change of a score is within a budget of `max_drop`, a share such as 0.005."""
    if change.lower > -max_drop:
        return "within budget"
    return "over budget" if change.upper < -max_drop else "undecided"


def texts_to_decide(change: ScoreChange, max_drop: float) -> int | None:
    """Return how many texts would decide, four times in five, if answers went on changing at the rates seen.

    Returns:
        None where it would take more than ten million, as where the rates' difference is the budget itself.
    """
    harmful, helpful = change.harmful / change.texts, change.helpful / change.texts
    z = critical_value(change.tried) + POWER_80

    def decided(texts: int) -> bool:
        if change.metric == "accuracy":
            lower, upper = paired_interval(harmful * texts, helpful * texts, texts, z)
        else:  # the reach of any interval falls with the square root of the number of texts
            reach = z / critical_value(change.tried) * math.sqrt(change.texts / texts)
            lower, upper = (change.change + (end - change.change) * reach for end in (change.lower, change.upper))
        return lower > -max_drop or upper < -max_drop

    least = most = change.texts
    while not decided(most):
        most *= 2
        if most > MAX_TEXTS:
            return None
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if decided(middle) else (middle + 1, most)
    return most


def _score(harmful: float, helpful: float, texts: float, change: float) -> float:
    """Return Tango's score statistic for the hypothesis that the true change is `change`; it falls with `change`."""
    # The share of harmful changes that is likeliest under the hypothesis solves a x^2 + b x + c = 0.
    a = 2 * texts
    b = -helpful - harmful + (2 * texts - helpful + harmful) * change
    c = -harmful * change * (1 - change)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = texts * (2 * share + change * (1 - change))
    distance = helpful - harmful - texts * change
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _crossing(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """Return where, between `low` and `high`, `is_below` turns from true to false, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
