"""What this project promises, above all of speed, beside what was measured. Pure functions.

Each goal is a ratio within one benchmark, so that the machine is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from bench.judge.interval import Interval
from bench.judge.latency import product_share
from bench.judge.speed import ByRestart, speed_of, without_bounds
from bench.judge.stats import percentile
from bench.judge.summarise import bulks_by_restart, singles_by_restart
from bench.results import BenchRecord, EngineInfo
from exporter.int8.budget import accuracy_change

if TYPE_CHECKING:
    from bench.training.record import TrainingSpeed
    from exporter.records import ExportRecord

PEER = "optimum-pipeline-int8"
"""On a CPU: another tool's int8, in the batches that suit it best."""
GPU_PEER = "transformers-pipeline-fp16-cuda"


@dataclass(frozen=True)
class Goal:
    """One promise."""

    what: str
    against: str
    wanted: Literal["at least", "at most"]
    bound: float
    found: Interval | None
    """None where it was not measured."""
    unit: str = "×"

    @property
    def is_met(self) -> bool:
        """Whether the estimate keeps the promise."""
        if self.found is None:
            return False
        return self.found.estimate >= self.bound if self.wanted == "at least" else self.found.estimate <= self.bound


def goals(
    record: BenchRecord, training: TrainingSpeed | None, export: ExportRecord, trained_s: float | None
) -> list[Goal]:
    """Return the goals for the device of a benchmark, with what its records say.

    Args:
        record: of the benchmark.
        training: how fast a training was beside a plain one, where that was measured.
        export: of the export.
        trained_s: how long the run's training took in all.
    """
    if record.config.device == "cuda":
        found = [*_on_a_gpu(record), *_commands_on_a_gpu(export, trained_s)]
    else:
        found = [*_on_a_cpu(record), *_of_cascades(record, export)]
    least = 3.0 if record.config.device == "cuda" else 4.0
    return [*found, Goal("training", "plain `Trainer` + peft, fp32", "at least", least, _training(training))]


def _on_a_cpu(record: BenchRecord) -> Iterator[Goal]:
    has_amx = "AMX" in record.environment.instruction_sets
    singles, bulks = singles_by_restart(record), bulks_by_restart(record)
    ours, engines = f"{record.chosen}-cpu", [engine.name for engine in record.engines]
    cascades = {bulk.engine for bulk in record.bulks if bulk.first_stage}
    by_openvino = _fastest(bulks, [name for name in engines if name.endswith("-openvino") and name not in cascades])
    yield Goal(f"many texts, `{ours}`", PEER, "at least", 1.6 if has_amx else 1.3, _speed(bulks, PEER, ours))
    bound, name = 2.5 if has_amx else 1.6, by_openvino or "openvino"
    yield Goal(f"many texts, `{name}`", PEER, "at least", bound, _speed(bulks, PEER, by_openvino))
    yield Goal(f"one text, `{ours}`", PEER, "at most", 0.8, _inverse(_speed(singles, PEER, ours)))
    best = _fastest(bulks, [engine.name for engine in _int8(record) if engine.name not in cascades])
    rate = "onnxruntime's fastest int8 products here"
    yield Goal(f"many texts, `{best or 'int8'}`", rate, "at least", 0.7, _share_of_rate(record, best))
    starts = _by_engine([(start.engine, start.total_s) for start in record.cold_starts])
    yield Goal(f"process to first answer, `{ours}`", PEER, "at most", 0.2, _ratio(starts, ours, PEER))
    peaks = _by_engine([(m.engine, float(m.peak_bytes)) for m in record.memories if m.peak_bytes])
    yield Goal(f"peak memory, `{ours}`", PEER, "at most", 0.5, _ratio(peaks, ours, PEER))


def _of_cascades(record: BenchRecord, export: ExportRecord) -> Iterator[Goal]:
    """Yield what is promised of a cascade beside its model alone: it has to be faster, and as right and as small."""
    singles, bulks = singles_by_restart(record), bulks_by_restart(record)
    cascades = {bulk.engine for bulk in record.bulks if bulk.first_stage}
    for both in (engine for engine in record.engines if engine.name in cascades):
        ours = [e for e in record.engines if not e.is_peer and e.name not in cascades]
        alone = next((e.name for e in ours if e.artifact == both.artifact), "its model")
        name = f"`{both.name}`"
        yield Goal(f"many texts, {name}", alone, "at least", 2.5, _speed(bulks, alone, both.name))
        yield Goal(f"many texts, {name}", PEER, "at least", 4, _speed(bulks, PEER, both.name))
        yield Goal(f"one text, {name}", alone, "at most", 0.15, _inverse(_speed(singles, alone, both.name)))
        yield Goal(f"one text, 95th percentile, {name}", alone, "at most", 1.05, _tails(record, both.name, alone))
        change = _change(record, alone, both.name)
        yield Goal(f"accuracy, {name}", alone, "at least", -0.5, change, " points")
        added = next((trial.added_bytes for trial in export.cascades if trial.artifact == both.artifact), None)
        megabytes = None if added is None else added / 1e6
        yield Goal(
            f"size of the artifact, {name}", f"{alone} without it", "at most", 1, _exactly(megabytes), " MB more"
        )


def _on_a_gpu(record: BenchRecord) -> Iterator[Goal]:
    singles, bulks = singles_by_restart(record), bulks_by_restart(record)
    ours = f"{record.chosen}-cuda"
    by_torch = _fastest(bulks, [e.name for e in record.engines if e.name.startswith("pytorch-") and e.device == "cuda"])
    yield Goal(f"many texts, `{ours}`", GPU_PEER, "at least", 15, _speed(bulks, GPU_PEER, ours))
    yield Goal(f"many texts, `{ours}`", by_torch or "PyTorch", "at least", 1, _speed(bulks, by_torch, ours))
    fp32 = "onnx-fp32-cuda"
    yield Goal(f"one text, `{ours}`", fp32, "at most", 0.6, _inverse(_speed(singles, fp32, ours)))


def _commands_on_a_gpu(export: ExportRecord, trained_s: float | None) -> Iterator[Goal]:
    yield Goal("`python -m trainer`, whole", "-", "at most", 45, _exactly(trained_s), " s")
    exported_s = export.duration_s if export.gpu else None
    yield Goal("`python -m exporter --target cuda`, whole", "-", "at most", 90, _exactly(exported_s), " s")


def table(record: BenchRecord, found: Sequence[Goal]) -> str:
    """Render goals as a Markdown table, below a line that says where they were measured."""
    where, versions = record.environment.gpu, record.environment.versions
    if record.config.device == "cpu" or where is None:
        where = f"{record.environment.cpu} ({', '.join(record.environment.instruction_sets)})"
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [f"{where}, {record.environment.threads} threads; {software}; {record.finished_at}", ""]
    lines += ["| what | against | goal | measured |  |", "|---|---|---:|---:|---|"]
    for goal in found:
        sign = "≥" if goal.wanted == "at least" else "≤"
        verdict = "not measured" if goal.found is None else "met" if goal.is_met else "missed"
        measured = _shown(goal.found, goal.unit)
        lines.append(f"| {goal.what} | {goal.against} | {sign} {goal.bound:g}{goal.unit} | {measured} | {verdict} |")
    return "\n".join(lines) + "\n"


def _shown(found: Interval | None, unit: str) -> str:
    if found is None:
        return "-"
    bounds = f" [{found.low:.2f}, {found.high:.2f}]" if found.low < found.high and found.bounds else ""
    return f"{found.estimate:.2f}{unit}{bounds}"


def _fastest(seconds: Mapping[str, ByRestart], names: Sequence[str]) -> str | None:
    measured = [name for name in names if name in seconds]
    return min(measured, key=lambda name: median(sum(filter(None, s)) for s in seconds[name].values()), default=None)


def _speed(seconds: Mapping[str, ByRestart], baseline: str | None, candidate: str | None) -> Interval | None:
    return speed_of(seconds.get(baseline or "", {}), seconds.get(candidate or "", {}))


def _inverse(speed: Interval | None) -> Interval | None:
    if speed is None:
        return None
    return Interval(1 / speed.high, 1 / speed.estimate, 1 / speed.low if speed.low else float("inf"))


def _share_of_rate(record: BenchRecord, engine: str | None) -> Interval | None:
    """Return the share of the machine's int8 rate at which an engine scored many texts, with its extremes."""
    info = next((info for info in record.engines if info.name == engine), None)
    bulks = [bulk for bulk in record.bulks if bulk.engine == engine]
    shares = [product_share(record.machine, info, [bulk]) for bulk in bulks] if info else []
    found = [share for share in shares if share is not None]
    return Interval(min(found), median(found), max(found)) if found else None


def _int8(record: BenchRecord) -> list[EngineInfo]:
    return [engine for engine in record.engines if engine.precision == "int8" and not engine.is_peer]


def _tails(record: BenchRecord, ours: str, theirs: str) -> Interval | None:
    """Return the ratio of the 95th percentiles of single calls; None where there are too few for one."""
    own, other = (
        percentile([s for single in record.singles if single.engine == engine for s in single.total_s], 0.95)
        for engine in (ours, theirs)
    )
    return without_bounds(own / other) if own and other else None


def _change(record: BenchRecord, before: str, after: str) -> Interval | None:
    """Return the change of the accuracy from one engine to another, in points, with its paired interval."""
    answers = {accuracy.engine: accuracy.predicted for accuracy in record.accuracies}
    if before not in answers or after not in answers:
        return None
    rows = [*zip(answers[before], answers[after], record.labels, strict=True)]
    harmful = sum(was == truth != now for was, now, truth in rows)
    helpful = sum(now == truth != was for was, now, truth in rows)
    change = accuracy_change(harmful, helpful, len(rows))
    return Interval(100 * change.lower, 100 * change.change, 100 * change.upper)


def _by_engine(rows: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, value in rows:
        found.setdefault(name, []).append(value)
    return found


def _ratio(values: Mapping[str, Sequence[float]], ours: str, theirs: str) -> Interval | None:
    """Return the ratio of medians, and of the extremes that lie farthest apart."""
    if ours not in values or theirs not in values:
        return None
    own, other = values[ours], values[theirs]
    return Interval(min(own) / max(other), median(own) / median(other), max(own) / min(other))


def _exactly(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value)


def _training(training: TrainingSpeed | None) -> Interval | None:
    if training is None:
        return None
    return Interval(min(training.ratios), median(training.ratios), max(training.ratios))
