"""The accuracy budget's statistics agree with the literature, keep their coverage, and never call few texts proof."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.int8.budget import (
    POWER_80,
    ScoreChange,
    accuracy_change,
    critical_value,
    judge,
    paired_interval,
    texts_to_decide,
)
from exporter.int8.paired import pair
from trainer.tasks import SingleLabel

Z = critical_value(1)


def quartic_interval(harmful: int, helpful: int, texts: int) -> tuple[float, float]:
    """Return the same interval as the outer real roots of a polynomial.

    Source: Yang, Sun & Hardin 2013, "A non-iterative implementation of Tango's score confidence interval for a paired
    difference of proportions", Statistics in Medicine 32.
    """
    n, g, difference, changed = texts, Z**2, helpful - harmful, helpful + harmful
    roots = np.roots(
        [
            n**2 * (n / g + 1) ** 2,
            -n * difference * (n / g + 1) * (4 * n / g + 1),
            2 * n * difference**2 * (3 * n / g + 2) / g - n**2 * (changed / g + 1),
            n * difference * (2 * changed / g + 1) - difference**3 * (4 * n / g + 1) / g,
            difference**2 * (difference**2 / g - changed) / g,
        ]
    )
    real = roots[np.abs(roots.imag) < 1e-6].real
    return float(real.min()), float(real.max())


@pytest.mark.parametrize(
    ("harmful", "helpful", "texts"), [(2, 12, 50), (7, 1, 21), (40, 20, 160), (16, 15, 2000), (1, 0, 356)]
)
def test_the_interval_agrees_with_its_closed_form(harmful: int, helpful: int, texts: int) -> None:
    expected = quartic_interval(harmful, helpful, texts)
    assert paired_interval(harmful, helpful, texts, Z) == pytest.approx(expected, abs=1e-6)


def test_without_a_changed_answer_the_interval_still_has_a_width() -> None:
    """With no change the bound is z^2 / (n + z^2): Tango's equation for zero discordant pairs."""
    lower, upper = paired_interval(0, 0, 356, Z)
    assert (lower, upper) == pytest.approx((-(Z**2) / (356 + Z**2), Z**2 / (356 + Z**2)), abs=1e-9)


@given(
    st.integers(1, 3000).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.just(n)).flatmap(
            lambda pair: st.tuples(st.just(pair[0]), st.integers(0, pair[1] - pair[0]), st.just(pair[1]))
        )
    )
)
def test_the_interval_holds_the_change_and_mirrors(counts: tuple[int, int, int]) -> None:
    harmful, helpful, texts = counts
    lower, upper = paired_interval(harmful, helpful, texts, Z)
    assert -1 <= lower <= (helpful - harmful) / texts <= upper <= 1
    assert paired_interval(helpful, harmful, texts, Z) == pytest.approx((-upper, -lower), abs=1e-9)


@pytest.mark.parametrize(("harmful_rate", "helpful_rate"), [(0.01, 0.01), (0.03, 0.01), (0.002, 0.002), (0.1, 0.12)])
def test_the_interval_covers_the_true_change_as_often_as_it_says(harmful_rate: float, helpful_rate: float) -> None:
    """2,000 simulated evaluations of 1,000 texts: 95 %, give or take what so many draws and whole counts allow."""
    draws = np.random.default_rng(0).multinomial(
        1000, [harmful_rate, helpful_rate, 1 - harmful_rate - helpful_rate], size=2000
    )
    intervals = {counts: paired_interval(*counts, 1000, Z) for counts in {(int(b), int(c)) for b, c, _ in draws}}
    inside = [
        low <= helpful_rate - harmful_rate <= high for low, high in (intervals[int(b), int(c)] for b, c, _ in draws)
    ]
    assert 0.935 <= np.mean(inside) <= 0.985


def test_changes_are_counted_by_what_they_did() -> None:
    truth = [0, 1, 2, 0, 1]
    before, after = [0, 1, 0, 1, 2], [0, 2, 2, 2, 1]  # same, harmful, helpful, wrong twice, helpful
    change = pair(SingleLabel(3), *map(np.asarray, (before, after, truth))).change()
    assert (change.texts, change.harmful, change.helpful, change.change) == (5, 1, 2, pytest.approx(0.2))
    assert (change.lower, change.upper) == paired_interval(1, 2, 5, Z)


def measured(harmful: int, helpful: int, texts: int) -> ScoreChange:
    bounds = paired_interval(harmful, helpful, texts, Z)
    return ScoreChange(texts, harmful, helpful, (helpful - harmful) / texts, *bounds, tried=1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (measured(17, 20, 3000), "within budget"),
        (measured(0, 0, 356), "undecided"),  # not one answer changed, and yet a few hundred texts prove nothing
        (measured(16, 15, 2000), "undecided"),
        (measured(30, 2, 356), "over budget"),
        (measured(60, 10, 3000), "over budget"),
    ],
)
def test_three_verdicts(change: ScoreChange, expected: str) -> None:
    assert judge(change, 0.005) == expected


@pytest.mark.parametrize("change", [measured(0, 0, 356), measured(16, 15, 2000), measured(9, 3, 356)])
def test_the_number_that_would_do_is_the_least_that_decides(change: ScoreChange) -> None:
    needed = texts_to_decide(change, 0.005)
    assert needed is not None
    assert needed > change.texts
    harmful, helpful = change.harmful / change.texts, change.helpful / change.texts
    for texts, decides in ((needed, True), (needed - 1, False)):
        lower, upper = paired_interval(harmful * texts, helpful * texts, texts, Z + POWER_80)
        assert (lower > -0.005 or upper < -0.005) == decides


def test_no_number_decides_a_change_that_is_the_budget_itself() -> None:
    assert texts_to_decide(measured(10, 0, 2000), 0.005) is None


def test_without_a_change_the_number_follows_from_the_closed_form() -> None:
    assert texts_to_decide(measured(0, 0, 100), 0.005) == math.ceil((Z + POWER_80) ** 2 * (1 / 0.005 - 1))


def test_intervals_widen_with_the_number_of_candidates() -> None:
    """Ten candidates share the 5 %: 2.807 standard errors instead of 1.960."""
    assert (critical_value(1), critical_value(10)) == pytest.approx((1.959964, 2.807034), abs=1e-6)
    alone, among_ten = (accuracy_change(1, 0, 400, tried=n) for n in (1, 10))
    assert among_ten.lower < alone.lower < alone.change < alone.upper < among_ten.upper


def test_the_number_that_would_do_does_so_four_times_in_five() -> None:
    needed = texts_to_decide(measured(4, 4, 2000), 0.005)
    assert needed
    draws = np.random.default_rng(0).multinomial(needed, [0.002, 0.002, 0.996], size=1000)
    decided = [judge(measured(int(b), int(c), needed), 0.005) == "within budget" for b, c, _ in draws]
    assert 0.75 <= np.mean(decided) <= 0.92
