"""One text at a time: how long it takes, by length, and beside what the machine allows. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from bench.judge.interval import Speed
from bench.judge.looks import SPEED_CONFIDENCE
from bench.judge.speed import ByRestart, speed_of, with_verdict
from bench.judge.stats import percentile, samples_needed
from bench.judge.summary import PERCENTILES, Calls, Latency, LengthLatency, Tail
from bench.results import BenchRecord, Bulk, EngineInfo, Machine, Single
from exporter.proof.timing import spread

WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
NEIGHBOURS = 5
"""Timed texts of similar length that stand for one of the user's texts."""
CALLS_PER_RANGE = 20
MAX_RANGES = 8


def latency_of(
    record: BenchRecord, info: EngineInfo, singles: Sequence[Single], speed: Speed, by_length: tuple[LengthLatency, ...]
) -> Latency:
    """Return what an engine's calls with one text each show; the record knows the machine and the user's lengths."""
    totals = [s for single in singles for s in single.total_s]
    tokens = [n for single in singles for n in single.tokens]
    parts = [(t, a, b) for s in singles for t, a, b in zip(s.total_s, s.tokenise_s, s.run_s, strict=bool(s.run_s))]
    return Latency(
        total_s=calls_of(totals),
        tokenise_s=median(tokenise for _, tokenise, _ in parts) if parts else None,
        run_s=median(run for _, _, run in parts) if parts else None,
        rest_s=median(total - tokenise - run for total, tokenise, run in parts) if parts else None,
        tails=tuple(Tail(share, percentile(totals, share), samples_needed(share)) for share in PERCENTILES),
        speed=speed,
        by_length=by_length,
        attainable=_attainable_share(record.machine, info, singles),
        own_p95_s=expected_percentile(tokens, totals, record.own_tokens, 0.95),
        warmup_calls=median(single.warmup_calls for single in singles),
        largest_gap=max(single.largest_gap for single in singles),
    )


def calls_of(samples: Sequence[float]) -> Calls:
    """Return samples with their quartiles and extremes."""
    quartiles = spread(samples)
    return Calls(quartiles.low, quartiles.median, quartiles.high, min(samples), max(samples), tuple(samples))


def length_ranges(tokens: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return ranges of lengths, both ends included, with about equally many of the calls in each."""
    ordered = sorted(tokens)
    count = min(MAX_RANGES, max(1, len(ordered) // CALLS_PER_RANGE))
    starts = sorted({ordered[len(ordered) * i // count] for i in range(count)}) if ordered else []
    ends = [max(n for n in ordered if n < following) for following in starts[1:]]
    return tuple(zip(starts, [*ends, *ordered[-1:]], strict=True))


def latencies_by_length(
    singles: Sequence[Single],
    reference: Sequence[Single],
    ranges: Sequence[tuple[int, int]],
    floor: float,
    confidence: float = SPEED_CONFIDENCE,
) -> tuple[LengthLatency, ...]:
    """Return the latency of an engine in each range of lengths in which it was asked.

    Nothing is compared for the reference itself, whose `reference` is empty.
    """
    latencies = []
    for least, most in ranges:
        tokens, seconds = _within(singles, least, most)
        if tokens:
            ratio = speed_of(_within(reference, least, most)[1], seconds, confidence)
            speed = with_verdict(ratio, floor) if ratio else None
            middle = median(s for own in seconds.values() for s in own if s is not None)
            latencies.append(LengthLatency(least, median(tokens), middle, speed))
    return tuple(latencies)


def _within(singles: Sequence[Single], least: int, most: int) -> tuple[list[int], ByRestart]:
    """Return the tokens of the calls in a range of lengths, and the seconds of these by restart."""
    tokens, seconds = [], {}
    for single in singles:
        inside = [least <= n <= most for n in single.tokens]
        if any(inside):
            tokens += [n for n, is_inside in zip(single.tokens, inside, strict=True) if is_inside]
            timed = [s if is_inside else None for s, is_inside in zip(single.total_s, inside, strict=True)]
            seconds[single.restart] = by_round(timed, single.every)
    return tokens, seconds


def by_round(seconds: Sequence[float | None], every: int) -> list[float | None]:
    """Return the seconds of calls that were made in every so manieth round, with None for the rounds between."""
    rounds: list[float | None] = [None] * (every * len(seconds))
    rounds[::every] = seconds
    return rounds


def _attainable_share(machine: Machine | None, info: EngineInfo, singles: Sequence[Single]) -> float | None:
    """Return the share of what this machine can do at most that the median call reaches.

    A call takes at least its multiplications at the measured peak, those inside attention in fp32, and at least the
    reading of the weights that it multiplies by: the longer one counts (Williams et al. 2009, "Roofline"). None where
    the machine, or the engine's run alone, was not measured.
    """
    calls = [call for single in singles for call in zip(single.tokens, single.run_s, strict=bool(single.run_s))]
    peaks = _peaks(machine, info)
    if machine is None or not calls or info.precision not in peaks:
        return None
    weights_s = machine.product_weights * WEIGHT_BYTES[info.precision] / machine.bytes_per_s
    shares = []
    for tokens, seconds in calls:
        products_s = (machine.flops_per_token * tokens + machine.flops_per_text) / peaks[info.precision]
        attention_s = machine.flops_per_token_squared * tokens * tokens / peaks["fp32"]
        shares.append(max(products_s + attention_s, weights_s) / seconds)
    return median(shares)


def product_share(machine: Machine | None, info: EngineInfo, bulks: Sequence[Bulk]) -> float | None:
    """Return the share of an engine's bulk time that its products with constant matrices take at the measured peak.

    The rest is everything else: attention, the other operators, and what the products fall short of the peak by. None
    where the machine was not measured, and for a cascade, which leaves out most products.
    """
    peaks = _peaks(machine, info)
    if machine is None or info.precision not in peaks or any(bulk.first_stage for bulk in bulks):
        return None
    asked = sum(machine.flops_per_token * sum(b.tokens) + machine.flops_per_text * sum(b.texts) for b in bulks)
    return asked / peaks[info.precision] / sum(sum(bulk.seconds) for bulk in bulks)


def _peaks(machine: Machine | None, info: EngineInfo) -> dict[str, float]:
    """Return the operations a second of the fastest product by precision; none for an engine that is on no CPU."""
    return {limit.precision: limit.flops for limit in machine.limits} if machine and info.device == "cpu" else {}


def expected_percentile(
    tokens: Sequence[int], seconds: Sequence[float], own_tokens: Sequence[int], share: float
) -> float | None:
    """Return a percentile of the latency to expect for texts of other lengths than those timed.

    Each of the user's texts is represented by the timed texts nearest to it in length, five or as many as are equally
    near, with equal weights.

    Returns:
        Seconds; None without texts of the user's, and where too few were timed for this percentile.
    """
    if not own_tokens or len(tokens) < samples_needed(share):
        return None
    lengths, times = np.asarray(tokens), np.asarray(seconds)
    weights = np.zeros(len(times))
    for n in own_tokens:
        distances = np.abs(lengths - n)
        near = distances <= np.sort(distances)[min(NEIGHBOURS, len(lengths)) - 1]
        weights[near] += 1 / near.sum()
    order = np.argsort(times)
    reached = np.cumsum(weights[order]) / len(own_tokens)
    return float(times[order][min(int(np.searchsorted(reached, share)), len(times) - 1)])
