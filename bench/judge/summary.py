"""What a benchmark shows: every number that the console, the files and the page need, derived from the samples once.

`summarise` makes it; whatever renders it computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.config import BenchConfig
from bench.judge.company import Others
from bench.judge.interval import Interval, Speed
from bench.results import Accuracy, End, EngineInfo, Environment, Machine, Memory, Skipped
from exporter.cascade.trial import CascadeTrial
from exporter.int8.budget import Judgement
from exporter.proof.timing import Spread
from trainer.tasks import Task

PERCENTILES = (0.90, 0.95, 0.99, 0.999)


@dataclass(frozen=True)
class Calls(Spread):
    """The quartiles of an engine's calls with one text each, the extremes, and every call."""

    fastest: float
    slowest: float
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Tail:
    """A percentile of the latency, or how many calls it would take."""

    share: float
    value_s: float | None
    calls_needed: int

    @property
    def name(self) -> str:
        """Such as `p99`."""
        return f"p{100 * self.share:g}"


@dataclass(frozen=True)
class LengthLatency:
    """One engine's calls with texts of one range of lengths; medians."""

    least: int
    """Of the range, in tokens."""
    tokens: float
    seconds: float
    speed: Speed | None
    """None for the reference, and where the two share no call."""


@dataclass(frozen=True)
class Latency:
    """One text at a time, from text to label."""

    total_s: Calls
    tokenise_s: float | None
    """Median; None for a peer."""
    run_s: float | None
    rest_s: float | None
    tails: tuple[Tail, ...]
    speed: Speed
    by_length: tuple[LengthLatency, ...]
    """Of each range of lengths with calls, in order."""
    attainable: float | None
    """Share of what the machine can do at most, from 0 to 1; None where that was not measured."""
    own_p95_s: float | None
    """Expected for the texts of `--texts`."""
    warmup_calls: float
    """Median of the restarts."""
    largest_gap: float
    """Between a probability answered when timed and when scored."""


@dataclass(frozen=True)
class Throughput:
    """Scoring many texts, in the batching that suits the engine best."""

    batching: str
    texts_per_s: Spread
    """Of the restarts."""
    tokens_per_s: float
    """Their median."""
    speed: Speed
    cost_per_million: float | None
    product_share: float | None
    """Of its time, what its products with constant matrices would take at this machine's fastest rate."""
    first_stage_share: float | None
    """Of the texts, those that the first stage of a cascade answered; None without one."""


@dataclass(frozen=True)
class Batching:
    """One batching that was tried, in texts per second."""

    name: str
    texts: int
    slowest: float
    median: float
    fastest: float
    is_chosen: bool


@dataclass(frozen=True)
class ColdStarts:
    """New process to first answer, in seconds; the parts are medians."""

    total_s: Spread
    import_s: float
    load_s: float
    first_s: float


@dataclass(frozen=True)
class Row:
    """All that there is to say of one engine. What was not measured is None."""

    info: EngineInfo
    is_reference: bool
    accuracy: Accuracy | None
    judgement: Judgement | None
    """Of its change of accuracy, by the budget; None for the reference."""
    latency: Latency | None
    throughput: Throughput | None
    batchings: tuple[Batching, ...]
    start: ColdStarts | None
    memory: Memory | None
    growth_bytes: Interval | None
    """Of resident memory per call, over a soak of texts of all lengths."""


@dataclass(frozen=True)
class GridCell:
    """One engine's batches of so many texts of so many tokens, model only."""

    engine: str
    batch: int
    length: int
    seconds: Spread
    speed: Speed | None
    """None where the reference was not measured at this cell."""


@dataclass(frozen=True)
class Noise:
    """What two processes that differ in nothing differ by."""

    floor: float
    """Share below which no difference of speed is claimed."""
    second_process: Interval | None
    """Speed of the reference's second process over its first; 1 but for noise."""


@dataclass(frozen=True)
class SecondProcess:
    """The reference once more, to measure the noise with."""

    name: str
    total_s: Calls


@dataclass(frozen=True)
class Recommendation:
    """What to ship."""

    engine: str | None
    """None where no engine stays within the limits."""
    sentence: str
    rejected: tuple[str, ...]
    """Why not the others, a line each, the fastest first."""
    is_told_apart: bool = False
    """Whether more restarts could change none of it: each is faster or slower than the reference, and than the best."""


@dataclass(frozen=True)
class Summary:
    """What was measured, where and how, and what it says."""

    config: BenchConfig
    is_complete: bool
    ended_by: End
    confidence: float
    """Of each interval of a speed."""
    others: Others | None
    """Who else used the cores; None where nobody watched."""
    evaluation_texts: int
    """How many there were to score; 0 where that is not known."""
    environment: Environment
    machine: Machine | None
    export_sha256: str
    evaluation_sha256: str
    chosen: str
    """The artifact that the exporter chose."""
    task: Task
    pairs: bool
    """Whether each text is a pair of texts, and its tokens those of both."""
    labels: tuple[tuple[int, ...], ...]
    """The true labels of each evaluation text."""
    duration_s: float
    finished_at: str
    restarts: int
    """That were measured."""
    calls: int
    """Timed calls of each engine in each restart."""
    soak_calls: int
    reference: str
    second_process: SecondProcess | None
    rows: tuple[Row, ...]
    """The reference first, then by latency."""
    length_ranges: tuple[tuple[int, int], ...]
    """Ranges of text lengths, least and most tokens, with about equally many calls in each."""
    grid: tuple[GridCell, ...]
    cascade: CascadeTrial | None
    """How the export chose the cascade that it shipped; None where it shipped none."""
    single_noise: Noise
    """One text at a time."""
    bulk_noise: Noise
    skipped: tuple[Skipped, ...]
    recommendation: Recommendation

    @property
    def crowd(self) -> Others | None:
        """Those beside whom it was measured where they used too much of the machine for any verdict on speeds."""
        return self.others if self.others and self.others.is_too_much else None

    def row(self, name: str) -> Row | None:
        """Return the row of an engine, None where there is none."""
        return next((row for row in self.rows if row.info.name == name), None)
