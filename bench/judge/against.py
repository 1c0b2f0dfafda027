"""Two benchmarks of the same classifier: is the second slower or less accurate, beyond noise?

Absolute times of two sessions differ with the state of the machine. Each engine is therefore compared by its speed over
the reference of its own session, since any drift affected both; the reference itself is shown and not judged.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.config import LEAST_RESTARTS, BenchConfig
from bench.engines.table import choose_engines, reference_of
from bench.judge.company import Others, company_text
from bench.judge.interval import Interval
from bench.judge.speed import within_reach, without_bounds
from bench.judge.stats import verdict
from bench.judge.summarise import summarise
from bench.judge.summary import Latency, Noise, Row, Summary, Throughput
from bench.results import BenchRecord, Environment
from exporter.int8.budget import ScoreChange
from exporter.int8.paired import pair
from trainer.errors import UserError
from trainer.records import read_record

SAME_MACHINE = ("system", "cpu", "usable_cores", "threads", "gpu")


class WorseError(UserError):
    """An engine became slower or less accurate, or could not be measured."""

    exit_code = 4


@dataclass(frozen=True)
class Difference:
    """What became of one engine."""

    engine: str
    single: Interval | None = None
    """Its speed over the reference now, divided by what it was: one text at a time."""
    bulk: Interval | None = None
    accuracy: ScoreChange | None = None
    """None where other texts were scored."""
    is_slower: bool = False
    is_less_accurate: bool = False
    is_gone: bool = False
    """It could be measured before and cannot now."""

    @property
    def has_interval(self) -> bool:
        """Whether a speed could be judged."""
        return any(ratio is not None and ratio.bounds is not None for ratio in (self.single, self.bulk))

    @property
    def is_worse(self) -> bool:
        """Whether it is in any way worse than before."""
        return self.is_slower or self.is_less_accurate or self.is_gone


def load_earlier(path: Path, config: BenchConfig, here: Environment) -> Summary:
    """Read an earlier benchmark, to be compared with what `config` will measure `here`.

    Raises:
        UserError: it is not a benchmark, did not finish, was measured on another machine, or its reference is not among
            the engines to measure now.
    """
    record = read_record(path, BenchRecord)
    if not record.is_complete:
        raise UserError(f"the benchmark `{path}` did not finish", "compare with a complete one")
    if not record.engines:
        raise UserError(f"the benchmark `{path}` is too old to be compared with", "measure that version again")
    for field in SAME_MACHINE:
        old, new = getattr(record.environment, field), getattr(here, field)
        if old != new and not config.any_machine:
            raise UserError(
                f"`{path}` was measured on another machine: {field} {old}, here {new}",
                "add `--any-machine` to compare all the same",
            )
    wanted = choose_engines(config.engines, peers=config.peers)
    if record.reference not in {spec.name for spec in wanted}:
        _check_reference(record.reference, reference_of(wanted).name)
    try:
        earlier = summarise(record)
    except (ValueError, KeyError, IndexError, ZeroDivisionError):
        raise UserError(f"the samples in `{path}` do not fit one another", "compare with another benchmark") from None
    _check_comparable(earlier, {spec.name for spec in wanted}, path)
    return earlier


def _check_comparable(earlier: Summary, wanted: Collection[str], path: Path) -> None:
    """Refuse an earlier benchmark that holds nothing to compare: a check that cannot fail would pass everything."""
    rows = [row for row in earlier.rows if row.info.name in wanted]
    others = [row for row in rows if not row.is_reference]
    if not any(row.accuracy for row in rows) and not any(row.latency or row.throughput for row in others):
        raise UserError(
            f"`{path}` has no measurement of an engine to measure now",
            "compare with a benchmark of the same `--engines`",
        )
    if not any(row.accuracy for row in rows) and not any(_has_interval(row.latency, row.throughput) for row in others):
        raise UserError(
            f"`{path}` has no interval of any speed, and no answers to compare",
            f"compare with a benchmark of {LEAST_RESTARTS} `--restarts` or more",
        )


def _has_interval(*measured: Latency | Throughput | None) -> bool:
    return any(one is not None and one.speed.bounds is not None for one in measured)


def _check_reference(before: str, now: str) -> None:
    if before != now:
        raise UserError(
            f"the earlier benchmark's reference is `{before}`, and this one's `{now}`", "measure the same `--engines`"
        )


def compare(before: Summary, now: Summary) -> list[Difference]:
    """Compare each engine that both benchmarks have, and name those that can no longer be measured.

    Raises:
        UserError: the two have different references, or nothing in common.
    """
    _check_reference(before.reference, now.reference)
    has_same_texts = _has_same_texts(before, now)
    single_floor = _joint_floor(before.single_noise, now.single_noise)
    bulk_floor = _joint_floor(before.bulk_noise, now.bulk_noise)
    pairs = [(old, new) for new in now.rows if (old := before.row(new.info.name))]
    is_crowded = bool(before.crowd or now.crowd)
    differences = []
    for old, new in pairs:
        single = _change_of_speed(old.latency, new.latency)
        bulk = _change_of_speed(old.throughput, new.throughput)
        accuracy = _change_of_accuracy(old, new, now, len(pairs)) if has_same_texts else None
        is_slower = not (new.is_reference or is_crowded)
        is_slower &= _is_slower(single, single_floor) or _is_slower(bulk, bulk_floor)
        is_less_accurate = accuracy is not None and accuracy.upper < 0
        differences.append(Difference(new.info.name, single, bulk, accuracy, is_slower, is_less_accurate))
    if not any(d.accuracy or (d.engine != now.reference and d.has_interval) for d in differences):
        raise UserError(
            "nothing of the earlier benchmark could be compared",
            f"compare with one of the same engines and texts, both with {LEAST_RESTARTS} `--restarts` or more",
        )
    failed = {skipped.engine for skipped in now.skipped}
    return [*differences, *(Difference(r.info.name, is_gone=True) for r in before.rows if r.info.name in failed)]


def _has_same_texts(before: Summary, now: Summary) -> bool:
    """Records older than the checksum of the evaluation file do not say which texts they scored."""
    texts = now.evaluation_sha256, now.labels
    return now.evaluation_sha256 != "" and (before.evaluation_sha256, before.labels) == texts


def _joint_floor(before: Noise, now: Noise) -> float:
    """Return the difference of speed below which both benchmarks together claim none."""
    return (1 + before.floor) * (1 + now.floor) - 1


def _is_slower(ratio: Interval | None, floor: float) -> bool:
    return ratio is not None and verdict(ratio, floor) == "slower"


def _change_of_speed(before: Latency | Throughput | None, now: Latency | Throughput | None) -> Interval | None:
    """Return the ratio of two ratios; on a log scale, the widths of their intervals add up as squares."""
    if not before or not now or not before.speed.estimate:  # zero, where a file holds absurd seconds
        return None
    old, new = before.speed, now.speed
    estimate = new.estimate / old.estimate
    if old.bounds is None or new.bounds is None:
        return without_bounds(estimate)
    down = math.hypot(math.log(new.estimate / new.low), math.log(old.high / old.estimate))
    up = math.hypot(math.log(new.high / new.estimate), math.log(old.estimate / old.low))
    return within_reach(Interval(estimate * math.exp(-down), estimate, estimate * math.exp(up)))


def _change_of_accuracy(before: Row, now: Row, summary: Summary, tried: int) -> ScoreChange | None:
    if not before.accuracy or not now.accuracy:
        return None
    task = summary.task
    answers = (task.truth(sets) for sets in (before.accuracy.predicted, now.accuracy.predicted, summary.labels))
    return pair(task, *answers).change(tried)


def refuse_worse(differences: Sequence[Difference], path: Path, crowd: Others | None = None) -> None:
    """Refuse what is worse than before, and what was not judged.

    Raises:
        WorseError: an engine became worse beyond noise, or can no longer be measured.
        UserError: a `crowd` was there in one of the benchmarks, so that no speed was judged: a check that passes then
            would pass everything.
    """
    worse = [f"`{difference.engine}`" for difference in differences if difference.is_worse]
    if worse:
        raise WorseError(f"worse than in `{path}`: {', '.join(worse)}", "see the comparison above")
    if crowd:
        text = company_text(crowd)
        raise UserError(
            f"speeds were not compared with `{path}`: in one of the two benchmarks, {text[0].lower()}{text[1:]}",
            "measure both on a quiet machine",
        )
