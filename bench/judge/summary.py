"""What the samples of a benchmark say: one row an engine, every comparison against the reference. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np

from bench.config import LEAST_PAIRS
from bench.judge.stats import (
    Interval,
    Verdict,
    noise_floor,
    per_million_cost,
    percentile,
    samples_needed,
    slope_interval,
    speed_ratio_interval,
    verdict,
)
from bench.results import Accuracy, BenchRecord, Bulk, ColdStart, EngineInfo, Grid, Machine, Memory, Single, Soak
from exporter.int8.budget import Judgement, judge
from exporter.proof.timing import Spread, spread

T = TypeVar("T", Single, Bulk, Grid)

PERCENTILES = (0.90, 0.95, 0.99, 0.999)
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Of a weight."""
SOAK_BLOCKS = 20
"""Into how many parts the calls of a memory soak are cut; neighbouring calls are alike, parts less so."""
NEIGHBOURS = 5
"""Timed texts of similar length that stand for one of the user's texts."""


@dataclass(frozen=True)
class Tail:
    """A percentile of the latency, or how many samples it would take."""

    share: float
    value_s: float | None
    samples_needed: int

    @property
    def name(self) -> str:
        """Such as `p99`."""
        return f"p{100 * self.share:g}"


@dataclass(frozen=True)
class Latency:
    """One text at a time, text to label, in seconds."""

    calls: int
    total_s: Spread
    tokenise_s: float | None
    """Median; None for a peer."""
    run_s: float | None
    rest_s: float | None
    tails: tuple[Tail, ...]
    speed: Interval
    """Times faster than the reference."""
    verdict: Verdict
    attainable: float | None
    """Share of what the machine can do at most, from 0 to 1; None where that was not measured."""
    own_p95_s: float | None
    """Expected for the texts of `--texts`."""


@dataclass(frozen=True)
class Throughput:
    """Scoring many texts, in the batches that suit the engine best."""

    batching: str
    texts_per_s: Spread
    """Of the restarts."""
    tokens_per_s: float
    """Their median."""
    speed: Interval
    verdict: Verdict
    cost_per_million: float | None


@dataclass(frozen=True)
class Start:
    """New process to first answer, in seconds; the parts are medians."""

    total_s: Spread
    import_s: float
    load_s: float
    first_s: float


@dataclass(frozen=True)
class Row:
    """All that there is to say of one engine. What was not measured is None."""

    info: EngineInfo
    accuracy: Accuracy | None
    judgement: Judgement | None
    """Of its accuracy against the reference's, by the budget; None for the reference."""
    latency: Latency | None
    throughput: Throughput | None
    start: Start | None
    memory: Memory | None
    growth_bytes: Interval | None
    """Of resident memory with each call, over a soak of texts of all lengths."""


@dataclass(frozen=True)
class GridCell:
    """One engine's batches of so many texts of so many tokens, model only."""

    engine: str
    batch: int
    length: int
    seconds: Spread
    speed: Interval | None
    """Times faster than the reference at the same cell; None where that was not measured."""
    verdict: Verdict


@dataclass(frozen=True)
class Summary:
    """A benchmark's rows, the reference first, then by latency."""

    rows: tuple[Row, ...]
    grid: tuple[GridCell, ...]
    single_floor: float
    """Difference of speed, as a share, below which two engines cannot be told apart, one text at a time."""
    bulk_floor: float
    again_single: Interval | None
    """Speed of the reference's second process over its first; 1 but for noise."""
    again_bulk: Interval | None

    def row(self, name: str) -> Row | None:
        """Return the row of an engine, None where there is none."""
        return next((row for row in self.rows if row.info.name == name), None)


def summarise(record: BenchRecord) -> Summary:
    """Derive every statistic from a record's samples.

    Of an interrupted benchmark, an engine is compared with the reference where both have the same restarts.
    """
    singles = _by_engine(record.singles)
    bulks = _by_engine(record.bulks)
    single_speeds = _speeds({n: {s.restart: s.total_s for s in of} for n, of in singles.items()}, record.reference)
    bulk_speeds = _speeds({n: {b.restart: b.seconds for b in of} for n, of in bulks.items()}, record.reference)
    again_single, again_bulk = (speeds.get(record.again or "") for speeds in (single_speeds, bulk_speeds))
    single_speeds, bulk_speeds = (
        {name: speed if name == record.reference else not_surer(speed, again) for name, speed in speeds.items()}
        for speeds, again in ((single_speeds, again_single), (bulk_speeds, again_bulk))
    )
    single_floor, bulk_floor = (noise_floor([i] if i else []) for i in (again_single, again_bulk))
    rows = []
    for info in record.engines:
        name = info.name
        scores = next((a for a in record.accuracies if a.engine == name), None)
        has_single, has_bulk = name in single_speeds, name in bulk_speeds
        rows.append(
            Row(
                info=info,
                accuracy=scores,
                judgement=judge(scores.change, record.config.max_drop / 100) if scores and scores.change else None,
                latency=_latency(record, info, singles[name], single_speeds[name], single_floor)
                if has_single
                else None,
                throughput=_throughput(record, bulks[name], bulk_speeds[name], bulk_floor) if has_bulk else None,
                start=_start([c for c in record.cold_starts if c.engine == name]),
                memory=next((m for m in record.memories if m.engine == name), None),
                growth_bytes=next((_growth(soak) for soak in record.soaks if soak.engine == name), None),
            )
        )
    order = {row.info.name: row.latency.total_s.median if row.latency else math.inf for row in rows}
    order[record.reference] = -1.0
    return Summary(
        tuple(sorted(rows, key=lambda row: order[row.info.name])),
        _grid(record, single_floor),
        single_floor,
        bulk_floor,
        again_single,
        again_bulk,
    )


def _by_engine(taken: Sequence[T]) -> dict[str, list[T]]:
    """Return what each engine has, in the order of the restarts."""
    of: dict[str, list[T]] = {}
    for one in sorted(taken, key=lambda one: one.restart):
        of.setdefault(one.engine, []).append(one)
    return of


def _speeds(seconds: Mapping[str, Mapping[int, Sequence[float]]], reference: str) -> dict[str, Interval]:
    """Return the speed over the reference of each engine that shares a restart with it."""
    if reference not in seconds:
        return {}
    speeds = {name: speed_of(seconds[reference], of) for name, of in seconds.items()}
    return {name: speed for name, speed in speeds.items() if speed}


def speed_of(baseline: Mapping[int, Sequence[float]], candidate: Mapping[int, Sequence[float]]) -> Interval | None:
    """Return how many times faster the candidate is, with an interval that a rerun of the benchmark agrees with.

    Two restarts whose processes were started in opposite orders are one repetition: what a process loses by being
    started before another, it gains back in the other. With fewer than three such pairs every restart is one; from
    three on, a restart without its other half is left out. One repetition does not show how much they differ: its
    interval holds everything.

    Args:
        baseline: the seconds of each round, by restart.
        candidate: seconds for the same work in the same rounds.

    Returns:
        None where they share no restart.
    """
    common = sorted(baseline.keys() & candidate.keys())
    pairs = [(g, g + 1) for g in common if g % 2 == 0 and g + 1 in common]
    units = pairs if len(pairs) >= LEAST_PAIRS else [(g,) for g in common]
    if not units:
        return None
    before = [[s for g in unit for s in baseline[g]] for unit in units]
    after = [_levelled([baseline[g] for g in unit], [candidate[g] for g in unit]) for unit in units]
    found = speed_ratio_interval(before, after)
    return found if len(units) > 1 else Interval(0.0, found.estimate, math.inf)


def not_surer(speed: Interval, again: Interval | None) -> Interval:
    """Return a speed over the reference, not narrower than the noise of the reference alone allows.

    A comparison of it with itself has its noise twice, one with another engine once and the other's. Five repetitions
    may agree by luck, and what they say of all engines is more than what they say of one.

    Args:
        speed: of an engine over the reference.
        again: of the reference's second process over its first.
    """
    if again is None or again.low <= 0 or speed.low <= 0:
        return speed
    least = math.log(again.high / again.low) / 2 / math.sqrt(2)
    low, high = speed.estimate * math.exp(-least), speed.estimate * math.exp(least)
    return Interval(min(speed.low, low), speed.estimate, max(speed.high, high))


def _levelled(baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]]) -> list[float]:
    """Return the candidate's seconds with the restarts' medians of the ratio moved to their mean.

    Otherwise the median of two groups that lie apart would be any value between them.
    """
    logs = [np.log(after) - np.log(before) for before, after in zip(baseline, candidate, strict=True)]
    medians = [np.median(ratios) for ratios in logs]
    moves = [float(np.exp(np.mean(medians) - own)) for own in medians]
    return [move * seconds for move, after in zip(moves, candidate, strict=True) for seconds in after]


def _grid(record: BenchRecord, floor: float) -> tuple[GridCell, ...]:
    """Compare every cell with the reference's."""
    seconds: dict[tuple[str, int, int], dict[int, Sequence[float]]] = {}
    for cell in record.grids:
        seconds.setdefault((cell.engine, cell.batch, cell.length), {})[cell.restart] = cell.samples_s
    cells = []
    for (name, batch, length), of in seconds.items():
        speed = speed_of(seconds.get((record.reference, batch, length), {}), of)
        taken = [s for samples in of.values() for s in samples]
        how = verdict(speed, floor) if speed else "cannot tell"
        cells.append(GridCell(name, batch, length, spread(taken), speed, how))
    return tuple(cells)


def _latency(record: BenchRecord, info: EngineInfo, taken: Sequence[Single], speed: Interval, floor: float) -> Latency:
    totals = [s for single in taken for s in single.total_s]
    tokens = [n for single in taken for n in single.tokens]
    parts = [(t, a, b) for s in taken for t, a, b in zip(s.total_s, s.tokenise_s, s.run_s, strict=bool(s.run_s))]
    own = expected_percentile(tokens, totals, record.own_tokens, 0.95) if record.own_tokens else None
    return Latency(
        calls=len(totals),
        total_s=spread(totals),
        tokenise_s=median(a for _, a, _ in parts) if parts else None,
        run_s=median(b for _, _, b in parts) if parts else None,
        rest_s=median(t - a - b for t, a, b in parts) if parts else None,
        tails=tuple(Tail(q, percentile(totals, q), samples_needed(q)) for q in PERCENTILES),
        speed=speed,
        verdict=verdict(speed, floor),
        attainable=_attainable(record.machine, info, tokens, [b for _, _, b in parts]) if parts else None,
        own_p95_s=own,
    )


def _attainable(
    machine: Machine | None, info: EngineInfo, tokens: Sequence[int], run_s: Sequence[float]
) -> float | None:
    """Return the share of what this machine can do that the median call reaches.

    A call takes at least its multiplications at the measured peak, those inside attention in fp32, and at least the
    reading of the weights that it multiplies by: the longer one counts (Williams et al. 2009, "Roofline").
    """
    peaks = {limit.precision: limit.flops for limit in machine.limits} if machine else {}
    if machine is None or info.device != "cpu" or info.precision not in peaks:
        return None
    weights_s = machine.product_weights * BYTES[info.precision] / machine.bytes_per_s
    shares = []
    for n, seconds in zip(tokens, run_s, strict=True):
        products_s = machine.flops_per_token * n / peaks[info.precision]
        attention_s = machine.flops_per_token_squared * n * n / peaks["fp32"]
        shares.append(max(products_s + attention_s, weights_s) / seconds)
    return median(shares)


def speed_between(record: BenchRecord, slow: str, fast: str) -> Interval | None:
    """Return how many times as fast as one engine another is, one by one; None where they share no restart."""
    before, after = ({s.restart: s.total_s for s in record.singles if s.engine == name} for name in (slow, fast))
    return speed_of(before, after)


def speeds_by_length(record: BenchRecord, name: str, ranges: Sequence[tuple[int, int]]) -> list[Interval | None]:
    """Return how many times faster than the reference an engine is on texts of each range of lengths, one by one.

    Args:
        record: what was measured.
        name: the engine's.
        ranges: least and most tokens.

    Returns:
        One for each range; None where the two share no call.
    """

    def within(engine: str, least: int, most: int) -> dict[int, list[float]]:
        taken = {
            single.restart: [s for n, s in zip(single.tokens, single.total_s, strict=True) if least <= n <= most]
            for single in record.singles
            if single.engine == engine
        }
        return {restart: seconds for restart, seconds in taken.items() if seconds}

    return [speed_of(within(record.reference, *ends), within(name, *ends)) for ends in ranges]


def _throughput(record: BenchRecord, taken: Sequence[Bulk], speed: Interval, floor: float) -> Throughput:
    per_s = spread([sum(b.texts) / sum(b.seconds) for b in taken])
    price = record.config.price_per_hour
    return Throughput(
        batching=taken[0].batching,
        texts_per_s=per_s,
        tokens_per_s=median(sum(b.tokens) / sum(b.seconds) for b in taken),
        speed=speed,
        verdict=verdict(speed, floor),
        cost_per_million=per_million_cost(per_s.median, price) if price else None,
    )


def _start(taken: Sequence[ColdStart]) -> Start | None:
    if not taken:
        return None
    return Start(
        spread([c.total_s for c in taken]),
        median(c.import_s for c in taken),
        median(c.load_s for c in taken),
        median(c.first_s for c in taken),
    )


def _growth(soak: Soak) -> Interval | None:
    """Return by how many bytes resident memory grows with a call, by the medians of successive parts."""
    parts = np.array_split(np.asarray(soak.rss_bytes), min(SOAK_BLOCKS, len(soak.rss_bytes) or 1))
    centres = np.cumsum([len(part) for part in parts]) - np.array([len(part) / 2 for part in parts])
    return slope_interval(centres.tolist(), [float(np.median(part)) for part in parts]) if len(parts) > 2 else None


def expected_percentile(
    tokens: Sequence[int], seconds: Sequence[float], own_tokens: Sequence[int], share: float
) -> float | None:
    """Return a percentile of the latency to expect for texts of other lengths than those timed.

    Every text is answered for by the timed texts nearest to it in length, five or as many as are equally near, in
    equal parts.

    Args:
        tokens: of the timed texts.
        seconds: that each of them took.
        own_tokens: of the texts to expect.
        share: from 0 to 1.

    Returns:
        Seconds; None where too few texts were timed for this percentile.
    """
    if len(tokens) < samples_needed(share):
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
