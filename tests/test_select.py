"""The fastest candidate within the accuracy budget is shipped; what texts cannot tell is said, not assumed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.int8.budget import Judgement, ScoreChange
from exporter.int8.select import choose, choose_for_openvino, points
from exporter.proof.timing import Spread
from exporter.records import Candidate, Variation


def candidate(
    name: str, judgement: Judgement, speed: float, change: float = -0.001, needed: int | None = None
) -> Candidate:
    return Candidate(
        recipe=name,
        family="dynamic",
        size_bytes=1,
        change=ScoreChange(2000, 4, 2, change, change - 0.003, change + 0.003, tried=1),
        judgement=judgement,
        texts_to_decide=needed,
        mean_divergence=0.0,
        speed=Spread(speed - 0.1, speed, speed + 0.1),
        batch=Variation("in batches of 32", 64, 0, 0.0),
    )


WITHIN = candidate("within", "within budget", 2.0)
FAST = candidate("fast", "within budget", 2.5)
UNDECIDED = candidate("undecided", "undecided", 3.0, needed=3186)
OVER = candidate("over", "over budget", 4.0, change=-0.02)
WORSE = candidate("worse", "over budget", 5.0, change=-0.05)


def test_the_fastest_within_the_budget_is_shipped() -> None:
    choice = choose([WITHIN, FAST, UNDECIDED, OVER], max_drop=0.5, accept_undecided=True)
    assert (choice.best, choice.ships) == (FAST, True)
    assert choice.reason == (
        "the fastest within the budget of 0.5 points: "
        "fast, accuracy -0.10 points [-0.40, +0.20], 2.50x the speed of fp32"
    )


def test_what_the_texts_cannot_tell_is_named_and_shipped_only_on_request() -> None:
    choice = choose([UNDECIDED, OVER], max_drop=0.5, accept_undecided=False)
    assert (choice.best, choice.ships) == (UNDECIDED, False)
    assert "2,000 texts are too few to show that int8 stays within the budget of 0.5 points: undecided" in choice.reason
    assert "About 3,186 texts would be enough" in choice.reason
    assert choose([UNDECIDED, OVER], max_drop=0.5, accept_undecided=True).ships


def test_where_no_number_of_texts_would_do_none_is_named() -> None:
    choice = choose([candidate("x", "undecided", 2.0)], max_drop=0.5, accept_undecided=False)
    assert "More than ten million texts" in choice.reason


def test_over_the_budget_the_most_accurate_is_kept_and_fp32_shipped() -> None:
    choice = choose([OVER, WORSE], max_drop=0.5, accept_undecided=True)
    assert (choice.best, choice.ships) == (OVER, False)
    assert "exceeds the budget of 0.5 points; the most accurate: over, accuracy -2.00 points" in choice.reason


def test_int8_that_is_slower_than_fp32_is_not_shipped() -> None:
    slow = candidate("slow", "within budget", 0.8)
    choice = choose([slow], max_drop=0.5, accept_undecided=False)
    assert (choice.best, choice.ships) == (slow, False)
    assert choice.reason.startswith("no int8 recipe is faster than fp32 here")


def test_a_slow_one_within_the_budget_does_not_hide_a_fast_undecided_one() -> None:
    slow = candidate("slow", "within budget", 0.8)
    assert choose([slow, UNDECIDED], max_drop=0.5, accept_undecided=True).best == UNDECIDED
    refused = choose([slow, UNDECIDED], max_drop=0.5, accept_undecided=False)
    assert (refused.ships, "too few to show" in refused.reason) == (False, True)


def test_among_undecided_ones_a_measured_loss_beyond_the_budget_comes_last() -> None:
    lossy = candidate("lossy", "undecided", 9.0, change=-0.034)
    assert choose([lossy, UNDECIDED], max_drop=0.5, accept_undecided=True).best == UNDECIDED
    assert choose([lossy], max_drop=0.5, accept_undecided=True).best == lossy


def test_without_a_candidate_fp32_is_shipped() -> None:
    assert choose([], max_drop=0.5, accept_undecided=False).best is None


def test_for_openvino_only_what_is_faster_than_the_usual_choice_is_shipped() -> None:
    def chosen(*candidates: Candidate, accept_undecided: bool = False) -> Candidate | None:
        return choose_for_openvino(candidates, max_drop=0.5, accept_undecided=accept_undecided)

    slow, fast, bold = (replace(c, engine="openvino") for c in (WITHIN, FAST, UNDECIDED))
    assert chosen(WITHIN, slow, fast) == fast
    assert chosen(FAST, slow, fast) is None
    assert chosen(WITHIN, bold) is None
    assert chosen(WITHIN, bold, accept_undecided=True) == bold
    assert chosen(UNDECIDED, slow) == slow  # without a choice for onnxruntime, fp32 is to be beaten
    assert chosen(UNDECIDED, replace(slow, speed=Spread(0.8, 0.9, 1.0))) is None
    assert chosen(FAST) is None


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "+0.00"), (-0.00004, "+0.00"), (-0.0054, "-0.54"), (0.012, "+1.20")]
)
def test_points_have_a_sign(share: float, shown: str) -> None:
    assert points(share) == shown


@pytest.mark.parametrize(
    ("alone", "many", "ships"),
    [
        (Spread(0.9, 1.0, 1.06), Spread(1.4, 1.5, 1.6), True),  # not told apart with one, faster with many
        (Spread(1.4, 1.5, 1.6), Spread(0.9, 0.99, 1.06), True),
        (Spread(0.9, 0.95, 0.99), Spread(1.4, 1.5, 1.6), False),  # slower with one
        (Spread(1.4, 1.5, 1.6), Spread(0.9, 0.95, 0.99), False),
        (Spread(0.9, 1.1, 1.2), Spread(0.9, 1.1, 1.2), False),  # no difference
    ],
)
def test_half_precision_has_to_be_faster_in_one_way_and_slower_in_none(
    alone: Spread, many: Spread, ships: bool
) -> None:
    half = replace(WITHIN, speed=alone, bulk=many)
    assert choose([half], max_drop=0.5, accept_undecided=False, precision="half-precision").ships == ships
