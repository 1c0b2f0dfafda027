"""A cascade: a first stage answers what it is sure of, and onnxruntime the rest, as whoever deploys both has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.bundle.artifact import MANIFEST, ONNX_INT8, Artifact, open_artifact
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.load import load_cascade
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
    artifact = open_artifact(folder)
    both = load_cascade(folder, artifact, LOAD[artifact.engine](folder, threads=threads))
    if both is None:
        raise UserError(f"`{folder}` has no first stage", "export it again")
    return both


def _load(run: RunDir, threads: int, _: Path) -> CascadeEngine:
    return load_both(run.export / ONNX_INT8, threads=threads)


def _objection(run: RunDir) -> str | None:
    has_one = read_record(run.export / ONNX_INT8 / MANIFEST, Artifact).cascade
    return None if has_one else f"`{ONNX_INT8}` has no first stage"


ENGINES = (
    EngineSpec(
        name="cascade-int8-cpu",
        load=_load,
        precision="int8",
        artifact=ONNX_INT8,
        made_with="--quantize",
        imports=("onnxruntime", "tokenizers"),
        packages=("onnxruntime", "tokenizers", "numpy"),
        can_ship=True,
        has_first_stage=True,
        objection=_objection,
    ),
)
