"""OpenVINO on int8 by NNCF, as the documentation of both says: the merged checkpoint in ONNX, quantized after training.

The texts, the tokenizer and the rounding of lengths are ours, so that what is compared is the runtime and its int8.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engines.peers import calibration_texts, own_best
from exporter.bundle.artifact import MERGED, MODEL, open_artifact
from exporter.convert.to_onnx import convert
from exporter.engines.engine import load_encoder
from exporter.engines.openvino import open_engine
from exporter.engines.spec import EngineSpec
from trainer.model.untrusted import check_checkpoint
from trainer.progress import quiet_libraries

if TYPE_CHECKING:
    from exporter.engines.engine import ModelEngine
    from trainer.run import RunDir

SUBSET = 300
"""Texts that ranges are measured on: NNCF's own default."""


def quantize(run: RunDir, folder: Path) -> None:
    """Convert the merged checkpoint to ONNX and quantize it on texts that were trained on, by NNCF's own defaults."""
    os.environ["NNCF_CI"] = "1"  # its switch for sending no usage statistics; read when it is imported
    import nncf
    import onnx

    nncf.set_log_level(logging.ERROR)
    quiet_libraries()
    merged, plain = run.export / MERGED, folder / "fp32"
    check_checkpoint(merged)
    convert(merged, plain)
    model = onnx.load(plain / MODEL)
    encoder, inputs = load_encoder(merged, open_artifact(merged)), {node.name for node in model.graph.input}
    padded = (encoder.pad([text]) for text in encoder.encode(calibration_texts(run, SUBSET)))
    feeds = [{name: array for name, array in arrays.items() if name in inputs} for arrays in padded]
    with contextlib.redirect_stdout(io.StringIO()):  # its bars
        quantized = nncf.quantize(model, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER)
    onnx.save(quantized, folder / MODEL)
    shutil.copy(merged / "tokenizer.json", folder)
    shutil.rmtree(plain)


def load(run: RunDir, threads: int, prepared: Path) -> ModelEngine[Any]:
    """Load what `quantize` left."""
    artifact = replace(open_artifact(run.export / MERGED), model_file=MODEL)
    engine = open_engine(prepared, artifact, threads=threads)
    engine.batchings = own_best(threads)
    return engine


ENGINES = (
    EngineSpec(
        name="openvino-nncf-int8",
        load=load,
        precision="int8",
        artifact=MERGED,
        imports=("torch", "transformers", "onnx", "openvino", "nncf"),
        packages=("openvino",),
        is_peer=True,
        prepare=quantize,
    ),
)
