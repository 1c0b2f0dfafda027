"""Which engine to ship: the fastest within the user's limits, and why not the others. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from bench.judge.company import MOST_COMPANY, Others, company_text
from bench.judge.interval import change_text, ratio_text
from bench.judge.looks import confidence_of
from bench.judge.speed import ByRestart, speed_of
from bench.judge.stats import verdict
from bench.judge.summary import Latency, Recommendation, Row
from bench.results import BenchRecord


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
    def total_bytes(self) -> int:
        """Of all that a machine needs to serve it, installed packages included."""
        return (self.row.info.size_bytes or 0) + self.row.info.packages_bytes

    @property
    def speed(self) -> float:
        """Times faster than the reference."""
        return self.latency.speed.estimate


def recommend(
    record: BenchRecord,
    rows: Sequence[Row],
    seconds: Mapping[str, ByRestart],
    floor: float,
    others: Others | None = None,
) -> Recommendation:
    """Choose among the engines measured on the device asked for: within all limits, the fastest with single texts.

    Among those without a measurable speed difference from the fastest, the smallest is chosen, installed packages
    included. `seconds` are of each engine's calls with one text; no difference of speed is claimed below `floor`, and
    none at all where `others` used too much of the machine.
    """
    device = record.config.device
    options = [
        Option(row, row.latency, _objection(row, row.latency, record))
        for row in rows
        if row.latency and row.info.can_ship and row.info.device == device
    ]
    options.sort(key=lambda option: -option.speed)
    allowed = [option for option in options if option.objection is None]
    if not allowed:
        nothing = f"No engine that can be shipped was measured on `{device}`."
        sentence = "No engine stays within the limits." if options else nothing
        return Recommendation(None, sentence, _objections(options))
    if others and others.is_too_much:
        return Recommendation(None, _refusal(others), _objections(options))

    @cache
    def is_slower(name: str, other: str) -> bool:
        confidence = confidence_of(record.config)
        ratio = speed_of(seconds[name], seconds[other], confidence) if name != other else None
        return ratio is not None and verdict(ratio, floor) == "faster"

    fastest = allowed[0].name
    best = min((o for o in allowed if not is_slower(o.name, fastest)), key=lambda option: option.total_bytes)
    lines = tuple(
        f"`{option.name}`: {option.objection or _comparison(option, best, fastest, is_slower)}"
        for option in options
        if option is not best
    )
    is_told_apart = all(option.row.is_reference or option.latency.speed.verdict != "cannot tell" for option in options)
    is_told_apart &= all(option.name == fastest or is_slower(option.name, fastest) for option in allowed)
    return Recommendation(best.name, _sentence(best, record.reference), lines, is_told_apart)


def _objections(options: Sequence[Option]) -> tuple[str, ...]:
    return tuple(f"`{option.name}`: {option.objection}" for option in options if option.objection)


def _refusal(others: Others) -> str:
    text = company_text(others)
    most = f"{MOST_COMPANY * others.cores:g}"
    return (
        f"No verdict: {text[0].lower()}{text[1:]}; beside more than {most} of them, speeds say too little of this "
        "machine. Measure on a quieter machine."
    )


def _objection(row: Row, latency: Latency, record: BenchRecord) -> str | None:
    """Return the limit that a row breaks, None where it stays within all."""
    config = record.config
    if row.is_reference and row.info.precision != "fp32":
        return "no fp32 engine was measured to compare its accuracy with"
    if row.accuracy and row.accuracy.change:
        change = row.accuracy.change
        if row.judgement == "over budget":
            return f"{change.metric} {change_text(change)}, a larger loss than `--max-drop {config.max_drop:g}` allows"
        # fp32 that answers as the reference does only reorders its sums: no number of texts would show a difference.
        is_exact = row.info.precision == "fp32" and change.harmful + change.helpful == 0 == change.change
        if row.judgement == "undecided" and not (is_exact or record.accept_undecided):
            return (
                f"{change.metric} {change_text(change)}: {change.texts:,} texts are too few to tell whether the loss "
                f"stays within {config.max_drop:g} points"
            )
    if config.max_size_mb and (row.info.size_bytes or 0) > config.max_size_mb * 1e6:
        return f"{_size(row)}, above `--max-size-mb {config.max_size_mb:g}`"
    return _too_slow(latency, config.max_p95_ms) if config.max_p95_ms else None


def _size(row: Row) -> str:
    return f"{(row.info.size_bytes or 0) / 1e6:.1f} MB"


def _too_slow(latency: Latency, max_p95_ms: float) -> str | None:
    p95 = latency.own_p95_s or next(tail.value_s for tail in latency.tails if tail.name == "p95")
    if p95 is None:
        return "its p95 is unknown: measure more `--calls` or `--restarts`"
    return f"p95 {p95 * 1e3:.1f} ms, above `--max-p95-ms {max_p95_ms:g}`" if p95 * 1e3 > max_p95_ms else None


def _comparison(option: Option, best: Option, fastest: str, is_slower: Callable[[str, str], bool]) -> str:
    if is_slower(option.name, best.name):
        return f"{best.speed / option.speed:.2f}× slower, {_size(option.row)}"
    if is_slower(option.name, fastest):
        return f"slower than `{fastest}`, which has no measurable speed difference from `{best.name}`"
    size = f"{option.total_bytes / 1e6:.0f} MB with its packages"
    if option.latency.speed.bounds is None:
        return f"which of it and `{best.name}` is faster is unknown, since speeds have no interval; larger: {size}"
    return f"no measurable speed difference from `{best.name}`, but larger: {size}"


def _sentence(best: Option, reference: str) -> str:
    scores, bulk, speed = best.row.accuracy, best.row.throughput, best.latency.speed
    parts = []
    if not best.row.is_reference:
        phrases = {
            "faster": f"{ratio_text(speed)} the speed of `{reference}`",
            "slower": f"slower than `{reference}`, {ratio_text(speed)} its speed",
            "cannot tell": f"no measurable speed difference from `{reference}`, {ratio_text(speed)}",
        }
        unknown = f"{speed.estimate:.2f}× the speed of `{reference}` with no interval, so that nothing is claimed of it"
        parts.append(phrases[speed.verdict] if speed.bounds else unknown)
    if scores and scores.change:
        parts.append(f"{scores.change.metric} {change_text(scores.change)}")
    parts.append(_size(best.row))
    if bulk and bulk.cost_per_million is not None:
        parts.append(f"{bulk.cost_per_million:.2f} per million texts")
    return f"Ship `{best.name}`: {', '.join(parts)}."
