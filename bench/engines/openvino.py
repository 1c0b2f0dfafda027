"""Intel's runtime on our ONNX model in fp32, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.bundle.artifact import ONNX_FP32, open_artifact
from exporter.engines.engine import ONE_BY_ONE, Batching, ModelEngine, load_encoder
from exporter.engines.spec import EngineSpec
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder

if TYPE_CHECKING:
    from trainer.run import RunDir


class OpenVinoModel:
    """An ONNX model that takes encoded texts.

    Args:
        path: the model's file.
        encoder: its encoder.
        threads: how many CPU threads one call may use.
    """

    def __init__(self, path: Path, encoder: Encoder, threads: int) -> None:
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self._model = core.compile_model(core.read_model(path), "CPU", settings)
        self._inputs = {name for port in self._model.inputs for name in port.names}
        self.encoder = encoder

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of one batch, [len(batch), classes], padded to the longest text or to `length` tokens."""
        feeds = self.encoder.pad(batch, length)
        answer = self._model({name: value for name, value in feeds.items() if name in self._inputs})
        return np.array(answer[0], dtype=np.float32)


class OpenVino(ModelEngine[OpenVinoModel]):
    """An engine of such a model."""

    batchings = (ONE_BY_ONE, Batching(texts=32))


def _load(run: RunDir, threads: int, _: Path) -> OpenVino:
    folder = run.export / ONNX_FP32
    artifact = open_artifact(folder)
    return OpenVino(OpenVinoModel(folder / artifact.model_file, load_encoder(folder, artifact), threads))


ENGINES = (
    EngineSpec(
        name="openvino-fp32",
        load=_load,
        precision="fp32",
        artifact=ONNX_FP32,
        imports=("openvino", "tokenizers"),
        packages=("openvino", "tokenizers"),
        is_peer=True,
    ),
)
