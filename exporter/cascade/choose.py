"""When the first stage of a cascade answers: chosen on calibration texts alone, which nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exporter.cascade.stage import Cascade, Stack, surest
from exporter.cascade.trial import CurvePoint
from exporter.int8.budget import CONFIDENCE, critical_value, paired_interval
from trainer.lexical.model import Lexical
from trainer.tasks import Answers, FloatArray

SHARE_OF_BUDGET = 0.5
"""What the first stage may lose of the accuracy budget. The rest is for the model in int8, and for chance."""
ONE_SIDED = NormalDist().inv_cdf(CONFIDENCE)
"""Standard errors from a loss to its upper confidence bound."""
STEPS = 20
"""Thresholds that are tried: they let the first stage answer a twentieth of the usual texts, two twentieths, … all."""
UNUSUAL = 1.0
"""Per cent of the calibration texts beyond each guard."""
WEIGHTS = 1 / 16, 16.0
"""The smallest and the largest that logits may be multiplied by."""


@dataclass(frozen=True)
class Calibrated:
    """What both stages say of the calibration texts."""

    lexical: FloatArray
    """Logits of the first stage as it was fitted, [texts, classes]."""
    known: FloatArray
    """See `Lexical.known`, [texts]."""
    tokens: npt.NDArray[np.int64]
    """Tokens of each text's own, before it is cut, [texts]."""
    whole: npt.NDArray[np.bool_]
    """Whether the first stage sees all of it, [texts]: see `are_whole`."""
    model: FloatArray
    """Logits of the model, [texts, classes]."""
    truth: Answers
    """[texts]."""

    @classmethod
    def of(
        cls,
        lexical: Lexical,
        tokens: Sequence[Sequence[Sequence[int]]],
        whole: npt.NDArray[np.bool_],
        model: FloatArray,
        truth: Answers,
    ) -> Calibrated:
        """Let the first stage answer.

        Args:
            lexical: it.
            tokens: of each text, or of both of a pair, all tokens of its own: see `Encoder.tokens`.
            whole: whether these are all, [texts].
            model: logits of the model, [texts, classes].
            truth: what is right, [texts].
        """
        sizes = np.array([sum(map(len, parts)) for parts in tokens])
        return cls(*lexical.read(tokens), sizes, whole, model, truth)


@dataclass(frozen=True)
class Chosen:
    """A cascade, and the thresholds that were tried for it."""

    cascade: Cascade | None
    """None where no threshold will do."""
    curve: tuple[CurvePoint, ...]
    stacked_score: float | None = None
    """Of both stages' logits, added for usual texts; None where they are not added."""


def can_choose(texts: int, max_drop: float) -> bool:
    """Tell whether so many calibration texts could show a loss within the first stage's share of a budget."""
    return paired_interval(0, 0, texts, ONE_SIDED)[0] > -SHARE_OF_BUDGET * max_drop


def choose_cascade(texts: Calibrated, max_drop: float, evaluated: int, tried: int, *, stacked: bool = False) -> Chosen:
    """Choose the temperature, the guards and the threshold, and where the stages are stacked, their weights.

    The threshold is the cheapest for which the upper confidence bound of what the first stage's answers lose is within
    its share of the budget: one-sided, 95 %, from the answers that change. They are tried from the most careful one on,
    up to the first that fails, so that the bound is not corrected for their number. It is no guarantee, since
    temperature, guards, weights and thresholds come from the same texts: the gate, which judges on others, is. Of the
    thresholds before the first that fails, some may change more of the model's answers than the gate can judge: it has
    to find the cascade within the budget, 19 times in 20, if as many answers change there as here, and the gain is no
    larger than the lower bound of what is seen here.

    Args:
        texts: what both stages say of the calibration texts.
        max_drop: the accuracy budget, a share such as 0.005.
        evaluated: how many texts the gate has.
        tried: how many candidates it judges.
        stacked: whether the logits of both stages are added where the first does not answer alone.

    Source: Angelopoulos et al. 2021, "Learn then Test", section 3.2, fixed sequence testing.
    """
    temperature = fit_temperature(texts.lexical, texts.truth)
    guards = Cascade(temperature, 0.0, *choose_guards(texts.known, texts.tokens))
    score = None
    if stacked:
        usual, first = _usual(texts, guards), texts.lexical / np.float32(temperature)
        guards = replace(guards, stack=fit_stack(first[usual], texts.model[usual], texts.truth[usual]))
        score = float((_second(texts, guards) == texts.truth).mean())
    curve = draw_curve(texts, guards, evaluated, critical_value(tried) + ONE_SIDED)
    last = None
    for point in curve:
        if point.lower <= -SHARE_OF_BUDGET * max_drop:
            break
        if point.foreseen > -max_drop:
            last = point
    return Chosen(replace(guards, threshold=last.threshold) if last else None, curve, score)


def fit_temperature(logits: FloatArray, truth: Answers) -> float:
    """Return what to divide logits by so that the truth is likeliest, from 1/16 to 16.

    Args:
        logits: [texts, classes].
        truth: [texts].

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    return 1 / _fit_weights([logits], truth)[0]


def fit_stack(first: FloatArray, model: FloatArray, truth: Answers) -> Stack:
    """Return by what to multiply the logits of two stages so that the truth is likeliest by their sum, 1/16 to 16 each.

    Args:
        first: logits of the first stage, after the temperature, [texts, classes].
        model: those of the model, [texts, classes].
        truth: [texts].

    Source: Wolpert 1992, "Stacked Generalization".
    """
    return Stack(*_fit_weights([first, model], truth))


def _fit_weights(stages: Sequence[FloatArray], truth: Answers) -> tuple[float, ...]:
    """Return the weight of each stage's logits in the sum by which the truth is likeliest: a convex problem."""
    from scipy.optimize import minimize

    logits, texts = np.stack(stages).astype(np.float64), np.arange(len(truth))

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        summed = np.tensordot(weights, logits, 1)
        likelihoods = summed - np.logaddexp.reduce(summed, axis=1, keepdims=True)
        excess = np.exp(likelihoods)
        excess[texts, truth] -= 1
        return -float(likelihoods[texts, truth].mean()), np.einsum("stc,tc->s", logits, excess) / len(truth)

    start, bounds, until = np.ones(len(stages)), [WEIGHTS] * len(stages), {"ftol": 0, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=until)
    return tuple(map(float, found.x))


def choose_guards(known: FloatArray, tokens: npt.NDArray[np.int64]) -> tuple[float, int, int]:
    """Return between which values a text is usual: all but a hundredth of the texts beyond each.

    Returns:
        The least share that training knew, and the fewest and the most tokens.
    """
    fewest, most = np.percentile(tokens, [UNUSUAL, 100 - UNUSUAL])
    return float(np.percentile(known, UNUSUAL)), int(np.floor(fewest)), int(np.ceil(most))


def draw_curve(texts: Calibrated, guards: Cascade, evaluated: int, z: float) -> tuple[CurvePoint, ...]:
    """Return what the cascade would answer with thresholds from the most careful to one that lets every usual text by.

    Args:
        texts: what both stages say.
        guards: with the temperature; its own threshold is not looked at.
        evaluated: how many texts the gate has.
        z: how many standard errors below what is expected of it the gate's interval may end.
    """
    logits = texts.lexical / np.float32(guards.temperature)
    usual, second = _usual(texts, guards), _second(texts, guards)
    sure, first = surest(logits), logits.argmax(axis=1)
    ranked = np.sort(sure[usual])[::-1]
    wanted = [round(len(ranked) * step / STEPS) for step in range(1, STEPS + 1)]
    thresholds = dict.fromkeys(float(ranked[i - 1]) for i in wanted if i)
    points = []
    for threshold in thresholds:
        answered = usual & (sure >= threshold)
        whole = np.where(answered, first, second)
        own, in_all = (_compare(texts.truth, before, whole) for before in (second, texts.model.argmax(axis=1)))
        lower = own.lower
        if guards.stack:  # no more can be lost than changes, and what is gained over the likelier sum is mostly luck
            lower, _ = paired_interval(int((whole != second).sum()), 0, len(texts.truth), ONE_SIDED)
        foreseen = foresee(in_all.changed, in_all.lower, evaluated, z)
        shares = float(answered.mean()), float((whole == texts.truth).mean())
        points.append(CurvePoint(threshold, *shares, own.harmful, own.helpful, lower, foreseen))
    return tuple(points)


def _usual(texts: Calibrated, guards: Cascade) -> npt.NDArray[np.bool_]:
    return guards.is_usual(texts.known, texts.tokens) & texts.whole


def _second(texts: Calibrated, guards: Cascade) -> Answers:
    """Return what is answered where the first stage does not answer alone, [texts]."""
    first = texts.lexical / np.float32(guards.temperature)
    found: Answers = guards.combine(first, _usual(texts, guards), texts.model).argmax(axis=1)
    return found


class _Change(NamedTuple):
    """Of answers: how many become wrong and right, which share that is, and the lower bound of the gain."""

    harmful: int
    helpful: int
    changed: float
    lower: float


def _compare(truth: Answers, before: Answers, after: Answers) -> _Change:
    was_right, is_right = before == truth, after == truth
    harmful, helpful = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    lower, _ = paired_interval(harmful, helpful, len(truth), ONE_SIDED)
    return _Change(harmful, helpful, (harmful + helpful) / len(truth), lower)


def foresee(changed: float, gain: float, texts: int, z: float) -> float:
    """Return the lower bound of the gate's interval if it sees as many changes, and a gain as small as can be believed.

    Args:
        changed: the share of texts of which an answer becomes wrong or right.
        gain: the share that becomes right, less that which becomes wrong.
        texts: the gate's.
        z: how many standard errors below the gain the interval may end.
    """
    helpful, harmful = (max(0.0, (changed + sign * gain) / 2) * texts for sign in (1, -1))
    return paired_interval(harmful, helpful, texts, z)[0]
