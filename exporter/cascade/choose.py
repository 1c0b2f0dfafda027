"""When the first stage of a cascade answers: chosen on calibration texts alone, which nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from exporter.cascade.stage import Cascade, surest
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
TEMPERATURES = 1 / 16, 16.0
"""Between which it is looked for."""
HALVINGS = 40


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
    model: Answers
    """What the model answers, [texts]."""
    truth: Answers
    """[texts]."""

    @classmethod
    def of(
        cls,
        lexical: Lexical,
        tokens: Sequence[Sequence[Sequence[int]]],
        whole: npt.NDArray[np.bool_],
        model: Answers,
        truth: Answers,
    ) -> Calibrated:
        """Let the first stage answer.

        Args:
            lexical: it.
            tokens: of each text, or of both of a pair, all tokens of its own: see `Encoder.tokens`.
            whole: whether these are all, [texts].
            model: what the model answers, [texts].
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


def can_choose(texts: int, max_drop: float) -> bool:
    """Tell whether so many calibration texts could show a loss within the first stage's share of a budget."""
    return paired_interval(0, 0, texts, ONE_SIDED)[0] > -SHARE_OF_BUDGET * max_drop


def choose_cascade(texts: Calibrated, max_drop: float, evaluated: int, tried: int) -> Chosen:
    """Choose the temperature, the guards and the threshold.

    The threshold is the cheapest for which the upper confidence bound of the loss is within the first stage's share of
    the budget: one-sided, 95 %, from the answers that change. They are tried from the most careful one on, up to the
    first that fails, so that the bound is not corrected for their number. It is no guarantee, since temperature, guards
    and thresholds come from the same texts: the gate, which judges on others, is. Of the thresholds before the first
    that fails, some may change more answers than the gate can judge: it has to find the cascade within the budget, 19
    times in 20, if as many answers change there as here, and for a gain of no more than that bound.

    Args:
        texts: what both stages say of the calibration texts.
        max_drop: the accuracy budget, a share such as 0.005.
        evaluated: how many texts the gate has.
        tried: how many candidates it judges.

    Source: Angelopoulos et al. 2021, "Learn then Test", section 3.2, fixed sequence testing.
    """
    temperature = fit_temperature(texts.lexical, texts.truth)
    guards = Cascade(temperature, 0.0, *choose_guards(texts.known, texts.tokens))
    curve = draw_curve(texts, guards, evaluated, critical_value(tried) + ONE_SIDED)
    last = None
    for point in curve:
        if point.lower <= -SHARE_OF_BUDGET * max_drop:
            break
        if point.foreseen > -max_drop:
            last = point
    if last is None:
        return Chosen(None, curve)
    known, fewest, most = guards.least_known, guards.fewest_tokens, guards.most_tokens
    return Chosen(Cascade(temperature, last.threshold, known, fewest, most), curve)


def fit_temperature(logits: FloatArray, truth: Answers) -> float:
    """Return what to divide logits by so that the truth is likeliest, from 1/16 to 16.

    The likelihood is concave in its inverse, so that its slope, which is how much the logit of the truth exceeds the
    expected one, is halved to zero.

    Args:
        logits: [texts, classes].
        truth: [texts].

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    exact = logits.astype(np.float64)
    true = exact[np.arange(len(truth)), truth].mean()
    low, high = TEMPERATURES
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        scaled = exact / middle
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        expected = (exact * shares / shares.sum(axis=1, keepdims=True)).sum(axis=1).mean()
        low, high = (low, middle) if true > expected else (middle, high)
    return float((low * high) ** 0.5)


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
    usual = (texts.known >= guards.least_known) & (texts.tokens >= guards.fewest_tokens)
    usual &= (texts.tokens <= guards.most_tokens) & texts.whole
    sure, first = surest(logits), logits.argmax(axis=1)
    ranked, count = np.sort(sure[usual])[::-1], len(texts.truth)
    wanted = [round(len(ranked) * step / STEPS) for step in range(1, STEPS + 1)]
    thresholds = dict.fromkeys(float(ranked[i - 1]) for i in wanted if i)
    was_right, points = texts.model == texts.truth, []
    for threshold in thresholds:
        answered = usual & (sure >= threshold)
        is_right = np.where(answered, first, texts.model) == texts.truth
        harmful, helpful = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
        lower, _ = paired_interval(harmful, helpful, count, ONE_SIDED)
        foreseen = foresee((harmful + helpful) / count, lower, evaluated, z)
        shares = float(answered.mean()), float(is_right.mean())
        points.append(CurvePoint(threshold, *shares, harmful, helpful, lower, foreseen))
    return tuple(points)


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
