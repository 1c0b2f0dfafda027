"""Two benchmarks of the same classifier, side by side: is the second slower or less accurate beyond noise?

Absolute times of two sessions differ with the machine's mood. Each engine is therefore compared by its speed over the
reference of its own session, whose drift both shared; the reference itself is shown and not judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bench.config import BenchConfig
from bench.engines.table import choose_specs
from bench.judge.stats import Interval, verdict
from bench.judge.summary import summarise
from bench.judge.verdict import ratio
from bench.measure.workload import reference_of
from bench.results import BenchRecord, Environment
from exporter.int8.budget import AccuracyChange, accuracy_change, count_changes
from trainer.errors import UserError
from trainer.records import read_record

SAME_MACHINE = ("system", "cpu", "usable_cores", "threads", "gpu")


class WorseError(UserError):
    """An engine became slower or less accurate, or is gone."""

    exit_code = 4


@dataclass(frozen=True)
class Difference:
    """What became of one engine."""

    engine: str
    single: Interval | None
    """Its speed over the reference now, as a multiple of what it was before: one text at a time."""
    bulk: Interval | None
    """And in bulk."""
    accuracy: AccuracyChange | None
    """None where other texts were scored."""
    is_slower: bool = False
    is_less_accurate: bool = False
    is_gone: bool = False
    """It could be measured before and cannot now."""

    @property
    def is_worse(self) -> bool:
        """Whether anything of it became worse."""
        return self.is_slower or self.is_less_accurate or self.is_gone


def load_earlier(path: Path, config: BenchConfig, here: Environment) -> BenchRecord:
    """Read the record of an earlier benchmark, to be compared with what `config` will measure `here`.

    Raises:
        UserError: it is none, did not finish, is of another machine than this one, or compares with an engine that is
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
    wanted = choose_specs(config.engines, peers=config.peers)
    if before.reference not in {spec.name for spec in wanted}:
        _refuse_reference(before.reference, reference_of(wanted).name)
    return before


def _refuse_reference(before: str, now: str) -> NoReturn:
    raise UserError(
        f"the earlier benchmark compares with `{before}`, this one with `{now}`", "measure the same `--engines`"
    )


def compare(before: BenchRecord, now: BenchRecord) -> list[Difference]:
    """Compare what was measured before with what is measured now.

    Returns:
        One for each engine that both have, and for each that could not be measured any more.

    Raises:
        UserError: the two have another reference.
    """
    if before.reference != now.reference:
        _refuse_reference(before.reference, now.reference)
    old, new = summarise(before), summarise(now)
    pairs = [(earlier, row) for row in new.rows if (earlier := old.row(row.info.name))]
    found = []
    for earlier, row in pairs:
        single = _change_of_speed(*(r.latency.speed if r.latency else None for r in (earlier, row)))
        bulk = _change_of_speed(*(r.throughput.speed if r.throughput else None for r in (earlier, row)))
        is_slower = _is_slower(single, old.single_floor, new.single_floor) or _is_slower(
            bulk, old.bulk_floor, new.bulk_floor
        )
        accuracy = _change_of_accuracy(row.info.name, before, now, len(pairs))
        is_less_accurate = accuracy is not None and accuracy.upper < 0
        is_reference = row.info.name == now.reference
        found.append(
            Difference(row.info.name, single, bulk, accuracy, is_slower and not is_reference, is_less_accurate)
        )
    broken = {skipped.engine for skipped in now.skipped}
    gone = [row.info.name for row in old.rows if row.info.name in broken]
    return [*found, *(Difference(name, None, None, None, is_gone=True) for name in gone)]


def _is_slower(speed: Interval | None, *floors: float) -> bool:
    """Tell whether a change of speed is beyond the noise of both benchmarks."""
    return speed is not None and verdict(speed, math.prod(1 + floor for floor in floors) - 1) == "slower"


def _change_of_speed(before: Interval | None, after: Interval | None) -> Interval | None:
    """Return the ratio of two ratios; the squares of their intervals' reaches, on a log scale, add up."""
    if not before or not after or not all(s.low > 0 and math.isfinite(s.high) for s in (before, after)):
        return None
    estimate = after.estimate / before.estimate
    down = math.hypot(math.log(after.estimate / after.low), math.log(before.high / before.estimate))
    up = math.hypot(math.log(after.high / after.estimate), math.log(before.estimate / before.low))
    return Interval(estimate * math.exp(-down), estimate, estimate * math.exp(up))


def _change_of_accuracy(name: str, before: BenchRecord, now: BenchRecord, tried: int) -> AccuracyChange | None:
    if (before.evaluation_sha256, before.labels) != (now.evaluation_sha256, now.labels):
        return None
    old, new = (next((a for a in record.accuracies if a.engine == name), None) for record in (before, now))
    if not old or not new:
        return None
    return accuracy_change(*count_changes(old.predicted, new.predicted, now.labels), len(now.labels), tried=tried)


def render(differences: list[Difference]) -> str:
    """Render the comparison, a line each."""
    lines = ["speed over the reference, as a multiple of what it was:"]
    for d in differences:
        single, bulk = (ratio(speed) if speed else "not compared" for speed in (d.single, d.bulk))
        accuracy = "other texts"
        if d.accuracy:
            accuracy = f"{d.accuracy.harmful} answers turned wrong, {d.accuracy.helpful} right"
        worse = " SLOWER" * d.is_slower + " LESS ACCURATE" * d.is_less_accurate
        what = "NOT MEASURED NOW" if d.is_gone else f"one by one {single}; bulk {bulk}; {accuracy}{worse}"
        lines.append(f"{d.engine:<28} {what}")
    return "\n".join(lines)


def refuse_worse(differences: list[Difference], path: Path) -> None:
    """Refuse a benchmark in which something became worse.

    Raises:
        WorseError: an engine is slower or less accurate than before, beyond noise, or cannot be measured any more.
    """
    worse = [d for d in differences if d.is_worse]
    if worse:
        named = ", ".join(f"`{d.engine}`" for d in worse)
        raise WorseError(f"worse than in `{path}`: {named}", "see the comparison above")
