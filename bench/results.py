"""What a benchmark measured: flat rows, each complete in itself, with every raw sample. Statistics are derived.

All processes are started anew several times: what a process draws at its start, such as where its memory lies, is
drawn anew in each restart. Restarts come in pairs, 0 and 1, 2 and 3: the second starts the processes in the opposite
order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from bench.config import BenchConfig
from exporter.cascade.trial import CascadeTrial
from exporter.int8.budget import ScoreChange
from trainer.config import TaskName
from trainer.records import Upgrade, Values, renamed, without

End = Literal["restarts", "time", "told apart"]
"""Why a benchmark ended: after all its restarts, or before by `--budget-minutes`."""


@dataclass(frozen=True)
class EngineInfo:
    """One way to serve the classifier: an artifact on a device."""

    name: str
    artifact: str
    device: str
    precision: str
    size_bytes: int | None
    """Of all that has to be on disk to serve it, but for the installed packages; None where that is not known."""
    packages_bytes: int
    """Of the installed packages that it needs, with theirs."""
    is_peer: bool = False
    """Whether it is another tool's, measured for comparison."""
    can_ship: bool = False
    """Whether it is one of the ways to deploy what the exporter made."""


@dataclass(frozen=True)
class Skipped:
    """An engine that was not measured, and why."""

    engine: str
    reason: str


@dataclass(frozen=True)
class ClassScores:
    """How right an engine is about one class."""

    label: str
    texts: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class LengthScores:
    """How right an engine is about texts of `least` to `most` tokens."""

    least: int
    most: int
    texts: int
    score: float
    """Their accuracy, or their micro F1 where a text may have several labels."""


@dataclass(frozen=True)
class Accuracy:
    """An engine's answers to the evaluation texts, and their scores.

    Where a text may have several labels, each label of each text is a choice, on which loss, calibration and Brier
    score are means.
    """

    engine: str
    texts: int
    accuracy: float
    """Share of the texts whose label, or whose labels all together, are right."""
    f1_weighted: float
    loss: float
    """Mean negative log-likelihood of the true label, in nats."""
    calibration_error: float
    """Expected calibration error, 15 bins, from 0 to 1."""
    brier: float
    classes: tuple[ClassScores, ...]
    lengths: tuple[LengthScores, ...]
    change: ScoreChange | None
    """Against the reference, on the same texts; None for the reference."""
    mcnemar_p: float | None
    """Of the exact two-sided test that as many answers turn wrong as right."""
    predicted: tuple[tuple[int, ...], ...]
    """The indices of the labels given to each text, in the order of the evaluation file."""
    f1_micro: float | None = None
    f1_macro: float | None = None
    average_precision: float | None = None
    """Mean over the labels that any text has; these three only where a text may have several labels."""

    @property
    def score(self) -> float:
        """What an export must not lose: micro F1 where there is one, else the accuracy."""
        return self.accuracy if self.f1_micro is None else self.f1_micro


@dataclass(frozen=True)
class Single:
    """One engine's calls with one text each in one restart, from text to label.

    Its call i was made in the round of number i times `every`, in which every engine that was asked got the same text.
    """

    engine: str
    restart: int
    warmup_calls: int
    """Until the times of all engines were steady, or 40; not among the samples."""
    tokens: tuple[int, ...]
    """Of each call's text, as the classifier reads it."""
    total_s: tuple[float, ...]
    tokenise_s: tuple[float, ...]
    """Text to token ids; empty for a peer, into which nobody looks."""
    run_s: tuple[float, ...]
    """Token ids to logits on the host; the rest of the total is label and probability."""
    largest_gap: float
    """Between a probability answered here and in the accuracy pass."""
    every: int = 1
    """It was asked in every so manieth round; others than 1 only where there was a budget of time."""


@dataclass(frozen=True)
class BatchingTrial:
    """One engine's scoring of some texts in one batching, by which the one for bulk scoring was chosen."""

    engine: str
    batching: str
    """How many texts or tokens went into a batch."""
    texts: int
    seconds: tuple[float, ...]
    """Of each round."""


@dataclass(frozen=True)
class Bulk:
    """One engine's scoring of the evaluation texts in one restart, part by part.

    Part i of every engine holds the same texts, scored in the same round; where there was a budget of time, it may hold
    only the first of them, which are as long as all on average.
    """

    engine: str
    restart: int
    batching: str
    """What was fastest for this engine."""
    texts: tuple[int, ...]
    tokens: tuple[int, ...]
    """Without padding."""
    seconds: tuple[float, ...]
    first_stage: tuple[int, ...] | None = None
    """How many texts of each part the first stage of a cascade answered; None for an engine that is none."""


@dataclass(frozen=True)
class Grid:
    """One engine's calls with `batch` texts of exactly `length` tokens: the model alone, no tokeniser."""

    engine: str
    restart: int
    batch: int
    length: int
    samples_s: tuple[float, ...]
    """Sample i of every engine was taken in the same round."""


@dataclass(frozen=True)
class ColdStart:
    """One new process from its start to its first answer."""

    engine: str
    total_s: float
    """As whoever started the process sees it, interpreter included."""
    import_s: float
    load_s: float
    """For ours in ONNX with the golden answers, which are asked before the first text."""
    first_s: float
    """The first text, text to label."""


@dataclass(frozen=True)
class Memory:
    """What one process of an engine took, all restarts' largest."""

    engine: str
    loaded_bytes: int | None
    """Resident after loading; None where that is not known."""
    peak_bytes: int | None
    """Most ever resident; None where that is not known."""
    gpu_bytes: int | None
    """Most ever held on the GPU by PyTorch's count; of others what they held at the end, by the driver's count or by
    what was free again when their process had ended. None where nobody tells."""


@dataclass(frozen=True)
class Soak:
    """One engine's resident memory over many calls with texts of all lengths, at the end of its first process."""

    engine: str
    tokens: tuple[int, ...]
    """Of each call's text."""
    rss_bytes: tuple[int, ...]
    """After each call; empty where that is not known."""


@dataclass(frozen=True)
class Company:
    """Who else used the cores that the engines were kept on, while one restart was measured."""

    restart: int
    cores: int
    wall_s: float
    """For how long; nothing was done before the warm-up had ended, or while processes started."""
    own_s: float | None
    """CPU seconds of the benchmark's own processes; None where that is not known."""
    others_s: float | None
    """CPU seconds of all others."""
    stolen_s: float | None
    """Seconds for which a core was ready and the hypervisor ran another machine on it."""
    load: float | None = None
    """How many processes ran or waited to run at the end, over the last minute, the benchmark's own among them."""
    clocks_hz: tuple[float, ...] = ()
    """Of the cores on average, each time that it was read; empty where it is not known."""
    beside_s: float | None = None
    """CPU seconds of whatever ran on the other hyperthreads of these cores; None where that is not known."""
    throttled_s: float | None = None
    """CPU seconds for which a quota kept the benchmark from running; None where that is not known."""
    gpu_clocks_hz: tuple[float, ...] = ()
    """Of the card, each time that it was read, at the beginning and the end among them; empty without a card."""


@dataclass(frozen=True)
class Limit:
    """What this machine can do at most, measured at the model's own shapes."""

    precision: str
    flops: float
    """Operations a second of the fastest matrix product."""


@dataclass(frozen=True)
class Machine:
    """What this machine can do at most, and what one token of the model asks of it."""

    limits: tuple[Limit, ...]
    bytes_per_s: float
    """Of reading memory."""
    flops_per_token: float
    """Multiplications and additions of the model's constant products for one token."""
    flops_per_token_squared: float
    """And those of attention, for one token and every token that it looks at."""
    product_weights: int = 0
    """Weights in all products."""
    flops_per_text: float = 0.0
    """Those of the products that are done once a text: of the head, and of a last layer that works for one token. The
    records of older versions count them for every token."""


@dataclass(frozen=True)
class Card:
    """The CUDA device that was measured on, beside its name."""

    driver: str | None
    """Its version; None where that is not known."""
    memory_bytes: int | None


@dataclass(frozen=True)
class Environment:
    """The machine and the software that the numbers belong to."""

    system: str
    cpu: str
    instruction_sets: tuple[str, ...]
    usable_cores: int
    threads: int
    """What every engine was allowed to use."""
    gpu: str | None
    versions: dict[str, str]
    card: Card | None = None
    """None without a CUDA device, and in older records."""


def _from_1(values: Values) -> Values:
    """Drop what was measured: without restarts, and without a word on which texts, it compares with nothing."""
    parts = ("backends", "accuracies", "singles", "bulks", "grids", "cold_starts", "memories", "own_tokens")
    nothing: Values = {part: [] for part in parts}
    environment = {"instruction_sets": []} | values["environment"]
    known = {"is_complete": True, "accept_undecided": False, "reference": "", "again": None, "machine": None}
    config = without(values["config"], "batch_sizes", "warmup")
    return without(values, "timings") | nothing | known | {"environment": environment, "config": config}


def _from_2(values: Values) -> Values:
    """Memory is watched apart from the timed calls, and the grid is measured in every restart."""
    singles = [without(single, "rss_bytes") for single in values["singles"]]
    grids = [{"generation": 0} | cell for cell in values["grids"]]
    return values | {"singles": singles, "grids": grids, "config": values["config"] | {"soak_calls": 0}}


def _from_3(values: Values) -> Values:
    """Reviews are called texts, backends engines and generations restarts; an engine says whether it can be shipped."""
    names = {"reviews": "texts", "backend": "engine", "backends": "engines", "generation": "restart",
             "again": "second_process"}  # fmt: skip
    values = renamed(values, names)
    ours = ("pytorch-fp32", "onnx-fp32", "onnx-fp16", "onnx-int8")
    engines = [
        engine | {"can_ship": engine["artifact"] in ours and not engine.get("is_peer")} for engine in values["engines"]
    ]
    return values | {"engines": engines}


def _from_4(values: Values) -> Values:
    """Texts are in one column or in two, and a text has any number of labels."""
    column = values["config"].get("text_column")
    config = values["config"] | {"text_column": [column] if column else None}
    accuracies = [
        scores | {"predicted": _sets(scores["predicted"]), "lengths": renamed(scores["lengths"], {"accuracy": "score"})}
        for scores in values["accuracies"]
    ]
    return values | {"config": config, "accuracies": accuracies, "labels": _sets(values["labels"])}


def _sets(labels: list[int]) -> list[list[int]]:
    return [[label] for label in labels]


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """What a benchmark did and measured."""

    SCHEMA: ClassVar[int] = 8
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4}
    MADE_BY: ClassVar[str] = "python -m bench"

    config: BenchConfig
    is_complete: bool
    """False while it runs, and for good where it was interrupted."""
    ended_by: End = "restarts"
    export_sha256: str
    """Of the `export.json` that was measured."""
    evaluation_sha256: str = ""
    """Of the file of evaluation texts."""
    chosen: str
    """The artifact that the exporter chose."""
    accept_undecided: bool
    """Whether the export was told to ship int8 even if the texts are too few to tell."""
    task: TaskName = "single-label"
    pairs: bool = False
    """Whether each text is a pair of texts."""
    labels: tuple[tuple[int, ...], ...]
    """The true labels of each evaluation text, as indices into `label_names`."""
    label_names: tuple[str, ...]
    reference: str
    """The engine that speed and accuracy are compared with."""
    second_process: str | None
    """A second process of the reference: what differs between the two is noise."""
    environment: Environment
    machine: Machine | None
    engines: tuple[EngineInfo, ...]
    skipped: tuple[Skipped, ...]
    accuracies: tuple[Accuracy, ...]
    singles: tuple[Single, ...]
    batching_trials: tuple[BatchingTrial, ...] = ()
    bulks: tuple[Bulk, ...]
    grids: tuple[Grid, ...]
    cold_starts: tuple[ColdStart, ...]
    memories: tuple[Memory, ...]
    soaks: tuple[Soak, ...] = ()
    companies: tuple[Company, ...] = ()
    """Of each restart."""
    own_tokens: tuple[int, ...]
    """Tokens of the texts of `--texts`."""
    cascade: CascadeTrial | None = None
    """How the export chose the cascade that it shipped; None where it shipped none."""
    evaluation_texts: int = 0
    """How many there are to score; 0 where that was not kept."""
    duration_s: float
    finished_at: str
