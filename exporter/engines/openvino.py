"""OpenVINO: Intel's runtime, on CPUs. `pip install 'lora2onnx[openvino]'` brings it.

It runs every bundle. Of those that were made for it, it computes in bf16 what is not in int8, as they were proved, on
CPUs that can. It compiles kernels for every new shape, so that lengths are rounded up. The package itself is imported
when a model is loaded.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.bundle.artifact import ONNX_BF16_OPENVINO, ONNX_FP32, ONNX_INT8_OPENVINO, Artifact
from exporter.checksums import check_checksums
from exporter.engines import onnxruntime
from exporter.engines.engine import Batching, ModelEngine, load_encoder, usual_batching
from exporter.engines.spec import Device, EngineSpec, is_installed
from trainer.errors import UserError
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder

if TYPE_CHECKING:
    from trainer.run import RunDir

WIDTH = 32
"""To a multiple of which a length is rounded up."""


class OpenVinoModel:
    """An ONNX model that takes encoded texts, one call after the other.

    Args:
        request: what runs the compiled model.
        encoder: its encoder.
        labels: how many logits there have to be for a text.
    """

    def __init__(self, request: Any, encoder: Encoder, labels: int) -> None:
        self._request, self._labels = request, labels
        self._inputs = {name for port in request.model_inputs for name in port.names}
        self.encoder = encoder
        self._calling = threading.Lock()  # a request is busy while it runs, and a server may ask from several threads

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of one batch, [len(batch), classes], padded to the longest text or to `length` tokens."""
        longest = max(map(len, batch))
        rounded = max(longest, min(-(-longest // WIDTH) * WIDTH, self.encoder.max_length))
        feeds = self.encoder.pad(batch, length or rounded)
        try:
            with self._calling:
                answer = self._request.infer({name: value for name, value in feeds.items() if name in self._inputs})
                logits = np.array(answer[0], dtype=np.float32)
        except Exception as error:  # classes of its own that it does not export
            raise UserError(f"openvino cannot run the model: {_last_line(error)}", "use `onnxruntime`") from None
        if logits.shape != (len(batch), self._labels):
            raise UserError(
                f"the model returned logits of shape {logits.shape} for {len(batch)} texts and {self._labels} labels",
                "export the artifact again",
            )
        return logits


def open_engine(
    folder: Path,
    artifact: Artifact,
    *,
    device: Device = "cpu",
    threads: int,
    sha256: str | None = None,
    bulk: Batching | None = None,
) -> ModelEngine[OpenVinoModel]:
    """Load what `folder` holds without any check; see `onnxruntime.open_engine`.

    Raises:
        UserError: OpenVINO is not installed, or cannot load the model.
    """
    if device != "cpu":
        raise UserError("openvino is for CPUs here", "leave out the device, or use `onnxruntime`")
    if not is_installed("openvino"):
        raise UserError("the package `openvino` is not installed", "run `pip install 'lora2onnx[openvino]'`")
    encoder = load_encoder(folder, artifact)
    precision = "bf16" if artifact.engine == "openvino" and computes_in_bf16() else "f32"

    def split(streams: int) -> list[OpenVinoModel]:
        if sha256:
            check_checksums(folder, sha256)
        compiled = _compile(folder / artifact.model_file, threads, streams, precision)
        requests = [compiled.create_infer_request() for _ in range(streams)]
        return [OpenVinoModel(request, encoder, len(artifact.label_names)) for request in requests]

    return ModelEngine(split(1)[0], bulk or usual_batching(threads), split)


load_bundle = partial(onnxruntime.load_bundle, name="openvino", open_with=open_engine)
"""Check a bundle's files, load it, and let it answer its golden texts; see `onnxruntime.load_bundle`."""


def load_engine(folder: Path, *, device: Device = "cpu", threads: int) -> ModelEngine[Any]:
    """Load a bundle's engine as whoever deploys it does; see `load_bundle`."""
    return load_bundle(folder, device=device, threads=threads)[1]


def computes_in_bf16() -> bool:
    """Tell whether this CPU computes in bf16, which OpenVINO would otherwise imitate, or leave."""
    return "BF16" in _runtime().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _runtime() -> Any:
    """Import OpenVINO without the package that reports to its maker who uses it, which it can do without."""
    blocked = sys.modules.setdefault("openvino_telemetry", None) is None  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    finally:
        if blocked:
            del sys.modules["openvino_telemetry"]


def _compile(path: Path, threads: int, streams: int, precision: str) -> Any:
    core = _runtime().Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,  # pinned, several processes would share one core
    }
    try:
        return core.compile_model(core.read_model(path), "CPU", settings)
    except Exception as error:  # classes of its own that it does not export
        raise UserError(f"openvino cannot load `{path}`: {_last_line(error)}", "use `onnxruntime`") from None


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]


def _load(run: RunDir, threads: int, _: Path, *, artifact: str) -> ModelEngine[Any]:
    return load_engine(run.export / artifact, threads=threads)


def _spec(name: str, artifact: str, precision: str, made_with: str = "") -> EngineSpec:
    return EngineSpec(
        name=name,
        load=partial(_load, artifact=artifact),
        precision=precision,
        artifact=artifact,
        made_with=made_with,
        imports=("openvino", "tokenizers"),
        packages=("openvino", "tokenizers", "numpy"),
        can_ship=True,
        is_extra=True,
    )


ENGINES = (
    _spec("onnx-fp32-openvino", ONNX_FP32, "fp32"),
    _spec(ONNX_BF16_OPENVINO, ONNX_BF16_OPENVINO, "bf16", made_with="--quantize"),
    _spec(ONNX_INT8_OPENVINO, ONNX_INT8_OPENVINO, "int8", made_with="--quantize"),
)
