"""Two benchmarks of the same classifier, side by side: is the second slower or less accurate beyond noise?

Absolute times of two sessions differ with the machine's mood. Each backend is therefore compared by its speed over the
reference of its own session, whose drift both shared; the reference itself is shown and not judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.backends import choose_specs
from bench.config import BenchConfig
from bench.results import BenchRecord, Environment
from bench.setting import reference_of
from bench.stats import Interval, verdict
from bench.summary import Summary, summarise
from bench.verdict import ratio
from exporter.budget import AccuracyChange, accuracy_change, count_changes
from trainer.errors import UserError
from trainer.records import read_record

SAME_MACHINE = ("system", "cpu", "usable_cores", "threads", "gpu")


class WorseError(UserError):
    """A backend became slower or less accurate."""

    exit_code = 4


@dataclass(frozen=True)
class Difference:
    """What became of one backend."""

    backend: str
    single: Interval | None
    """Its speed over the reference now, as a multiple of what it was before: one review at a time."""
    bulk: Interval | None
    """And in bulk."""
    accuracy: AccuracyChange | None
    """None where other reviews were scored."""
    is_slower: bool
    is_less_accurate: bool


def load_earlier(path: Path, config: BenchConfig, here: Environment) -> BenchRecord:
    """Read the record of an earlier benchmark, to be compared with what `config` will measure `here`.

    Raises:
        UserError: it is none, did not finish, is of another machine than this one, or compares with a backend that is
            not to be measured now.
    """
    before = read_record(path, BenchRecord)
    if not before.is_complete:
        raise UserError(f"the benchmark `{path}` did not finish", "name one that did")
    for field in SAME_MACHINE:
        old, new = getattr(before.environment, field), getattr(here, field)
        if old != new and not config.any_machine:
            raise UserError(
                f"`{path}` was measured on another machine: {field} {old}, here {new}", "add `--any-machine` to compare"
            )
    specs = [spec for spec in choose_specs(config.backends) if spec.device == "cpu" or here.gpu]
    if specs:
        _check_reference(before, reference_of(specs).name)
    return before


def _check_reference(before: BenchRecord, reference: str) -> None:
    if before.reference != reference:
        raise UserError(
            f"the earlier benchmark compares with `{before.reference}`, this one with `{reference}`",
            "measure the same `--backends`",
        )


def compare(before: BenchRecord, now: BenchRecord) -> list[Difference]:
    """Compare the backends that both have measured.

    Raises:
        UserError: the two have another reference.
    """
    _check_reference(before, now.reference)
    old, new = summarise(before), summarise(now)
    names = [row.info.name for row in new.rows if old.row(row.info.name)]
    return [_difference(name, before, now, old, new, len(names)) for name in names]


def _difference(name: str, before: BenchRecord, now: BenchRecord, old: Summary, new: Summary, tried: int) -> Difference:
    rows = [summary.row(name) for summary in (old, new)]
    single = _change_of_speed([row.latency.speed if row and row.latency else None for row in rows])
    bulk = _change_of_speed([row.throughput.speed if row and row.throughput else None for row in rows])
    accuracy = _change_of_accuracy(name, before, now, tried)
    is_slower = any(
        speed is not None and verdict(speed, (1 + earlier) * (1 + later) - 1) == "slower"
        for speed, earlier, later in (
            (single, old.single_floor, new.single_floor),
            (bulk, old.bulk_floor, new.bulk_floor),
        )
    )
    return Difference(
        backend=name,
        single=single,
        bulk=bulk,
        accuracy=accuracy,
        is_slower=name != now.reference and is_slower,
        is_less_accurate=accuracy is not None and accuracy.upper < 0,
    )


def _change_of_speed(speeds: Sequence[Interval | None]) -> Interval | None:
    """Return the ratio of two ratios; the squares of their intervals' reaches, on a log scale, add up."""
    before, after = speeds
    if not before or not after or not all(s.low > 0 and math.isfinite(s.high) for s in (before, after)):
        return None
    estimate = after.estimate / before.estimate
    down = math.hypot(math.log(after.estimate / after.low), math.log(before.high / before.estimate))
    up = math.hypot(math.log(after.high / after.estimate), math.log(before.estimate / before.low))
    return Interval(estimate * math.exp(-down), estimate, estimate * math.exp(up))


def _change_of_accuracy(name: str, before: BenchRecord, now: BenchRecord, tried: int) -> AccuracyChange | None:
    if before.labels != now.labels or before.label_names != now.label_names:
        return None
    old, new = (next((a for a in record.accuracies if a.backend == name), None) for record in (before, now))
    if not old or not new:
        return None
    return accuracy_change(*count_changes(old.predicted, new.predicted, now.labels), len(now.labels), tried=tried)


def render(differences: list[Difference]) -> str:
    """Render the comparison, a line each."""
    lines = ["speed over the reference, as a multiple of what it was:"]
    for d in differences:
        single, bulk = (ratio(speed) if speed else "not compared" for speed in (d.single, d.bulk))
        accuracy = "other reviews"
        if d.accuracy:
            accuracy = f"{d.accuracy.harmful} answers turned wrong, {d.accuracy.helpful} right"
        worse = " SLOWER" * d.is_slower + " LESS ACCURATE" * d.is_less_accurate
        lines.append(f"{d.backend:<28} one by one {single}; bulk {bulk}; {accuracy}{worse}")
    return "\n".join(lines)


def refuse_worse(differences: list[Difference], path: Path) -> None:
    """Refuse a benchmark in which something became worse.

    Raises:
        WorseError: a backend is slower or less accurate than before, beyond noise.
    """
    worse = [d for d in differences if d.is_slower or d.is_less_accurate]
    if worse:
        named = ", ".join(f"`{d.backend}`" for d in worse)
        raise WorseError(f"worse than in `{path}`: {named}", "see the comparison above")
