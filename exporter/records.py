"""Artifacts, the folders that can be served, and the record of the export that made them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from exporter.checksums import CHECKSUMS, IntegrityError, check_checksums, write_checksums
from exporter.config import ExportConfig
from exporter.int8.budget import AccuracyChange, Judgement
from exporter.proof.timing import Spread
from trainer.config import Truncation
from trainer.errors import UserError
from trainer.records import file_sha256, read_record, write_record
from trainer.run import RunDir, TrainRecord

Precision = Literal["fp32", "fp16", "int8"]
Family = Literal["dynamic", "static", "weight-only"]

MANIFEST = "artifact.json"
NEEDED = ("tokenizer.json", "config.json")
EXPLAINS = (MANIFEST, CHECKSUMS, "golden.json", "README.md")
"""What an artifact holds beside what it takes to answer."""
MERGED = "pytorch-fp32"
ONNX_FP32 = "onnx-fp32"
ONNX_FP16 = "onnx-fp16"
ONNX_INT8 = "onnx-int8"


@dataclass(frozen=True)
class Artifact:
    """One classifier that can be served: all that its folder holds and all that running it takes.

    Nothing outside the folder is needed. It stands in the folder as `artifact.json`.
    """

    SCHEMA: ClassVar[int] = 2
    MADE_BY: ClassVar[str] = "python -m exporter"

    name: str
    """The folder's name, and the artifact's in every table."""
    model_file: str
    precision: Precision
    label_names: tuple[str, ...]
    """In the order of the logits."""
    max_length: int
    truncation: Truncation
    pad_token_id: int
    size_bytes: int
    """Of the model, the tokenizer and the configuration: all that it takes to answer."""


@dataclass(frozen=True)
class Tolerance:
    """How far a form of the classifier may be from the one it was made from. A bound of None is not checked."""

    max_abs_logit: float | None = None
    mean_abs_probability: float | None = None
    sure_flips_share: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """How far one form of the classifier is from the form that it was made from, on the same texts."""

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
    """One rung of the ladder: an int8 recipe, and what it measured here."""

    recipe: str
    family: Family
    size_bytes: int
    """Of the model file."""
    change: AccuracyChange
    """Of the accuracy, against `onnx-fp32`."""
    judgement: Judgement
    texts_to_decide: int | None
    """Where undecided: how many texts would decide at these rates, None where no number would."""
    mean_divergence: float
    """Kullback-Leibler divergence of its probabilities from those of `onnx-fp32`, in nats."""
    speed: Spread
    """How many times as fast as `onnx-fp32`, one text a call."""
    batch: Variation
    """What batching does to its answers."""


@dataclass(frozen=True)
class FailedRecipe:
    """A rung that broke: what could not be made, does not run, or is not the same classifier any more."""

    recipe: str
    reason: str


@dataclass(frozen=True)
class ExportRecord:
    """What an export made and what it measured."""

    SCHEMA: ClassVar[int] = 4
    MADE_BY: ClassVar[str] = "python -m exporter --quantize"

    config: ExportConfig
    run_sha256: str
    """Of the `run.json` that the artifacts were made from."""
    instruction_sets: tuple[str, ...]
    """Those of this CPU that decide what int8 is worth."""
    fused: dict[str, int]
    """How many layers of the fp32 graph became one operator, by its name."""
    fp16_fused: dict[str, int]
    """The same for half precision; empty where there is none."""
    texts: int
    """Evaluation texts that accuracies were measured on."""
    accuracy: float
    """Of `onnx-fp32`."""
    artifacts: tuple[Artifact, ...]
    chosen: str
    """The name of the artifact to ship."""
    reason: str
    """Why this one."""
    comparisons: tuple[Comparison, ...]
    candidates: tuple[Candidate, ...]
    failed: tuple[FailedRecipe, ...]
    skipped: tuple[str, ...]
    """Recipes that were not tried: out of time, or what they need is not installed."""
    int8_recipe: str | None
    """The recipe of the artifact `onnx-int8`."""
    variations: tuple[Variation, ...]
    """Of the chosen artifact."""
    duration_s: float
    finished_at: str
    versions: dict[str, str]


def seal(folder: Path, *, model_file: str, precision: Precision, train: TrainRecord) -> Artifact:
    """Make `folder` an artifact: write its `artifact.json`, and the checksums of all that it holds.

    Raises:
        UserError: it lacks the model or the tokenizer.
    """
    for needed in (model_file, *NEEDED):
        if not (folder / needed).is_file():
            raise UserError(f"`{folder.name}` came out without `{needed}`", "report this as a bug")
    parts = (path for path in folder.iterdir() if path.name not in EXPLAINS)
    artifact = Artifact(
        name=folder.name,
        model_file=model_file,
        precision=precision,
        label_names=train.label_names,
        max_length=train.max_length,
        truncation=train.truncation,
        pad_token_id=train.pad_token_id,
        size_bytes=sum(path.stat().st_size for path in parts),
    )
    write_record(folder / MANIFEST, artifact)
    write_checksums(folder)
    return artifact


def open_artifact(folder: Path) -> Artifact:
    """Read an artifact's manifest and check its files against it.

    Raises:
        UserError: `folder` is no artifact, or a file in it is missing or changed.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"`{folder}` is not an artifact: it has no `{MANIFEST}`", "name a folder that the exporter made"
        )
    listed = check_checksums(folder)
    artifact = read_record(folder / MANIFEST, Artifact)
    for name in (artifact.model_file, MANIFEST, *NEEDED):
        if name not in listed:
            raise IntegrityError(f"`{folder / CHECKSUMS}` has no checksum for `{name}`", "do not trust this folder")
    return artifact


def load_export(run: RunDir) -> ExportRecord:
    """Read the record of a run's export.

    Raises:
        UserError: there is none, or the run was trained anew since.
    """
    if not run.export_record.exists():
        raise UserError(f"no export in `{run.path}`", f"run `{ExportRecord.MADE_BY}` first")
    record = read_record(run.export_record, ExportRecord)
    if not run.record.exists() or file_sha256(run.record) != record.run_sha256:
        raise UserError(
            f"the export in `{run.path}` was made from another training run", f"run `{ExportRecord.MADE_BY}` again"
        )
    return record
