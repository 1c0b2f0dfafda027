"""Which artifact to ship: the fastest that keeps the user's limits, and why not the others. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.judge.stats import Interval, verdict
from bench.judge.summary import Latency, Row, Summary, speed_between
from bench.results import BenchRecord
from exporter.int8.budget import AccuracyChange
from exporter.records import MERGED, ONNX_FP16, ONNX_FP32, ONNX_INT8

SHIPPABLE = (MERGED, ONNX_FP32, ONNX_FP16, ONNX_INT8)


@dataclass(frozen=True)
class Recommendation:
    """What to ship."""

    engine: str | None
    """None where nothing keeps the limits."""
    sentence: str
    rejected: tuple[str, ...]
    """Why not the others, a line each, the fastest first."""


@dataclass(frozen=True)
class Option:
    """A row that could be shipped."""

    row: Row
    latency: Latency
    objection: str | None
    """The limit that it breaks."""

    @property
    def name(self) -> str:
        """The engine's."""
        return self.row.info.name

    @property
    def on_disk(self) -> int:
        """Bytes that a machine needs to serve it, installed packages included."""
        return (self.row.info.size_bytes or 0) + self.row.info.packages_bytes

    @property
    def speed(self) -> float:
        """Times faster than the reference."""
        return self.latency.speed.estimate


def recommend(record: BenchRecord, summary: Summary) -> Recommendation:
    """Choose among the artifacts measured on the device asked for: within all limits, the fastest one by one.

    A faster one only counts as such beyond the noise: of those that cannot be told apart from the fastest, the
    smallest, installed packages included, is taken.
    """
    options = [
        Option(row, row.latency, _objection(row, row.latency, record))
        for row in summary.rows
        if row.latency
        and row.info.artifact in SHIPPABLE
        and not row.info.is_peer
        and row.info.device == record.config.device
    ]
    if not options:
        return Recommendation(None, f"Nothing to ship was measured on `{record.config.device}`.", ())
    options.sort(key=lambda option: -option.speed)
    fit = [option for option in options if option.objection is None]
    if not fit:
        lines = tuple(f"`{option.name}`: {option.objection}" for option in options)
        return Recommendation(None, "Nothing measured here keeps the limits.", lines)
    floor = summary.single_floor
    close = [option for option in fit if not _is_beaten(option, fit[0], record, floor)]
    best = min(close, key=lambda option: option.on_disk)
    lines = tuple(
        f"`{o.name}`: {o.objection or _comparison(o, best, fit[0], record, floor)}" for o in options if o is not best
    )
    return Recommendation(best.name, _sentence(best, record), lines)


def _objection(row: Row, latency: Latency, record: BenchRecord) -> str | None:
    """Return the limit that a row breaks, None where it keeps all."""
    config = record.config
    if row.info.name == record.reference and row.info.precision != "fp32":
        return "its accuracy was compared with nothing: measure an engine in fp32, too"
    if row.accuracy and row.accuracy.change:
        moved = row.accuracy.change
        if row.judgement == "over budget":
            return f"accuracy {change(moved)}, beyond the {config.max_drop:g} points of `--max-drop`"
        # fp32 that answers as the reference does only reorders its sums: no number of texts would show a difference.
        is_exact = row.info.precision == "fp32" and moved.harmful + moved.helpful == 0
        if row.judgement == "undecided" and not (is_exact or record.accept_undecided):
            return (
                f"accuracy {change(moved)}: {moved.texts:,} texts cannot tell whether it stays within "
                f"{config.max_drop:g} points"
            )
    size = row.info.size_bytes or 0
    if config.max_size_mb and size > config.max_size_mb * 1e6:
        return f"{size / 1e6:.1f} MB, above `--max-size-mb {config.max_size_mb:g}`"
    return _too_slow(latency, config.max_p95_ms) if config.max_p95_ms else None


def _too_slow(latency: Latency, max_p95_ms: float) -> str | None:
    p95 = latency.own_p95_s or next(tail.value_s for tail in latency.tails if tail.name == "p95")
    if p95 is None:
        return "its p95 is not known: more `--calls` or `--restarts` tell it"
    return f"p95 {p95 * 1e3:.1f} ms, above `--max-p95-ms {max_p95_ms:g}`" if p95 * 1e3 > max_p95_ms else None


def _is_beaten(option: Option, by: Option, record: BenchRecord, floor: float) -> bool:
    """Tell whether another is faster beyond doubt."""
    speed = speed_between(record, option.name, by.name)
    return speed is not None and verdict(speed, floor) == "faster"


def _comparison(option: Option, best: Option, fastest: Option, record: BenchRecord, floor: float) -> str:
    if _is_beaten(option, best, record, floor):
        return f"{best.speed / option.speed:.2f}× slower, {(option.row.info.size_bytes or 0) / 1e6:.1f} MB"
    if _is_beaten(option, fastest, record, floor):
        return f"slower than `{fastest.name}`, from which the one to ship is not told apart"
    return f"not told apart in speed, and larger: {option.on_disk / 1e6:.0f} MB with its packages"


def _sentence(best: Option, record: BenchRecord) -> str:
    info, scores, bulk = best.row.info, best.row.accuracy, best.row.throughput
    parts = []
    if best.name != record.reference:
        words = {
            "faster": f"{ratio(best.latency.speed)} the speed of `{record.reference}`",
            "slower": f"slower than `{record.reference}`, {ratio(best.latency.speed)} its speed",
            "cannot tell": f"speed not told apart from that of `{record.reference}`, {ratio(best.latency.speed)}",
        }
        parts.append(words[best.latency.verdict])
    if scores and scores.change:
        parts.append(f"accuracy {change(scores.change)}")
    parts.append(f"{(info.size_bytes or 0) / 1e6:.1f} MB")
    if bulk and bulk.cost_per_million is not None:
        parts.append(f"{bulk.cost_per_million:.2f} per million texts")
    return f"Ship `{info.name}`: {', '.join(parts)}."


def ratio(speed: Interval) -> str:
    """Render a ratio with its interval."""
    return f"{speed.estimate:.2f}× {ends(speed)}"


def ends(interval: Interval, shape: str = "{:.2f}") -> str:
    """Render the ends of an interval, either of which may be infinite."""
    low, high = (
        shape.format(end) if math.isfinite(end) else ("∞" if end > 0 else "-∞") for end in (interval.low, interval.high)
    )
    return f"[{low}, {high}]"


def change(of: AccuracyChange) -> str:
    """Render a change of accuracy in percentage points with its interval."""
    return f"{in_points(of.change)} points [{in_points(of.lower)}, {in_points(of.upper)}]"


def in_points(share: float) -> str:
    """Render a share as percentage points with their sign; what rounds to nothing is +0.00."""
    return f"{round(100 * share, 2) + 0.0:+.2f}"
