"""Is B the same classifier as A? Answered on real reviews of all lengths, alone and in padded batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from exporter.artifacts import Comparison, Tolerance
from exporter.runtime import FloatArray, softmax
from trainer.data import Examples
from trainer.errors import UserError

SURE = 0.6
"""From this probability on the reference counts as sure of its answer; below it a changed label is a near tie."""

BATCH = 8


class HasLogits(Protocol):
    """A form of the classifier: texts in, logits out, all texts in one padded batch."""

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """Return the logits of `texts`, [len(texts), classes]."""


SAME_NUMBERS = Tolerance(max_abs_logit=1e-3)
"""For links that only reorder fp32 arithmetic: merging, and the conversion to ONNX."""

SAME_ANSWERS = Tolerance(mean_abs_probability=0.05, sure_flips_share=0.05)
"""For int8, which changes every number a little: a broken recipe is far beyond it, a usable one far below."""


class VerificationError(UserError):
    """Two forms of the classifier differ by more than they may."""

    exit_code = 3


def choose_reviews(examples: Examples, lengths: Sequence[int], most: int) -> Examples:
    """Choose up to `most` examples spread evenly over the range of lengths, shortest and longest included."""
    by_length = sorted(range(len(examples)), key=lambda i: lengths[i])
    spread = np.unique(np.linspace(0, len(by_length) - 1, num=most).round().astype(int))
    return examples.take([by_length[i] for i in spread])


def answers(classifier: HasLogits, texts: Sequence[str]) -> FloatArray:
    """Score every other text alone and the rest in batches of mixed lengths, so that padding is part of the proof.

    Returns:
        Logits, [len(texts), classes], in the order of `texts`.
    """
    alone = list(range(0, len(texts), 2))
    mixed = list(range(1, len(texts), 2))
    random.Random(0).shuffle(mixed)
    batches = [[i] for i in alone] + [mixed[i : i + BATCH] for i in range(0, len(mixed), BATCH)]
    rows = {
        i: row for batch in batches for i, row in zip(batch, classifier.logits([texts[i] for i in batch]), strict=True)
    }
    return np.stack([rows[i] for i in range(len(texts))])


def compare(
    reference: FloatArray, candidate: FloatArray, labels: Sequence[int], tolerance: Tolerance, *, names: tuple[str, str]
) -> Comparison:
    """Measure how far `candidate` is from `reference`.

    Args:
        reference: logits, [reviews, classes].
        candidate: logits of the same reviews.
        labels: the true class of each review.
        tolerance: how far it may be; see `check`.
        names: what the two are called: the candidate, then the reference.
    """
    before, after, truth = reference.argmax(-1), candidate.argmax(-1), np.asarray(labels)
    logit_gaps = np.abs(candidate - reference)
    probabilities = softmax(reference)
    probability_gaps = np.abs(softmax(candidate) - probabilities).max(-1)
    flips = before != after
    return Comparison(
        candidate=names[0],
        reference=names[1],
        reviews=len(truth),
        max_abs_logit=float(logit_gaps.max()),
        mean_abs_logit=float(logit_gaps.mean()),
        max_abs_probability=float(probability_gaps.max()),
        mean_abs_probability=float(probability_gaps.mean()),
        flips_harmful=int((flips & (before == truth)).sum()),
        flips_helpful=int((flips & (after == truth)).sum()),
        flips_other=int((flips & (before != truth) & (after != truth)).sum()),
        flips_sure=int((flips & (probabilities.max(-1) >= SURE)).sum()),
        tolerance=tolerance,
    )


def check(comparison: Comparison) -> None:
    """Refuse a comparison that is beyond its tolerance.

    Raises:
        VerificationError: it is, or its numbers are not finite.
    """
    tolerance = comparison.tolerance
    measured = (
        ("largest logit difference", comparison.max_abs_logit, tolerance.max_abs_logit),
        ("mean probability difference", comparison.mean_abs_probability, tolerance.mean_abs_probability),
        ("share of sure answers changed", comparison.flips_sure / comparison.reviews, tolerance.sure_flips_share),
    )
    for what, value, bound in measured:
        if bound is not None and not value <= bound:  # so that NaN is refused, too
            raise VerificationError(
                f"`{comparison.candidate}` is not the same classifier as `{comparison.reference}`: "
                f"{what} {value:.4g} on {comparison.reviews} reviews, tolerance {bound:g}",
                "nothing was exported; an earlier export is untouched",
            )
