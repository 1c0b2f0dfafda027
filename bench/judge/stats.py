"""Statistics of raw samples. Pure functions."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from bench.judge.interval import Interval, Verdict
from trainer.tasks import FloatArray

Array = npt.NDArray[np.float64]
Rounds = Sequence[Sequence[float]]
"""Seconds, [restarts][rounds]."""

BLOCKS = 5
"""Into how many the rounds of a restart are cut for resampling. In simulated drift, few long blocks kept the coverage
best; Student's t allows for how few they are."""
EARLY_STOPPING_CONFIDENCE = 0.99
"""Of MLPerf's rule for percentiles."""


def speed_ratio_interval(
    baseline: Rounds, candidate: Rounds, *, confidence: float = 0.99, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Estimate how many times faster the candidate is, with an interval that a rerun of the benchmark agrees with.

    Each restart has a speed of its own, because of its memory layout for example. The estimate is the geometric mean of
    the restarts' median ratios, and the interval is Student's for these medians. It is never narrower than the
    bootstrap over blocks of rounds makes it; with one restart, the bootstrap is all there is.

    At 99 % it holds the estimate of a second, equally long run in more than 90 % of cases, since the difference of two
    runs spreads only sqrt(2) times as widely as one. Two or three restarts give a very wide interval: use at least
    five. One restart cannot show how much restarts differ, and its interval holds for that one only. Both sides do the
    same work in the same round.

    Returns:
        Times faster, above 1 where the candidate is faster; (0, estimate, infinity) for a single sample.

    Raises:
        ValueError: the samples do not pair up, are missing, or are not positive and finite; or the confidence is not
            between 0 and 1.

    Source: Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time", ISMM, for the interval over the
    highest level that is repeated; Kuensch 1989, "The jackknife and the bootstrap for general stationary
    observations", Annals of Statistics 17, for blocks.
    """
    _check_confidence(confidence)
    logs = _log_ratios(baseline, candidate)
    # Over four real benchmarks the median of all rounds varied half as much again: where restarts lie apart, it can be
    # any value between them.
    estimate = math.fsum(float(np.median(rounds)) for rounds in logs) / len(logs)
    reaches = [_reach_of_rounds(logs, confidence, resamples, seed), _reach_of_restarts(logs, confidence)]
    reach = max((r for r in reaches if r is not None), default=math.inf)
    with np.errstate(over="ignore"):  # a reach past the largest float is infinite
        low, middle, high = np.exp([estimate - reach, estimate, estimate + reach])
    return Interval(float(low), float(middle), float(high))


def noise_floor(second: Interval | None, least: float = 0.02) -> float:
    """Return the smallest share by which speeds differ beyond noise: 0.03 for an estimate of 1.03 or 1 / 1.03.

    It is the difference between two processes of the same engine (an A/A test), due to their placement for example.
    Only the estimate counts: the interval of a ratio that is compared with the floor has the same noise already.
    `least` allows for what no comparison within one session shows, such as another day.
    """
    return max(least, max(second.estimate, 1 / second.estimate) - 1) if second else least


def verdict(ratio: Interval, floor: float) -> Verdict:
    """Say whether an engine is faster or slower than the baseline by more than `floor`, as `noise_floor` returns it.

    A loss is compared with 1 / (1 + floor), so that swapping the two engines swaps the verdict.

    Raises:
        ValueError: the floor is negative.
    """
    if floor < 0:
        raise ValueError(f"a noise floor of {floor}")
    if ratio.low > 1 + floor:
        return "faster"
    return "slower" if ratio.high < 1 / (1 + floor) else "cannot tell"


def samples_needed(percentile: float) -> int:
    """Return how many samples the estimate of a percentile needs.

    With so many, two or more lie above the true percentile with 99 % confidence: 64 for 0.90, 662 for 0.99.

    Raises:
        ValueError: the percentile, a share of calls, is not from 0.5 to below 1.

    Source: MLPerf LoadGen, `loadgen/early_stopping.cc` and `results.cc`, for the single-stream scenario: the least
    h + t with t = 1 slower call, tolerance 0 and confidence 0.99.
    """
    if not 0.5 <= percentile < 1:
        raise ValueError(f"percentile {percentile} is not from 0.5 to below 1")

    def are_enough(samples: int) -> bool:
        at_most_one = percentile ** (samples - 1) * (percentile + samples * (1 - percentile))
        return at_most_one <= 1 - EARLY_STOPPING_CONFIDENCE

    enough = 2
    while not are_enough(enough):
        enough *= 2
    return bisect_left(range(enough), True, key=are_enough)


def percentile(samples: Sequence[float], q: float) -> float | None:
    """Estimate a percentile where there are samples enough for it.

    It is interpolated linearly, as the quartiles of `exporter.proof.timing.spread` are. MLPerf reports an upper bound
    instead, which is the maximum where the samples just suffice: that is no estimate to compare engines by.

    Returns:
        In the unit of the samples; None where there are fewer than `samples_needed(q)`.

    Raises:
        ValueError: `q`, a share of samples, is not from 0.5 to below 1.
    """
    return float(np.quantile(samples, q)) if len(samples) >= samples_needed(q) else None


def mcnemar_exact(harmful: int, helpful: int) -> float:
    """Return the exact two-sided p-value of a change in accuracy: how likely a split as uneven is at even odds.

    Harmful answers went from right to wrong, helpful ones from wrong to right.

    Raises:
        ValueError: a count is negative.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12; in its exact form, the sign test.
    """
    from scipy.stats import binomtest

    if min(harmful, helpful) < 0:
        raise ValueError(f"{harmful} harmful and {helpful} helpful changes")
    return float(binomtest(harmful, harmful + helpful).pvalue) if harmful + helpful else 1.0


def expected_calibration_error(probabilities: FloatArray, labels: Sequence[int], bins: int = 15) -> float:
    """Return how far the confidence in the answers is from their accuracy, over bins of equal width.

    The probabilities are [texts, classes]. The bins divide (0, 1], and each holds its upper edge.

    Returns:
        The mean over texts of |accuracy - mean confidence| in the bin of their top class's probability, from 0 to 1.

    Raises:
        ValueError: there are no bins, the rows are not probabilities, or not each has its label.

    Source: Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", ICML, equation 3.
    """
    if bins < 1:
        raise ValueError(f"{bins} bins")
    rows, truth = _checked(probabilities, labels)
    confidences = rows.max(axis=1)
    chosen_bin = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(chosen_bin, weights=(rows.argmax(axis=1) == truth) - confidences)
    return float(np.abs(gaps).sum() / len(truth))


def brier_score(probabilities: FloatArray, labels: Sequence[int]) -> float:
    """Return the mean squared distance of the probabilities from the truth: from 0, certain and right, to 2.

    The squares are summed over the classes, as Brier defined it. For two classes this is twice what scikit-learn's
    `brier_score_loss` returns without `scale_by_half=False`. The probabilities are [texts, classes].

    Raises:
        ValueError: the rows are not probabilities, or not each has its label.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78.
    """
    rows, truth = _checked(probabilities, labels)
    return float(((rows - np.eye(rows.shape[1])[truth]) ** 2).sum(axis=1).mean())


def slope_interval(x: Sequence[float], y: Sequence[float], confidence: float = 0.95) -> Interval:
    """Estimate how fast `y` grows with `x`, such as memory with time, undisturbed by single jumps.

    Scipy's `theilslopes` does the same, but fails where most values are equal, as resident memory is.

    The confidence is that for independent noise; where neighbours are correlated, the interval is too narrow. All
    pairs are compared, so that thousands of points take seconds.

    Returns:
        In units of `y` for each unit of `x`; an end is infinite where there are too few points for the confidence.

    Raises:
        ValueError: the two differ in length, `x` has fewer than two values, or the confidence is not between 0 and 1.

    Source: Sen 1968, "Estimates of the regression coefficient based on Kendall's tau", Journal of the American
    Statistical Association 63.
    """
    if len(x) != len(y) or len(set(x)) < 2:
        raise ValueError(f"a slope of {len(y)} values over {len(set(x))} of {len(x)} places")
    _check_confidence(confidence)
    slopes = _pairwise_slopes(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    variance = (_kendall(len(x)) - sum(_kendall(ties) for axis in (x, y) for ties in Counter(axis).values())) / 18
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(max(variance, 0.0))
    rank = round((len(slopes) - reach) / 2) - 1
    low, high = (slopes[rank], slopes[-1 - rank]) if rank >= 0 else (-math.inf, math.inf)
    return Interval(float(low), float(np.median(slopes)), float(high))


def per_million_cost(texts_per_s: float, price_per_hour: float) -> float:
    """Return what it costs to classify a million texts on a machine of this price that is never idle.

    Raises:
        ValueError: the throughput is not positive.
    """
    if not texts_per_s > 0:
        raise ValueError(f"{texts_per_s} texts a second")
    return 1e6 / texts_per_s / 3600 * price_per_hour


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}")


def _log_ratios(baseline: Rounds, candidate: Rounds) -> list[Array]:
    """Return log(baseline / candidate) of every round, by restart."""
    if not baseline:
        raise ValueError("no restarts")
    logs = []
    for before, after in zip(baseline, candidate, strict=True):
        seconds = np.array(list(zip(before, after, strict=True)), dtype=float)
        if not seconds.size:
            raise ValueError("a restart without samples")
        if not (np.isfinite(seconds) & (seconds > 0)).all():
            raise ValueError("seconds that are not positive and finite")
        logs.append(np.log(seconds[:, 0]) - np.log(seconds[:, 1]))
    return logs


def _reach_of_restarts(logs: Sequence[Array], confidence: float) -> float | None:
    """Return how far an interval reaches by the spread of the restarts' medians, None for one restart."""
    if len(logs) == 1:
        return None
    error = float(np.std([np.median(rounds) for rounds in logs], ddof=1)) / math.sqrt(len(logs))
    return _student_t(confidence, len(logs) - 1) * error


def _reach_of_rounds(logs: Sequence[Array], confidence: float, resamples: int, seed: int) -> float | None:
    """Return how far an interval reaches by the spread of the rounds, None for one round a restart."""
    rng = np.random.default_rng(seed)
    variance, freedom = 0.0, 0
    for rounds in logs:
        length = math.ceil(len(rounds) / BLOCKS)
        starts = rng.integers(len(rounds), size=(resamples, math.ceil(len(rounds) / length), 1))
        # The last block is followed by the first: so no round is drawn less often for being near an end.
        drawn = ((starts + np.arange(length)) % len(rounds)).reshape(resamples, -1)[:, : len(rounds)]
        variance += float(np.var(np.median(rounds[drawn], axis=1), ddof=1)) / len(logs) ** 2
        freedom += starts.shape[1] - 1
    return _student_t(confidence, freedom) * math.sqrt(variance) if freedom else None


def _student_t(confidence: float, freedom: int) -> float:
    """Return the t that Student's variable stays within, to either side, with a probability of `confidence`."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom))


def _checked(probabilities: FloatArray, labels: Sequence[int]) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return both as arrays, or raise ValueError."""
    rows, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if rows.ndim != 2 or not rows.size or truth.shape != rows.shape[:1]:
        raise ValueError(f"probabilities of shape {rows.shape} for labels of shape {truth.shape}")
    if truth.min() < 0 or truth.max() >= rows.shape[1]:
        raise ValueError(f"labels from {truth.min()} to {truth.max()} for {rows.shape[1]} classes")
    if not (rows >= 0).all() or not np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        raise ValueError("rows that are not probabilities")
    return rows, truth


def _pairwise_slopes(x: Array, y: Array) -> Array:
    """Return the slopes between all pairs of points at different `x`, sorted."""
    first, second = np.triu_indices(len(x), 1)
    runs, rises = x[second] - x[first], y[second] - y[first]
    return np.sort(rises[runs != 0] / runs[runs != 0])


def _kendall(count: int) -> int:
    """Return 18 times the variance of Kendall's statistic for `count` values, or what so many equal ones take off."""
    return count * (count - 1) * (2 * count + 5)
