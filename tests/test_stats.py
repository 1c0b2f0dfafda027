"""The benchmark's statistics agree with other libraries, published numbers and what simulated runs show."""

from __future__ import annotations

import math
import time
import timeit
from collections.abc import Callable, Sequence
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, theilslopes
from scipy.stats import t as student
from sklearn.metrics import brier_score_loss
from statsmodels.stats.contingency_tables import mcnemar

from bench.judge.interval import Interval
from bench.judge.stats import (
    brier_score,
    expected_calibration_error,
    mcnemar_exact,
    noise_floor,
    per_million_cost,
    percentile,
    samples_needed,
    slope_interval,
    speed_ratio_interval,
    verdict,
)

Array = npt.NDArray[np.float64]

TRUE_RATIO = 1.25
RESTART_SPREAD = 0.015
"""How much each engine's restarts differ, as the standard deviation of a logarithm."""


def simulate(runs: int, restarts: int, rounds: int, *, spread: float = RESTART_SPREAD, own: float = 0.01) -> Array:
    """Return seconds, [engine, run, restart, round], of a baseline and a candidate that is TRUE_RATIO as fast.

    Each call has lognormal noise of 4 % and, one in 20, a delay of half its time on average. The machine drifts by 5 %
    for both engines, and by `own` for each alone; neighbouring rounds are alike with a correlation of 0.9.
    """
    rng = np.random.default_rng(0)
    shape = (2, runs, restarts, rounds)

    def drift(sides: int, deviation: float) -> Array:
        drifts = rng.normal(size=(sides, *shape[1:])) * deviation
        for i in range(1, rounds):
            drifts[..., i] = 0.9 * drifts[..., i - 1] + math.sqrt(1 - 0.9**2) * drifts[..., i]
        return drifts

    logs = rng.normal(size=(*shape[:3], 1)) * spread + rng.normal(size=shape) * 0.04 + drift(1, 0.05) + drift(2, own)
    logs += (rng.random(shape) < 0.05) * rng.exponential(0.5, size=shape)
    logs[1] -= math.log(TRUE_RATIO)
    return np.asarray(0.01 * np.exp(logs))


def estimate_each(seconds: Array) -> list[Interval]:
    return [
        speed_ratio_interval(before.tolist(), after.tolist(), resamples=100)
        for before, after in zip(*seconds, strict=True)
    ]


def coverage(intervals: Sequence[Interval]) -> float:
    return float(np.mean([i.low <= TRUE_RATIO <= i.high for i in intervals]))


def agreement(intervals: Sequence[Interval]) -> float:
    """Return how often the estimate of one run lies in the interval of another."""
    return float(np.mean([first.low <= second.estimate <= first.high for first, second in pairwise(intervals)]))


def pooled(before: Array, after: Array) -> Interval:
    """Return the naive interval, which takes all rounds of a run for independent: order statistics of the median."""
    ratios = np.sort((before / after).ravel())
    rank = int(binom.ppf(0.005, len(ratios), 0.5))
    return Interval(float(ratios[rank]), float(np.median(ratios)), float(ratios[-1 - rank]))


@pytest.mark.parametrize(("restarts", "rounds"), [(2, 30), (3, 60), (5, 60), (8, 20)])
def test_runs_agree_with_the_truth_and_with_one_another(restarts: int, rounds: int) -> None:
    """400 runs: 99 % hold the true ratio, less what so many draws allow, and over 90 % the next run's estimate."""
    seconds = simulate(400, restarts, rounds)
    intervals = estimate_each(seconds)
    assert coverage(intervals) >= 0.975
    assert agreement(intervals) >= 0.92
    naive = [pooled(*run) for run in zip(*seconds, strict=True)]
    assert coverage(naive) < 0.92
    assert agreement(naive) < 0.82


def test_the_interval_is_no_wider_than_few_restarts_make_it() -> None:
    """With 60 rounds the noise of five restarts' medians is nearly theirs alone, and so is the interval's reach."""
    intervals = estimate_each(simulate(100, 5, 60, own=0))
    reach = np.median([math.log(i.high / i.low) / 2 for i in intervals])
    ideal = student.ppf(0.995, 4) * math.sqrt(2) * RESTART_SPREAD / math.sqrt(5)
    assert 0.9 * ideal < reach < 1.2 * ideal


def test_a_single_restart_knows_of_its_drift() -> None:
    """Its rounds are not independent, so that an interval that takes them to be so holds the truth too rarely."""
    seconds = simulate(400, 1, 60, spread=0, own=0.02)
    intervals = estimate_each(seconds)
    assert coverage(intervals) >= 0.965
    assert agreement(intervals) >= 0.91
    assert coverage([pooled(*run) for run in zip(*seconds, strict=True)]) < 0.9


def test_restarts_that_agree_by_chance_do_not_hide_the_noise_of_the_rounds() -> None:
    reaches = []
    for noise in np.random.default_rng(0).normal(size=(50, 61)) * 0.1:
        twice = [np.exp(noise - np.median(noise)).tolist()] * 2
        reaches.append(math.log(speed_ratio_interval(twice, [[1.0] * 61] * 2, resamples=100).high))
    # The standard error of the median of n normal values is sqrt(pi / 2n) times their deviation; two times five blocks.
    expected = student.ppf(0.995, 8) * 0.1 * math.sqrt(math.pi / 2 / 122)
    assert np.mean(reaches) == pytest.approx(expected, rel=0.15)


def test_blocks_of_neighbours_are_resampled_round_the_end() -> None:
    """The draws come near all that there are: four blocks of two from seven rounds, less the eighth."""
    logs = np.array([0.0, 0.02, 0.05, 0.04, 0.08, 0.15, 0.13])
    starts = np.array(list(product(range(7), repeat=4)))
    drawn = np.stack([starts, (starts + 1) % 7], axis=-1).reshape(len(starts), 8)[:, :7]
    expected = student.ppf(0.995, 3) * np.median(logs[drawn], axis=1).std()
    interval = speed_ratio_interval([np.exp(logs).tolist()], [[1.0] * 7], resamples=20_000)
    assert math.log(interval.high / interval.estimate) == pytest.approx(expected, rel=0.015)


def test_with_one_round_in_each_restart_the_interval_is_students() -> None:
    """Student's interval for the mean of the logarithms."""
    logs = [0.10, 0.12, 0.13, 0.15, 0.17]
    interval = speed_ratio_interval([[math.exp(x)] for x in logs], [[1.0]] * 5, confidence=0.95)
    reach = 2.776445 * np.std(logs, ddof=1) / math.sqrt(5)  # t at 95 % with 4 degrees of freedom, from any table
    expected = [math.exp(0.134 - reach), math.exp(0.134), math.exp(0.134 + reach)]
    assert [interval.low, interval.estimate, interval.high] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("restarts", [2, 3, 4, 5, 8, 31])
def test_the_reach_is_students_quantile(restarts: int, confidence: float) -> None:
    logs = np.random.default_rng(0).normal(size=restarts) * 0.01
    interval = speed_ratio_interval(np.exp(logs)[:, None].tolist(), [[1.0]] * restarts, confidence=confidence)
    expected = student.interval(confidence, restarts - 1, scale=logs.std(ddof=1) / math.sqrt(restarts))[1]
    assert math.log(interval.high / interval.estimate) == pytest.approx(expected, rel=1e-9)


seconds_of = st.floats(1e-6, 1e3)
rounds_of = st.lists(st.tuples(seconds_of, seconds_of), min_size=1, max_size=12)
paired = st.lists(rounds_of, min_size=1, max_size=4).map(
    lambda run: ([[b for b, _ in rounds] for rounds in run], [[c for _, c in rounds] for rounds in run])
)


def ratio(baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    interval = speed_ratio_interval(baseline, candidate, resamples=20)
    return interval.low, interval.estimate, interval.high


def scale(run: Sequence[Sequence[float]], factor: float) -> list[list[float]]:
    return [[factor * seconds for seconds in rounds] for rounds in run]


def logs_of(interval: Sequence[float]) -> list[float]:
    return [-math.inf if end == 0 else math.log(end) for end in interval]


@settings(max_examples=40)
@given(paired)
def test_an_interval_holds_its_estimate(run: tuple[list[list[float]], list[list[float]]]) -> None:
    low, estimate, high = ratio(*run)
    assert 0 <= low <= estimate <= high
    all_ratios = [b / c for rounds in zip(*run, strict=True) for b, c in zip(*rounds, strict=True)]
    assert min(all_ratios) * (1 - 1e-9) <= estimate <= max(all_ratios) * (1 + 1e-9)


@settings(max_examples=40)
@given(paired)
def test_swapping_the_sides_inverts_the_ratio(run: tuple[list[list[float]], list[list[float]]]) -> None:
    low, estimate, high = logs_of(ratio(*run))
    swapped = logs_of(ratio(*reversed(run)))
    if math.isfinite(low) and math.isfinite(high) and abs(low) < 700 and abs(high) < 700:  # else past a float's range
        assert swapped == pytest.approx([-high, -estimate, -low], abs=1e-6)
    assert swapped[1] == pytest.approx(-estimate, abs=1e-9)


@settings(max_examples=40)
@given(paired, st.floats(1e-3, 1e3))
def test_a_slower_machine_leaves_the_ratio(run: tuple[list[list[float]], list[list[float]]], factor: float) -> None:
    baseline, candidate = run
    before = logs_of(ratio(baseline, candidate))
    assert logs_of(ratio(scale(baseline, factor), scale(candidate, factor))) == pytest.approx(
        before, rel=1e-6, abs=1e-6
    )


@settings(max_examples=40)
@given(paired, st.floats(0.5, 2))
def test_a_faster_candidate_shifts_the_whole_interval(
    run: tuple[list[list[float]], list[list[float]]], factor: float
) -> None:
    baseline, candidate = run
    before, after = ratio(baseline, candidate), ratio(scale(baseline, factor), candidate)
    assert after[1] == pytest.approx(factor * before[1])
    if before[0] > 1e-300 and before[2] < 1e300:  # else past a float's range
        assert after == pytest.approx([factor * end for end in before], rel=1e-5)


@settings(max_examples=40)
@given(paired.filter(lambda run: len(run[0]) > 1))
def test_the_order_of_restarts_changes_nothing_but_the_draws(
    run: tuple[list[list[float]], list[list[float]]],
) -> None:
    turned = ratio(run[0][::-1], run[1][::-1])
    assert turned[1] == ratio(*run)[1]
    if all(len(rounds) == 1 for rounds in run[0]):
        assert logs_of(turned) == pytest.approx(logs_of(ratio(*run)), rel=1e-9)


@given(st.integers(1, 4), st.integers(2, 20), st.floats(1e-3, 10), st.floats(1e-3, 10))
def test_constant_samples_leave_no_doubt(restarts: int, rounds: int, baseline: float, candidate: float) -> None:
    interval = ratio([[baseline] * rounds] * restarts, [[candidate] * rounds] * restarts)
    assert interval == pytest.approx([baseline / candidate] * 3)


def test_a_single_sample_proves_nothing() -> None:
    assert speed_ratio_interval([[2.0]], [[1.0]]) == Interval(0, 2, math.inf)


def test_it_is_fast() -> None:
    baseline, candidate = simulate(1, 5, 60)[:, 0].tolist()
    seconds = timeit.repeat(
        lambda: speed_ratio_interval(baseline, candidate), timer=time.process_time, number=1, repeat=3
    )
    assert min(seconds) < 0.1


def test_the_same_samples_give_the_same_interval() -> None:
    run = [[1.0, 1.1, 1.3, 0.9, 1.2, 1.6]], [[1.0] * 6]
    assert speed_ratio_interval(*run, seed=1) == speed_ratio_interval(*run, seed=1)
    assert speed_ratio_interval(*run, seed=1) != speed_ratio_interval(*run, seed=2)


@pytest.mark.parametrize(
    ("baseline", "candidate", "message"),
    [
        ([], [], "no restarts"),
        ([[1.0]], [[1.0], [1.0]], "zip"),
        ([[1.0, 2.0]], [[1.0]], "zip"),
        ([[1.0], []], [[1.0], []], "without samples"),
        ([[1.0, 0.0]], [[1.0, 1.0]], "not positive"),
        ([[1.0, 1.0]], [[1.0, -1.0]], "not positive"),
        ([[math.nan]], [[1.0]], "not positive"),
        ([[1.0]], [[math.inf]], "not positive"),
    ],
)
def test_samples_that_make_no_ratio_are_refused(
    baseline: list[list[float]], candidate: list[list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        speed_ratio_interval(baseline, candidate)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 99.0])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        speed_ratio_interval([[1.0, 2.0]], [[1.0, 1.0]], confidence=confidence)
    with pytest.raises(ValueError, match="confidence"):
        slope_interval([1, 2], [1, 2], confidence=confidence)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(1.06, 1.1, 1.2), "faster"),
        (Interval(1.05, 1.1, 1.2), "cannot tell"),  # a gain just as large as the floor
        (Interval(1.01, 1.1, 1.2), "cannot tell"),
        (Interval(0.9, 1.1, 1.3), "cannot tell"),
        (Interval(0.5, 0.6, 1 / 1.05), "cannot tell"),
        (Interval(0.5, 0.6, 0.951), "slower"),
        (Interval(0, 3, math.inf), "cannot tell"),
    ],
)
def test_three_verdicts(interval: Interval, expected: str) -> None:
    assert verdict(interval, 0.05) == expected


intervals = st.lists(st.floats(0.01, 100), min_size=3, max_size=3).map(lambda ends: Interval(*sorted(ends)))


@given(intervals, st.floats(0, 1), st.floats(1, 10))
def test_verdicts_are_monotone_and_mirror(interval: Interval, floor: float, factor: float) -> None:
    ranks = {"slower": 0, "cannot tell": 1, "faster": 2}
    rank = ranks[verdict(interval, floor)]
    higher = Interval(interval.low * factor, interval.estimate * factor, interval.high * factor)
    assert ranks[verdict(higher, floor)] >= rank
    assert verdict(interval, floor * factor) in {verdict(interval, floor), "cannot tell"}
    distances = [abs(end * (1 + floor) ** sign - 1) for end in (interval.low, interval.high) for sign in (-1, 1)]
    if min(distances) > 1e-9:  # nearer, rounding decides
        mirrored = Interval(1 / interval.high, 1 / interval.estimate, 1 / interval.low)
        assert ranks[verdict(mirrored, floor)] == 2 - rank


def test_a_negative_floor_is_refused() -> None:
    with pytest.raises(ValueError, match="noise floor"):
        verdict(Interval(1, 1, 1), -0.01)


def test_the_noise_floor_is_the_distance_of_the_estimate_to_either_side() -> None:
    assert noise_floor(None) == 0.02
    assert noise_floor(Interval(0.9, 1.01, 1.1)) == 0.02
    assert noise_floor(Interval(0.9, 0.99, 1.1), least=0) == pytest.approx(1 / 0.99 - 1)
    assert noise_floor(Interval(0.9, 1.03, 1.2)) == pytest.approx(0.03)
    assert noise_floor(Interval(1.04, 1.05, 1.06)) == pytest.approx(0.05)  # a bias, however certain, counts


@given(intervals)
def test_an_engine_is_never_faster_or_slower_than_itself(again: Interval) -> None:
    assert verdict(again, noise_floor(again) + 1e-9) == "cannot tell"


@pytest.mark.parametrize(("share", "published"), [(0.90, 64), (0.99, 662)])
def test_the_samples_that_a_percentile_needs_are_mlperfs(share: float, published: int) -> None:
    """LoadGen's summaries say "Need to process at least 64 queries" for 90 %, "at least 662 total queries" for 99 %."""
    assert samples_needed(share) == published


@given(st.floats(0.5, 0.9999))
def test_so_many_samples_are_the_fewest_that_suffice(share: float) -> None:
    needed = samples_needed(share)
    assert binom.cdf(1, needed, 1 - share) <= 0.01 * (1 + 1e-9)
    assert binom.cdf(1, needed - 1, 1 - share) > 0.01 * (1 - 1e-9)


@pytest.mark.parametrize("share", [0.0, 0.49, 1.0, 99.0, -1.0])
def test_a_percentile_is_a_share_from_the_middle_up(share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        samples_needed(share)
    with pytest.raises(ValueError, match="percentile"):
        percentile([1.0] * 1000, share)


def test_a_percentile_is_interpolated_where_there_are_samples_enough() -> None:
    assert percentile(list(range(63)), 0.9) is None
    assert percentile(list(range(64)), 0.9) == pytest.approx(0.9 * 63)
    assert percentile([3.0] * 64, 0.99) is None
    assert percentile([3.0] * 700, 0.99) == 3
    assert percentile([], 0.5) is None


@given(st.lists(st.floats(0, 1e6), min_size=64, max_size=80))
def test_a_percentile_knows_no_order(samples: list[float]) -> None:
    found = percentile(samples, 0.9)
    assert found == percentile(sorted(samples), 0.9)
    assert found is not None
    assert sorted(samples)[int(0.8 * len(samples))] <= found <= max(samples)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemars_test_is_the_sign_test(harmful: int, helpful: int) -> None:
    p = mcnemar_exact(harmful, helpful)
    assert p == pytest.approx(mcnemar([[0, harmful], [helpful, 0]], exact=True).pvalue, rel=1e-9)
    assert p == mcnemar_exact(helpful, harmful)


def test_mcnemars_p_by_hand() -> None:
    assert mcnemar_exact(0, 0) == mcnemar_exact(3, 3) == 1
    assert mcnemar_exact(0, 5) == 2 / 32
    assert mcnemar_exact(1, 5) == 2 * (1 + 6) / 64
    assert mcnemar_exact(2, 12) == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    with pytest.raises(ValueError, match="-1 harmful"):
        mcnemar_exact(-1, 3)


def draw_answers(texts: int, classes: int, seed: int) -> tuple[npt.NDArray[np.float32], list[int]]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.5), size=texts).astype(np.float32), rng.integers(
        classes, size=texts
    ).tolist()


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 1000), st.integers(1, 20))
def test_the_calibration_error_follows_its_definition(texts: int, classes: int, seed: int, bins: int) -> None:
    probabilities, labels = draw_answers(texts, classes, seed)
    expected = 0.0
    for m in range(bins):
        inside = [
            (float(row.max()), int(row.argmax()) == label)
            for row, label in zip(probabilities, labels, strict=True)
            if m / bins < float(row.max()) <= (m + 1) / bins
        ]
        if inside:
            confidence, accuracy = np.mean([c for c, _ in inside]), np.mean([right for _, right in inside])
            expected += len(inside) / texts * abs(accuracy - confidence)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-6)
    assert expected_calibration_error(probabilities[::-1], labels[::-1], bins) == pytest.approx(expected, abs=1e-6)


def test_the_calibration_error_by_hand() -> None:
    sure = np.array([[1, 0], [1, 0]], dtype=np.float32)
    assert expected_calibration_error(sure, [0, 0]) == 0
    assert expected_calibration_error(sure, [0, 1]) == 0.5
    assert expected_calibration_error(sure, [1, 1]) == 1
    # Of four bins, the third holds 0.6 twice, once right, and the fourth 0.9 twice, both right.
    mixed = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.1, 0.9]], dtype=np.float32)
    assert expected_calibration_error(mixed, [0, 1, 0, 1], bins=4) == pytest.approx((0.1 + 0.1) / 2)
    # A confidence of 0.5 belongs to the first of two bins, whose upper edge it is.
    edge = np.array([[0.75, 0.25], [0.5, 0.5]], dtype=np.float32)
    assert expected_calibration_error(edge, [0, 1], bins=2) == pytest.approx((0.25 + 0.5) / 2)
    # Rounded up past 1, a confidence still belongs to the last bin, where it makes up for one that was too low.
    above = np.array([[1.000001, 0], [0.6, 0.4]], dtype=np.float32)
    assert expected_calibration_error(above, [1, 0], bins=2) == pytest.approx((1 - 0.4) / 2, abs=1e-5)


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 1000))
def test_the_brier_score_is_scikit_learns_not_halved(texts: int, classes: int, seed: int) -> None:
    probabilities, labels = draw_answers(texts, classes, seed)
    rows = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    expected = brier_score_loss(labels, rows, labels=list(range(classes)), scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_the_brier_score_of_two_classes_is_twice_the_binary_one() -> None:
    probabilities, labels = draw_answers(50, 2, seed=0)
    assert brier_score(probabilities, labels) == pytest.approx(
        2 * brier_score_loss(labels, probabilities[:, 1]), rel=1e-6
    )
    certain = np.eye(3, dtype=np.float32)
    assert (brier_score(certain, [0, 1, 2]), brier_score(certain, [1, 2, 0])) == (0, 2)


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        ([[0.5, 0.5]], [0, 1]),
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], [-1]),
        ([0.5, 0.5], [0, 1]),
        (np.empty((0, 2)), []),
        ([[2.0, -1.0]], [0]),  # logits
        ([[0.7, 0.7]], [0]),
        ([[math.nan, 1.0]], [0]),
    ],
)
@pytest.mark.parametrize("score", [brier_score, expected_calibration_error])
def test_what_is_no_probability_of_a_label_is_not_scored(
    score: Callable[..., float], probabilities: object, labels: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"probabilities|labels"):
        score(np.array(probabilities, dtype=np.float32), labels)


def test_there_are_bins() -> None:
    with pytest.raises(ValueError, match="0 bins"):
        expected_calibration_error(np.array([[1, 0]], dtype=np.float32), [0], bins=0)


@given(st.integers(5, 40), st.integers(0, 1000), st.sampled_from([0.9, 0.95, 0.99]), st.booleans())
def test_slopes_are_scipys(points: int, seed: int, confidence: float, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.permutation(points).astype(float), rng.normal(size=points)
    if tied:
        x, y = x // 2, np.round(y, 1)
    expected = theilslopes(y, x, alpha=confidence)
    interval = slope_interval(x.tolist(), y.tolist(), confidence)
    assert interval.estimate == pytest.approx(expected.slope)
    if math.isfinite(interval.low):
        assert (interval.low, interval.high) == pytest.approx((expected.low_slope, expected.high_slope))
    else:  # scipy gives the smallest and the largest slope, though they hold the truth more rarely than asked
        assert points < 10


def test_memory_that_stays_has_no_slope() -> None:
    assert slope_interval(range(15), [7.0] * 15) == Interval(0, 0, 0)


def test_slopes_are_sens() -> None:
    """The example of Sen 1968, as scipy's own tests cite it: slope 4, and 3.71 to 4.38 hold it with 93 %."""
    x, y = [1, 2, 3, 4, 10, 12, 18], [9, 15, 19, 20, 45, 55, 78]
    interval = slope_interval(x, y, confidence=0.93)
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((3.71, 4, 4.38), abs=0.006)


def test_sens_interval_covers_the_slope() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(30)
    found = [slope_interval(x.tolist(), (3 * x + rng.standard_t(3, size=30)).tolist()) for _ in range(1000)]
    assert 0.93 <= np.mean([i.low <= 3 <= i.high for i in found]) <= 0.975


def test_a_jump_leaves_the_slope_and_few_points_leave_it_open() -> None:
    jumped = [2.0 * i + (1000 if i == 7 else 0) for i in range(20)]
    assert slope_interval(range(20), jumped).estimate == pytest.approx(2)
    assert slope_interval([1, 2, 3, 4], [1, 2, 3, 4.5]) == Interval(-math.inf, pytest.approx(13 / 12), math.inf)
    # Of five points' ten slopes, all are on one side of the true one in 2 of 120 orders: rarer than 5 %.
    assert slope_interval([0, 1, 2, 3, 4], [0, 1, 4, 9, 16]) == Interval(1, 4, 7)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(-50, 50)), min_size=2, max_size=15).filter(
        lambda points: len({x for x, _ in points}) > 1
    )
)
def test_a_slope_mirrors_and_knows_no_order(points: list[tuple[int, int]]) -> None:
    x, y = zip(*points, strict=True)
    interval = slope_interval(x, y)
    assert interval.low <= interval.estimate <= interval.high
    assert slope_interval(*zip(*sorted(points), strict=True)) == interval
    assert slope_interval(x, [-v for v in y]) == Interval(-interval.high, -interval.estimate, -interval.low)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [1]), ([1, 1], [1, 2]), ([1, 2], [1])])
def test_no_slope_without_two_places(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="a slope"):
        slope_interval(x, y)


def test_what_a_million_texts_cost() -> None:
    assert per_million_cost(1e6 / 3600, 0.5) == pytest.approx(0.5)  # one hour
    assert per_million_cost(100, 0.36) == pytest.approx(1.0)  # 10,000 seconds at 0.0001
    for idle in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="texts a second"):
            per_million_cost(idle, 1)
