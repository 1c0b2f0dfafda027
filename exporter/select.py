"""Which artifact to ship: among the candidates within the accuracy budget, the fastest measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.artifacts import Candidate

FASTER = 1.0
"""A candidate has to be as fast as fp32 at least; below it, only its size would speak for it."""


@dataclass(frozen=True)
class Choice:
    """What to ship, and why."""

    int8: Candidate | None
    """The best candidate, chosen or not; None where there is none."""
    ship_int8: bool
    reason: str


def choose(candidates: Sequence[Candidate], *, max_drop: float, accept_undecided: bool) -> Choice:
    """Choose among candidates.

    Args:
        candidates: what was measured.
        max_drop: the budget, in percentage points.
        accept_undecided: whether to ship what these reviews can not decide, if nothing is known to be within budget.
    """
    budget = f"the budget of {max_drop:g} points"
    if not candidates:
        return Choice(None, ship_int8=False, reason="there is no int8 candidate")
    for judgement in ("within budget", "undecided", "over budget"):
        peers = [candidate for candidate in candidates if candidate.judgement == judgement]
        if peers:
            break
    if judgement == "over budget":
        best = max(peers, key=lambda c: c.change.change)
        return Choice(
            best, ship_int8=False, reason=f"every int8 candidate exceeds {budget}; the best: {describe(best)}"
        )
    best = max(peers, key=lambda c: c.speed.median)
    if best.speed.median < FASTER:
        return Choice(best, ship_int8=False, reason=f"no int8 candidate within {budget} is faster than fp32 here")
    if judgement == "within budget":
        return Choice(best, ship_int8=True, reason=f"the fastest within {budget}: {describe(best)}")
    if accept_undecided:
        return Choice(best, ship_int8=True, reason=f"the fastest; accepted undecided: {describe(best)}")
    return Choice(
        best,
        ship_int8=False,
        reason=f"{best.change.reviews:,} reviews cannot tell whether int8 stays within {budget}: {describe(best)}. "
        + _mend(best),
    )


def describe(candidate: Candidate) -> str:
    """Render what a candidate costs and brings, in a sentence."""
    change, speed = candidate.change, candidate.speed
    return (
        f"{candidate.recipe}, accuracy {points(change.change)} points "
        f"[{points(change.lower)}, {points(change.upper)}], {speed.median:.2f}x the speed of fp32"
    )


def points(share: float) -> str:
    """Render a change of accuracy in percentage points, with its sign."""
    return f"{100 * share + 0.0:+.1f}"


def _mend(candidate: Candidate) -> str:
    if candidate.reviews_to_decide is None:
        return "No number of reviews would tell at these rates; `--accept-undecided` ships it all the same"
    return (
        f"{candidate.reviews_to_decide:,} reviews would, if answers went on changing as they did; "
        "`--accept-undecided` ships it all the same"
    )
