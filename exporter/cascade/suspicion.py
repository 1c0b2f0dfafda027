"""Is a first stage what it says it is? One with other labels, or one that knows the evaluation texts, is refused."""

from __future__ import annotations

import math

import numpy as np

from trainer.tasks import Answers

BEYOND_CHANCE = 4.0
"""Standard errors: chance goes as far with one first stage of thirty thousand."""


def find_suspicion(
    first: tuple[Answers, Answers], model: tuple[Answers, Answers], truth: tuple[Answers, Answers]
) -> str | None:
    """Return why a first stage is not to be believed, None where nothing speaks against it.

    It has to be right more often than the answer that is most often true. And what it gains from the calibration to the
    evaluation texts the model has to gain, too: one that was fitted on evaluation texts is right about them alone.

    Args:
        first: what it answers to the calibration and to the evaluation texts, each [texts].
        model: what the second stage answers.
        truth: what is right.
    """
    calibration, evaluation = (answers == right for answers, right in zip(first, truth, strict=True))
    usual = float(np.bincount(truth[0]).max() / len(truth[0]))
    if calibration.mean() <= usual:
        return (
            f"the first stage is right on {calibration.mean():.1%} of the calibration texts, and the most frequent "
            f"label would be on {usual:.1%}: its labels are in another order, or it is for other texts"
        )
    beside = [
        right.astype(float) - (m == t) for right, m, t in zip((calibration, evaluation), model, truth, strict=True)
    ]
    error = math.sqrt(sum(float(gaps.var()) / len(gaps) for gaps in beside))
    if beside[1].mean() - beside[0].mean() > BEYOND_CHANCE * error:
        return (
            f"the first stage is right on {calibration.mean():.1%} of the calibration texts and on "
            f"{evaluation.mean():.1%} of the evaluation texts, which the model does not find easier: "
            "it was fitted on evaluation texts"
        )
    return None
