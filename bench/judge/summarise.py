"""Samples to summary: every statistic of a benchmark, derived once. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TypeVar

import numpy as np

from bench.judge.company import others_of
from bench.judge.interval import Interval, Speed
from bench.judge.latency import by_round, calls_of, latencies_by_length, latency_of, length_ranges, product_share
from bench.judge.looks import confidence_of
from bench.judge.speed import ByRestart, compare_with_reference, speed_of, with_verdict
from bench.judge.stats import per_million_cost, slope_interval
from bench.judge.summary import Batching, ColdStarts, GridCell, Latency, Noise, Row, SecondProcess, Summary, Throughput
from bench.judge.verdict import recommend
from bench.results import BenchRecord, Bulk, ColdStart, EngineInfo, Single, Soak
from exporter.int8.budget import judge
from exporter.proof.timing import spread
from trainer.tasks import task_of

Measured = TypeVar("Measured", Single, Bulk)

SOAK_BLOCKS = 20
"""Into how many parts the calls of a memory soak are cut; neighbouring calls are alike, parts less so."""


def summarise(record: BenchRecord) -> Summary:
    """Derive every statistic from a record's samples.

    In an interrupted benchmark, an engine is compared with the reference over the restarts that both have.
    """
    singles, bulks = _by_engine(record.singles), _by_engine(record.bulks)
    totals = singles_by_restart(record)
    ranges = length_ranges([n for single in singles.get(record.reference, ()) for n in single.tokens])
    others = others_of(record.companies)
    is_crowded = others is not None and others.is_too_much
    latencies, single_noise = _latencies(record, singles, totals, ranges, is_crowded=is_crowded)
    throughputs, bulk_noise = _throughputs(record, bulks, is_crowded=is_crowded)
    rows = [_row(record, info, latencies.get(info.name), throughputs.get(info.name)) for info in record.engines]
    rows.sort(key=lambda row: (not row.is_reference, row.latency.total_s.median if row.latency else math.inf))
    return Summary(
        config=record.config,
        is_complete=record.is_complete,
        ended_by=record.ended_by,
        confidence=confidence_of(record.config),
        others=others,
        evaluation_texts=record.evaluation_texts,
        environment=record.environment,
        machine=record.machine,
        export_sha256=record.export_sha256,
        evaluation_sha256=record.evaluation_sha256,
        chosen=record.chosen,
        task=task_of(record.task, len(record.label_names)),
        pairs=record.pairs,
        labels=record.labels,
        duration_s=record.duration_s,
        finished_at=record.finished_at,
        restarts=len({single.restart for single in record.singles}),
        calls=max((len(single.total_s) for single in record.singles), default=0),
        soak_calls=max((len(soak.tokens) for soak in record.soaks), default=0),
        reference=record.reference,
        second_process=_second_process(record.second_process, totals),
        rows=tuple(rows),
        length_ranges=ranges,
        grid=_grid(record, math.inf if is_crowded else single_noise.floor),
        cascade=record.cascade,
        single_noise=single_noise,
        bulk_noise=bulk_noise,
        skipped=record.skipped,
        recommendation=recommend(record, rows, totals, single_noise.floor, others),
    )


def singles_by_restart(record: BenchRecord) -> dict[str, ByRestart]:
    """Return the seconds of each engine's calls with one text, round by round."""
    singles = _by_engine(record.singles)
    return {name: {single.restart: by_round(single.total_s, single.every) for single in own}
            for name, own in singles.items()}  # fmt: skip


def bulks_by_restart(record: BenchRecord) -> dict[str, ByRestart]:
    """Return the seconds of each engine for a token of a long list, part by part."""
    bulks = _by_engine(record.bulks)
    return {name: {bulk.restart: _per_token(bulk) for bulk in own} for name, own in bulks.items()}


def _by_engine(rows: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return what each engine has, in the order of the restarts."""
    engines: dict[str, list[Measured]] = {}
    for row in sorted(rows, key=lambda row: row.restart):
        engines.setdefault(row.engine, []).append(row)
    return engines


def _latencies(
    record: BenchRecord,
    singles: Mapping[str, Sequence[Single]],
    totals: Mapping[str, ByRestart],
    ranges: Sequence[tuple[int, int]],
    *,
    is_crowded: bool,
) -> tuple[dict[str, Latency], Noise]:
    confidence = confidence_of(record.config)
    speeds, noise = compare_with_reference(
        totals, record.reference, record.second_process, confidence, is_crowded=is_crowded
    )
    floor, latencies = math.inf if is_crowded else noise.floor, {}
    for info in record.engines:
        name = info.name
        if name in speeds:
            baseline = singles[record.reference] if name != record.reference else ()
            by_length = latencies_by_length(singles[name], baseline, ranges, floor, confidence)
            latencies[name] = latency_of(record, info, singles[name], speeds[name], by_length)
    return latencies, noise


def _second_process(name: str | None, totals: Mapping[str, ByRestart]) -> SecondProcess | None:
    if name is None or name not in totals:
        return None
    return SecondProcess(name, calls_of([s for own in totals[name].values() for s in own if s is not None]))


def _throughputs(
    record: BenchRecord, bulks: Mapping[str, Sequence[Bulk]], *, is_crowded: bool
) -> tuple[dict[str, Throughput], Noise]:
    seconds = bulks_by_restart(record)
    confidence = confidence_of(record.config)
    speeds, noise = compare_with_reference(
        seconds, record.reference, record.second_process, confidence, is_crowded=is_crowded
    )
    price = record.config.price_per_hour
    infos = {info.name: info for info in record.engines}
    found = {
        name: _throughput(bulks[name], speed, price, product_share(record.machine, infos[name], bulks[name]))
        for name, speed in speeds.items()
        if name in infos
    }
    return found, noise


def _per_token(bulk: Bulk) -> list[float]:
    """Return the seconds of each part for a token: an engine far behind has fewer texts in a part than the others."""
    return [seconds / tokens for seconds, tokens in zip(bulk.seconds, bulk.tokens, strict=True)]


def _throughput(
    bulks: Sequence[Bulk], speed: Speed, price_per_hour: float | None, product_share: float | None
) -> Throughput:
    per_s = spread([sum(bulk.texts) / sum(bulk.seconds) for bulk in bulks])
    return Throughput(
        batching=bulks[0].batching,
        texts_per_s=per_s,
        tokens_per_s=median(sum(bulk.tokens) / sum(bulk.seconds) for bulk in bulks),
        speed=speed,
        cost_per_million=per_million_cost(per_s.median, price_per_hour) if price_per_hour else None,
        product_share=product_share,
        first_stage_share=_first_stage_share(bulks),
    )


def _first_stage_share(bulks: Sequence[Bulk]) -> float | None:
    counts = [count for bulk in bulks for count in bulk.first_stage or ()]
    return sum(counts) / sum(sum(bulk.texts) for bulk in bulks) if counts else None


def _row(record: BenchRecord, info: EngineInfo, latency: Latency | None, throughput: Throughput | None) -> Row:
    accuracy = next((scores for scores in record.accuracies if scores.engine == info.name), None)
    change = accuracy.change if accuracy else None
    return Row(
        info=info,
        is_reference=info.name == record.reference,
        accuracy=accuracy,
        judgement=judge(change, record.config.max_drop / 100) if change else None,
        latency=latency,
        throughput=throughput,
        batchings=_batchings(record, info.name),
        start=_cold_starts([start for start in record.cold_starts if start.engine == info.name]),
        memory=next((memory for memory in record.memories if memory.engine == info.name), None),
        growth_bytes=next((_growth(soak) for soak in record.soaks if soak.engine == info.name), None),
    )


def _batchings(record: BenchRecord, engine: str) -> tuple[Batching, ...]:
    chosen = {bulk.batching for bulk in record.bulks if bulk.engine == engine}
    tried = []
    for trial in (trial for trial in record.batching_trials if trial.engine == engine):
        per_s = [trial.texts / seconds for seconds in trial.seconds]
        rates = min(per_s), median(per_s), max(per_s)
        tried.append(Batching(trial.batching, trial.texts, *rates, is_chosen=trial.batching in chosen))
    return tuple(tried)


def _cold_starts(starts: Sequence[ColdStart]) -> ColdStarts | None:
    if not starts:
        return None
    return ColdStarts(
        spread([start.total_s for start in starts]),
        median(start.import_s for start in starts),
        median(start.load_s for start in starts),
        median(start.first_s for start in starts),
    )


def _growth(soak: Soak) -> Interval | None:
    """Return by how many bytes resident memory grows with a call, by the medians of successive parts."""
    parts = np.array_split(np.asarray(soak.rss_bytes), min(SOAK_BLOCKS, len(soak.rss_bytes) or 1))
    centres = np.cumsum([len(part) for part in parts]) - np.array([len(part) / 2 for part in parts])
    return slope_interval(centres.tolist(), [float(np.median(part)) for part in parts]) if len(parts) > 2 else None


def _grid(record: BenchRecord, floor: float) -> tuple[GridCell, ...]:
    """Compare every cell with the reference's."""
    cells: dict[tuple[str, int, int], dict[int, Sequence[float]]] = {}
    for cell in record.grids:
        cells.setdefault((cell.engine, cell.batch, cell.length), {})[cell.restart] = cell.samples_s
    compared = []
    for (engine, batch, length), seconds in cells.items():
        ratio = speed_of(cells.get((record.reference, batch, length), {}), seconds, confidence_of(record.config))
        speed = with_verdict(ratio, floor) if ratio else None
        quartiles = spread([s for samples in seconds.values() for s in samples])
        compared.append(GridCell(engine, batch, length, quartiles, speed))
    return tuple(compared)
