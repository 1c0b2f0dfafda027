"""An artifact: the folder that can be served. It holds all that a classifier takes to answer, and its own checks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from exporter.bundle.onnx_file import check_onnx_file
from exporter.cascade.stage import LEXICAL, Cascade
from exporter.checksums import CHECKSUMS, IntegrityError, check_checksums, write_checksums
from trainer.config import TaskName, Truncation
from trainer.errors import UserError
from trainer.limits import MAX_LABEL_CHARACTERS, MAX_LABELS, MAX_TOKENS
from trainer.records import Upgrade, Values, read_record, without, write_record
from trainer.tasks import Task, task_of
from trainer.text.characters import is_unicode

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Of what it computes in; bf16 has the file of fp32."""
EngineName = Literal["onnxruntime", "openvino"]

MANIFEST = "artifact.json"
CARD = "README.md"
GOLDEN = "golden.json"
NEEDED = ("tokenizer.json", "config.json")
EXPLAINS = (MANIFEST, CHECKSUMS, GOLDEN, CARD)
"""What an artifact holds beside what it takes to answer."""

MODEL = "model.onnx"
"""The model file of every artifact but the merged checkpoint."""
MERGED = "pytorch-fp32"
ONNX_FP32 = "onnx-fp32"
ONNX_FP16 = "onnx-fp16"
ONNX_INT8 = "onnx-int8"
ONNX_INT8_OPENVINO = "onnx-int8-openvino"
ONNX_BF16_OPENVINO = "onnx-bf16-openvino"


def _from_1(values: Values) -> Values:
    """The checksums moved from the manifest to `SHA256SUMS`."""
    return without(values, "sha256")


@dataclass(frozen=True)
class Artifact:
    """One classifier that can be served: all that its folder holds and all that running it takes.

    Nothing outside the folder is needed. It stands in the folder as `artifact.json`.
    """

    SCHEMA: ClassVar[int] = 6
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {1: _from_1}
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
    task: TaskName = "single-label"
    thresholds: tuple[float, ...] = ()
    """The probability from which on each label is given; none where a text has one label."""
    pairs: bool = False
    """Whether it reads pairs of texts."""
    text_columns: tuple[str, ...] = ()
    """What the texts were called in training: these columns of a file are looked for first."""
    engine: EngineName = "onnxruntime"
    """What it was made for, proved and measured with."""
    cascade: Cascade | None = None
    """When its first stage, `lexical.safetensors`, answers; None where it has none."""

    def meaning(self) -> Task:
        """Return what its logits mean."""
        return task_of(self.task, len(self.label_names), self.thresholds)


def made_for(folder: Path) -> EngineName:
    """Return the engine that an artifact was made for; what may be wrong with it is not looked at."""
    with suppress(UserError):
        return read_record(folder / MANIFEST, Artifact).engine
    return "onnxruntime"


def with_size(folder: Path, artifact: Artifact) -> Artifact:
    """Return `artifact` with the size of what `folder` holds to answer with."""
    parts = (path for path in folder.iterdir() if path.name not in EXPLAINS)
    return replace(artifact, size_bytes=sum(path.stat().st_size for path in parts))


def seal(folder: Path, artifact: Artifact) -> None:
    """Make `folder` an artifact: write its `artifact.json`, and the checksums of all that it holds.

    Raises:
        UserError: it lacks the model or the tokenizer.
    """
    for needed in (artifact.model_file, *NEEDED):
        if not (folder / needed).is_file():
            raise UserError(f"`{folder.name}` came out without `{needed}`", "report this as a bug")
    write_record(folder / MANIFEST, artifact)
    write_checksums(folder)


def open_artifact(folder: Path, require_sha256: str | None = None) -> Artifact:
    """Read an artifact's manifest and check its files against it.

    Args:
        folder: the artifact's.
        require_sha256: the checksum that its `SHA256SUMS` must have, where it is known.

    Raises:
        IntegrityError: a file in it is missing, changed, or read without being listed.
        UserError: `folder` is no artifact, or its manifest says what cannot be.
    """
    if not os.path.lexists(folder / MANIFEST):
        raise UserError(
            f"`{folder}` is not an artifact: it has no `{MANIFEST}`", "name a folder that the exporter made"
        )
    listed = check_checksums(folder, require_sha256)
    _check_listed(folder, listed, MANIFEST, *NEEDED, *((GOLDEN,) if os.path.lexists(folder / GOLDEN) else ()))
    artifact = read_record(folder / MANIFEST, Artifact)
    if problem := _problem(artifact):
        raise UserError(f"`{folder / MANIFEST}` is damaged: {problem}", "export the artifact again")
    _check_listed(folder, listed, artifact.model_file, *((LEXICAL,) if artifact.cascade else ()))
    if artifact.model_file.endswith(".onnx"):
        check_onnx_file(folder / artifact.model_file)
    return artifact


def _check_listed(folder: Path, listed: set[str], *names: str) -> None:
    for name in names:
        if name not in listed:
            raise IntegrityError(f"`{folder / CHECKSUMS}` has no checksum for `{name}`", "do not trust this folder")


def _problem(artifact: Artifact) -> str | None:
    """Return what a manifest says that no exporter writes: it may come from anybody."""
    names = artifact.label_names
    if not 2 <= len(set(names)) == len(names) <= MAX_LABELS:
        return "`label_names` are not two or more different names"
    if not all(name.strip() and len(name) <= MAX_LABEL_CHARACTERS and is_unicode(name) for name in names):
        return "a label name is empty, too long, or not valid Unicode"
    if not 1 <= artifact.max_length <= MAX_TOKENS:
        return f"`max_length` is not from 1 to {MAX_TOKENS:,}"
    if not 0 <= artifact.pad_token_id < 2**31:
        return "`pad_token_id` is not the number of a token"
    if not artifact.model_file.endswith((".onnx", ".safetensors")) or "/" in artifact.model_file:
        return "`model_file` is not the name of an ONNX or safetensors file"
    expected = len(names) if artifact.task == "multi-label" else 0
    if len(artifact.thresholds) != expected or not all(0 <= threshold <= 1 for threshold in artifact.thresholds):
        return f"`thresholds` are not {expected} probabilities"
    if artifact.cascade and artifact.task != "single-label":
        return "`cascade` is for one label a text"
    return _problem_of(artifact.cascade) if artifact.cascade else None


def _problem_of(cascade: Cascade) -> str | None:
    """Return what the manifest says of a first stage that no exporter writes."""
    if not 0.01 <= cascade.temperature <= 100:
        return "the `temperature` of `cascade` is not from 0.01 to 100"
    if not (0 < cascade.threshold <= 1 and 0 <= cascade.least_known <= 1):
        return "`threshold` and `least_known` of `cascade` are not shares"
    if not 0 <= cascade.fewest_tokens <= cascade.most_tokens < 2**31:
        return "`fewest_tokens` and `most_tokens` of `cascade` are not the ends of a range"
    if cascade.stack and not all(0 < weight <= 100 for weight in (cascade.stack.first, cascade.stack.model)):
        return "the weights in `stack` of `cascade` are not above 0 and at most 100"
    return None
