"""A cascade: a first stage answers what it is sure of, and onnxruntime the rest, as whoever deploys both has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.bundle.artifact import MANIFEST, ONNX_INT8, Artifact
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.load import load_cascade
from exporter.engines.onnxruntime import load_bundle
from exporter.engines.spec import EngineSpec
from trainer.errors import UserError
from trainer.records import read_record

if TYPE_CHECKING:
    from trainer.run import RunDir


def _load(run: RunDir, threads: int, _: Path) -> CascadeEngine:
    folder = run.export / ONNX_INT8
    cascade = load_cascade(folder, *load_bundle(folder, device="cpu", threads=threads))
    if cascade is None:
        raise UserError(_without(), "leave it out")
    return cascade


def _objection(run: RunDir) -> str | None:
    return None if read_record(run.export / ONNX_INT8 / MANIFEST, Artifact).cascade else _without()


def _without() -> str:
    return f"`{ONNX_INT8}` has no first stage"


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
