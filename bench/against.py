"""Two benchmarks of the same classifier, side by side: is the second slower or less accurate beyond noise?

Absolute times of two sessions differ with the machine's mood. Each backend is therefore compared by its speed over the
reference of its own session, whose drift both shared; the reference itself is shown and not judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from bench.results import BenchRecord, Environment
from bench.stats import Interval
from bench.summary import Summary, summarise
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
    speed: Interval | None
    """Its speed over the reference now, as a multiple of what it was before."""
    accuracy: AccuracyChange | None
    """None where other reviews were scored."""
    is_slower: bool
    is_less_accurate: bool


def load_earlier(path: Path, here: Environment, *, any_machine: bool) -> BenchRecord:
    """Read the record of an earlier benchmark.

    Raises:
        UserError: it is none, or of another machine than this one.
    """
    before = read_record(path, BenchRecord)
    for field in SAME_MACHINE:
        old, new = getattr(before.environment, field), getattr(here, field)
        if old != new and not any_machine:
            raise UserError(
                f"`{path}` was measured on another machine: {field} {old}, here {new}", "add `--any-machine` to compare"
            )
    return before


def compare(before: BenchRecord, now: BenchRecord) -> list[Difference]:
    """Compare the backends that both have measured.

    Raises:
        UserError: the two have another reference.
    """
    if before.reference != now.reference:
        raise UserError(
            f"the earlier benchmark compares with `{before.reference}`, this one with `{now.reference}`",
            "measure the same `--backends`",
        )
    old, new = summarise(before), summarise(now)
    floor = (1 + old.single_floor) * (1 + new.single_floor) - 1
    return [_difference(row.info.name, before, now, old, new, floor) for row in new.rows if old.row(row.info.name)]


def _difference(
    name: str, before: BenchRecord, now: BenchRecord, old: Summary, new: Summary, floor: float
) -> Difference:
    speed = _change_of_speed(name, old, new)
    accuracy = _change_of_accuracy(name, before, now)
    return Difference(
        backend=name,
        speed=speed,
        accuracy=accuracy,
        is_slower=name != now.reference and speed is not None and speed.high < 1 / (1 + floor),
        is_less_accurate=accuracy is not None and accuracy.upper < 0,
    )


def _change_of_speed(name: str, old: Summary, new: Summary) -> Interval | None:
    """Return the ratio of two ratios; the squares of their intervals' reaches, on a log scale, add up."""
    rows = [summary.row(name) for summary in (old, new)]
    speeds = [row.latency.speed for row in rows if row and row.latency]
    if len(speeds) != 2 or not all(s.low > 0 and math.isfinite(s.high) for s in speeds):
        return None
    before, after = speeds
    estimate = after.estimate / before.estimate
    down = math.hypot(math.log(after.estimate / after.low), math.log(before.high / before.estimate))
    up = math.hypot(math.log(after.high / after.estimate), math.log(before.estimate / before.low))
    return Interval(estimate * math.exp(-down), estimate, estimate * math.exp(up))


def _change_of_accuracy(name: str, before: BenchRecord, now: BenchRecord) -> AccuracyChange | None:
    if before.labels != now.labels or before.label_names != now.label_names:
        return None
    old, new = (next((a for a in record.accuracies if a.backend == name), None) for record in (before, now))
    if not old or not new:
        return None
    return accuracy_change(*count_changes(old.predicted, new.predicted, now.labels), len(now.labels))


def render(differences: list[Difference]) -> str:
    """Render the comparison, a line each."""
    lines = []
    for d in differences:
        speed = f"{d.speed.estimate:.2f}× [{d.speed.low:.2f}, {d.speed.high:.2f}]" if d.speed else "not compared"
        accuracy = "other reviews"
        if d.accuracy:
            accuracy = f"{d.accuracy.harmful} answers turned wrong, {d.accuracy.helpful} right"
        worse = " SLOWER" * d.is_slower + " LESS ACCURATE" * d.is_less_accurate
        lines.append(f"{d.backend:<28} speed over the reference {speed}; {accuracy}{worse}")
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
