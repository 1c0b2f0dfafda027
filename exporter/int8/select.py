"""Which artifact to ship: among the candidates within the accuracy budget, the fastest measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.records import Candidate, OtherRun, Verdict

FASTER = 1.0
"""A candidate has to be as fast as fp32 at least; below it, only its size would speak for it."""


@dataclass(frozen=True)
class Choice:
    """What to ship, and why."""

    best: Candidate | None
    """The best candidate, chosen or not; None where there is none."""
    ships: bool
    """Whether it is chosen."""
    reason: str


def choose(
    candidates: Sequence[Candidate], *, max_drop: float, accept_undecided: bool, precision: str = "int8"
) -> Choice:
    """Choose among candidates.

    Args:
        candidates: what was measured, all with one engine and of one precision.
        max_drop: the budget, in percentage points.
        accept_undecided: whether to ship what these texts can not decide, if nothing is known to be within budget.
        precision: what sentences call them.
    """
    budget = f"the budget of {max_drop:g} points"
    if not candidates:
        return Choice(None, ships=False, reason=f"there is no {precision} candidate")
    faster = [c for c in candidates if _is_faster(c)]
    if within := [c for c in faster if c.judgement == "within budget"]:
        best = _fastest(within)
        return Choice(best, ships=True, reason=f"the fastest within {budget}: {describe(best)}")
    if undecided := [c for c in faster if c.judgement == "undecided"]:
        # Nothing is known of them but what was measured: one that measured a loss beyond the budget comes last.
        best = _fastest([c for c in undecided if c.change.change > -max_drop / 100] or undecided)
        if accept_undecided:
            return Choice(best, ships=True, reason=f"the fastest, accepted undecided: {describe(best)}")
        reason = f"{best.change.texts:,} texts are too few to show that {precision} stays within {budget}"
        return Choice(best, ships=False, reason=f"{reason}: {describe(best)}. {_texts_needed(best)}")
    best = max(candidates, key=lambda c: (c.judgement != "over budget", c.change.change))
    if faster:
        reason = (
            f"every {precision} recipe that is faster than fp32 here exceeds {budget}; the most accurate: "
            + describe(best)
        )
    else:
        reason = f"no {precision} recipe is faster than fp32 here; the most accurate: {describe(best)}"
    return Choice(best, ships=False, reason=reason)


def choose_for_openvino(
    candidates: Sequence[Candidate], *, max_drop: float, accept_undecided: bool
) -> Candidate | None:
    """Return the candidate to ship for machines with OpenVINO, None where one text is not clearly faster there.

    Args:
        candidates: what was measured, with both engines.
        max_drop: the budget, in percentage points.
        accept_undecided: whether to ship what these texts can not decide, if nothing is known to be within budget.
    """
    usual, other = (
        choose([c for c in candidates if c.engine == engine], max_drop=max_drop, accept_undecided=accept_undecided)
        for engine in ("onnxruntime", "openvino")
    )
    to_beat = usual.best.speed.median if usual.best and usual.ships else FASTER
    return other.best if other.best and other.ships and other.best.speed.low > to_beat else None


def _is_faster(candidate: Candidate) -> bool:
    """Tell whether it is faster than fp32: in one way at least, and slower in none, where both were measured."""
    alone, many = candidate.speed, candidate.bulk
    if many is None:
        return alone.median >= FASTER
    return min(alone.high, many.high) >= FASTER and max(alone.low, many.low) > FASTER


def _fastest(candidates: Sequence[Candidate]) -> Candidate:
    """Return the fastest with many texts at a time where that was measured, else with one."""
    return max(candidates, key=lambda c: (c.bulk or c.speed).median)


def describe(candidate: Candidate) -> str:
    """Render what a candidate costs and brings, in a sentence."""
    change, speed = candidate.change, candidate.speed
    return (
        f"{candidate.recipe}, {change.metric} {points(change.change)} points "
        f"[{points(change.lower)}, {points(change.upper)}], {speed.median:.2f}x the speed of fp32"
        + (f" with one text and {candidate.bulk.median:.2f}x with many" if candidate.bulk else "")
    )


def describe_verdict(other: OtherRun, verdict: Verdict) -> str:
    """Render how an artifact compares with another run, in a sentence."""
    c, count = verdict.change, verdict.texts_to_decide
    needed = f", about {count:,} texts would decide" if count else ""
    return (
        f"{c.metric} {points(c.change)} points [{points(c.lower)}, {points(c.upper)}] against {other.score:.2%} on the "
        f"same {c.texts:,} texts ({c.harmful} answers became wrong, {c.helpful} right), {verdict.smaller:.1f} times "
        f"smaller than it is in fp32: {verdict.judgement} of {other.max_drop:g} points{needed}"
    )


def points(share: float) -> str:
    """Render a change of accuracy in percentage points, with its sign."""
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def _texts_needed(candidate: Candidate) -> str:
    needed = candidate.texts_to_decide
    count = "More than ten million" if needed is None else f"About {needed:,}"
    return f"{count} texts would be enough if answers kept changing at this rate; `--accept-undecided` ships it anyway"
