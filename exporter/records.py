"""ExportRecord: what an export made, how it was proved, what each recipe measured, and what to ship."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from exporter.bundle.artifact import Artifact, EngineName
from exporter.cascade.trial import CascadeTrial, ShiftScore
from exporter.checksums import CHECKSUMS, IntegrityError
from exporter.config import ExportConfig
from exporter.int8.budget import Judgement, ScoreChange
from exporter.proof.timing import Spread
from trainer.errors import UserError
from trainer.locks import hold, is_held
from trainer.records import Upgrade, Values, file_sha256, read_record, renamed, without
from trainer.run import RunDir, discard
from trainer.tasks import Metric

PARTIAL = "export.partial"
"""The folder in a run in which a new export is made."""

Family = Literal["dynamic", "static", "weight-only", "bf16", "half"]


@dataclass(frozen=True)
class Tolerance:
    """How far a step of the export may be from the one it was made from. A bound of None is not checked."""

    max_abs_logit: float | None = None
    mean_abs_probability: float | None = None
    sure_flips_share: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """How far one step of the export is from the step that it was made from, on the same texts."""

    candidate: str
    reference: str
    texts: int
    """Whole evaluation texts, on which answers are compared."""
    pieces: int
    """Pieces of them, cut to the lengths of a grid, on which numbers are compared as well."""
    max_abs_logit: float
    mean_abs_logit: float
    max_abs_probability: float
    mean_abs_probability: float
    mean_divergence: float
    """Kullback-Leibler divergence of the candidate's probabilities from the reference's, in nats."""
    worst_batch_size: int
    """Of the call with the largest difference of a logit."""
    worst_length: int
    """In tokens, padding included."""
    flips_harmful: int
    """Right before, wrong after."""
    flips_helpful: int
    """Wrong before, right after."""
    flips_other: int
    """Wrong before and after, in different ways."""
    sure: int
    """Texts whose reference answer had a probability of 60 % or more."""
    flips_sure: int
    """Those of the flips where the reference was sure."""
    tolerance: Tolerance


@dataclass(frozen=True)
class Variation:
    """How far answers move when the same texts are asked in another way than one by one."""

    name: str
    texts: int
    flips: int
    """Answers that changed."""
    max_abs_probability: float


@dataclass(frozen=True)
class Candidate:
    """One rung of the ladder: a recipe, for a CPU or for half precision on a GPU, and what it measured here."""

    recipe: str
    family: Family
    size_bytes: int
    """Of the model file."""
    change: ScoreChange
    """Of the score, against `onnx-fp32`."""
    judgement: Judgement
    texts_to_decide: int | None
    """Where undecided: how many texts would decide at these rates, None where no number would."""
    mean_divergence: float
    """Kullback-Leibler divergence of its probabilities from those of `onnx-fp32`, in nats."""
    speed: Spread
    """How many times as fast as `onnx-fp32`, one text a call."""
    batch: Variation
    """What batching does to its answers."""
    bulk: Spread | None = None
    """How many times as fast as `onnx-fp32`, many texts at a time; measured on GPUs."""
    engine: EngineName = "onnxruntime"
    """What ran it, and runs it where it is deployed. `onnx-fp32` is always run by onnxruntime."""


@dataclass(frozen=True)
class GpuSpeed:
    """How fast something answered on the GPU of an export, in turns with all others."""

    name: str
    """Of the artifact, of the recipe, or of PyTorch's precision."""
    alone_ms: Spread
    """From one text to its answer, in milliseconds."""
    texts_per_s: Spread
    """Of a list of texts."""


@dataclass(frozen=True)
class Verdict:
    """How an artifact compares with another run's classifier."""

    artifact: str
    smaller: float
    """How many times smaller its model file is than the other's weights in fp32."""
    change: ScoreChange
    """Of the score, against the other's."""
    judgement: Judgement
    texts_to_decide: int | None
    """Where undecided: how many texts would decide at these rates, None where no number would."""


@dataclass(frozen=True)
class OtherRun:
    """A run that artifacts were compared with: a student's teacher."""

    run: Path
    run_sha256: str
    """Of its `run.json`."""
    score: float
    """Of its classifier in PyTorch, on the evaluation texts of the run that is exported."""
    max_drop: float
    """The score that artifacts may lose against it, in percentage points."""
    verdicts: tuple[Verdict, ...]
    """Of `onnx-fp32`, and of the artifact to ship where that is another one."""
    unchecked: str
    """What it may have learnt from that could not be told; empty where all is known."""


@dataclass(frozen=True)
class FailedRecipe:
    """A rung that broke: what could not be made, does not run, or is not the same classifier any more."""

    recipe: str
    reason: str


def _from_1(values: Values) -> Values:
    """`--quantize` became a choice. Comparisons are dropped: they did not say what they do today."""
    asked = "auto" if values["config"]["quantize"] else None
    return values | {"config": values["config"] | {"quantize": asked}, "comparisons": []}


def _from_2(values: Values) -> Values:
    """Checksums moved out of the artifacts, and comparisons say of how many texts the reference was sure."""
    comparisons = [comparison for comparison in values["comparisons"] if "sure" in comparison]
    artifacts = [without(artifact, "sha256") for artifact in values["artifacts"]]
    return values | {"artifacts": artifacts, "comparisons": comparisons}


def _from_3(values: Values) -> Values:
    """Reviews are called texts, pieces are counted apart, adoption left the configuration; optimum converted."""
    values = renamed(values, {"texts": "all_texts"})
    values = renamed(values, {"reviews": "texts", "reviews_to_decide": "texts_to_decide"})
    comparisons = [without(c, "all_texts") | {"pieces": c["all_texts"] - c["texts"]} for c in values["comparisons"]]
    config = without(values["config"], *_ADOPTION) | {"exporter": "optimum"}
    return values | {"comparisons": comparisons, "config": config}


_ADOPTION = ("adapter", "model", "dataset", "eval_dataset", "text_column", "label_column", "label_names",
             "max_eval_samples", "max_length", "truncation")  # fmt: skip
"""Fields of `ExportConfig` up to schema 3."""


def _from_4(values: Values) -> Values:
    """There was one kind of score."""
    return without(values, "accuracy") | {"score": values.get("accuracy")}


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """What an export made and what it measured."""

    SCHEMA: ClassVar[int] = 8
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4}
    MADE_BY: ClassVar[str] = "python -m exporter --quantize"

    config: ExportConfig
    run_sha256: str
    """Of the `run.json` that the artifacts were made from."""
    instruction_sets: tuple[str, ...] = ()
    """Those of this CPU that decide what int8 is worth."""
    shortcut: bool = False
    """Whether the last layer of every ONNX file works for the first token alone, the only one that is read of it."""
    fused: dict[str, int] = field(default_factory=dict)
    """How many layers of the fp32 graph became one operator, by its name."""
    fp16_fused: dict[str, int] = field(default_factory=dict)
    """The same for half precision; empty where there is none."""
    texts: int | None = None
    """Evaluation texts that scores were measured on; None in records that are too old to tell."""
    metric: Metric = "accuracy"
    """What the scores are."""
    score: float | None = None
    """Of `onnx-fp32`; None in records that are too old to tell."""
    artifacts: tuple[Artifact, ...]
    artifact_sha256: dict[str, str] = field(default_factory=dict)
    """Of each artifact's `SHA256SUMS`, by its name; empty in records older than schema 4."""
    chosen: str
    """The name of the artifact to ship."""
    reason: str = ""
    """Why this one."""
    comparisons: tuple[Comparison, ...]
    candidates: tuple[Candidate, ...] = ()
    failed: tuple[FailedRecipe, ...] = ()
    skipped: tuple[str, ...] = ()
    """Recipes that were not tried: out of time, or what they need is not installed."""
    int8_recipe: str | None = None
    """The recipe of the artifact `onnx-int8`."""
    openvino_recipe: str | None = None
    """The recipe of the artifact for OpenVINO, where there is one."""
    fp16_recipe: str | None = None
    """The recipe of the artifact `onnx-fp16`."""
    gpu: str | None = None
    """The GPU on which half precision was proved, judged and timed; None where it was proved on the CPU alone."""
    gpu_speeds: tuple[GpuSpeed, ...] = ()
    attention: tuple[str, ...] = ()
    """The kernels that compute the attention of the chosen artifact on the GPU, as onnxruntime calls them."""
    variations: tuple[Variation, ...] = ()
    """Of the chosen artifact's model, without a first stage."""
    against: OtherRun | None = None
    """None where no other run was named."""
    cascade: CascadeTrial | None = None
    """What became of a first stage before the artifact in int8; None in records older than schema 7."""
    cascade_openvino: CascadeTrial | None = None
    """The same before the artifact for OpenVINO; None without one, or where no first stage was tried at all."""
    shift: tuple[ShiftScore, ...] = ()
    """On texts of other domains."""
    duration_s: float
    finished_at: str
    versions: dict[str, str]

    @property
    def cascades(self) -> tuple[CascadeTrial, ...]:
        """What became of a first stage before each artifact."""
        return tuple(trial for trial in (self.cascade, self.cascade_openvino) if trial)

    @property
    def with_openvino(self) -> str | None:
        """The artifact to ship where OpenVINO is installed, None where `chosen` is as fast there."""
        beside = self.cascade.beside_openvino if self.cascade else None
        return None if beside and beside.high >= 1 else self.for_openvino

    @property
    def for_openvino(self) -> str | None:
        """The artifact that was made for OpenVINO, None without one."""
        return next((artifact.name for artifact in self.artifacts if artifact.engine == "openvino"), None)


def settle_export(run: RunDir) -> None:
    """Replace a run's export by a new one that is whole; its record says so.

    Whoever is killed on the way leaves the rest to the next command.
    """
    new, moved = run.path / PARTIAL / run.export_record.name, run.export / run.export_record.name
    if not (new.is_file() or moved.is_file()):
        return
    with contextlib.nullcontext() if is_held(run.path) else hold(run.path):
        if new.is_file():
            run.export_record.unlink(missing_ok=True)  # first, so that nobody takes what is removed for whole
            discard(run.export)
            new.parent.rename(run.export)
        if moved.is_file():
            moved.replace(run.export_record)


def load_export(run: RunDir) -> ExportRecord:
    """Read the record of a run's export, and check that the artifacts are those that it describes.

    Raises:
        UserError: there is none, or the run was trained again since.
        IntegrityError: an artifact is gone, or another one lies in its place.
    """
    settle_export(run)
    if not run.export_record.exists():
        raise UserError(f"no export in `{run.path}`", f"run `{ExportRecord.MADE_BY}` first")
    record = read_record(run.export_record, ExportRecord)
    if not run.record.is_file() or file_sha256(run.record) != record.run_sha256:
        raise UserError(
            f"the export in `{run.path}` was made from another training run", f"run `{ExportRecord.MADE_BY}` again"
        )
    _check_names(record, run.export_record)
    for name, sha256 in record.artifact_sha256.items():
        path = run.export / name / CHECKSUMS
        if not path.is_file() or file_sha256(path) != sha256:
            raise IntegrityError(
                f"`{path.parent}` is not the artifact that `{run.export_record}` describes",
                f"run `{ExportRecord.MADE_BY}` again",
            )
    return record


def _check_names(record: ExportRecord, path: Path) -> None:
    """Refuse a record whose choice is not among its artifacts, or with names of other folders than those beside it."""
    names = [artifact.name for artifact in record.artifacts]
    are_plain = all(Path(name).name == name for name in names)
    if not are_plain or record.chosen not in names or not {*record.artifact_sha256} <= {*names}:
        raise IntegrityError(f"`{path}` is damaged: its artifacts do not fit", f"run `{ExportRecord.MADE_BY}` again")
