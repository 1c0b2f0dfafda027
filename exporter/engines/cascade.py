"""A cascade: a first stage answers what it is sure of, and the model the rest, as whoever deploys both has it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.bundle.artifact import (
    MANIFEST,
    ONNX_BF16_OPENVINO,
    ONNX_INT8,
    ONNX_INT8_OPENVINO,
    Artifact,
    open_artifact,
)
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.load import load_cascade
from exporter.engines.engine import ModelEngine
from exporter.engines.spec import EngineSpec
from exporter.engines.table import LOAD
from trainer.errors import UserError
from trainer.records import read_record

if TYPE_CHECKING:
    from trainer.run import RunDir


def load_both(folder: Path, *, threads: int) -> CascadeEngine:
    """Load both stages of a bundle as whoever deploys it does.

    Raises:
        UserError: it has no first stage, or cannot be loaded.
    """
    both = load_served(folder, threads=threads)
    if not isinstance(both, CascadeEngine):
        raise UserError(f"`{folder}` has no first stage", "export it again")
    return both


def load_served(folder: Path, *, threads: int) -> CascadeEngine | ModelEngine[Any]:
    """Load a bundle as whoever deploys it does, with its first stage where it has one.

    Raises:
        UserError: it cannot be loaded.
    """
    artifact = open_artifact(folder)
    engine = LOAD[artifact.engine](folder, threads=threads)
    return load_cascade(folder, artifact, engine) or engine


def _load(run: RunDir, threads: int, _: Path, *, artifact: str) -> CascadeEngine:
    return load_both(run.export / artifact, threads=threads)


def _objection(run: RunDir, *, artifact: str) -> str | None:
    has_one = read_record(run.export / artifact / MANIFEST, Artifact).cascade
    return None if has_one else f"`{artifact}` has no first stage"


def _spec(name: str, artifact: str, precision: str, runtime: str, *, is_extra: bool = False) -> EngineSpec:
    return EngineSpec(
        name=name,
        load=partial(_load, artifact=artifact),
        precision=precision,
        artifact=artifact,
        made_with="--quantize",
        imports=(runtime, "tokenizers"),
        packages=(runtime, "tokenizers", "numpy"),
        can_ship=True,
        is_extra=is_extra,
        has_first_stage=True,
        objection=partial(_objection, artifact=artifact),
    )


ENGINES = (
    _spec("cascade-int8-cpu", ONNX_INT8, "int8", "onnxruntime"),
    _spec("cascade-int8-openvino", ONNX_INT8_OPENVINO, "int8", "openvino", is_extra=True),
    _spec("cascade-bf16-openvino", ONNX_BF16_OPENVINO, "bf16", "openvino", is_extra=True),
)
