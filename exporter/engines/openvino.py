"""OpenVINO: Intel's runtime on the same bundles, on CPUs. `pip install 'lora2onnx[openvino]'` brings it.

It compiles kernels for every new shape, so that lengths are rounded up. The package itself is imported when a
model is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exporter.bundle.artifact import ONNX_FP32, ONNX_INT8, Artifact
from exporter.checksums import check_checksums
from exporter.engines import onnxruntime
from exporter.engines.engine import Batching, ModelEngine, load_encoder, usual_batching
from exporter.engines.spec import Device, EngineSpec
from trainer.errors import UserError
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder

if TYPE_CHECKING:
    from trainer.run import RunDir

Hint = Literal["f32", "bf16"]
"""What it computes in where the file says fp32."""
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
    hint: Hint = "f32",
) -> ModelEngine[OpenVinoModel]:
    """Load what `folder` holds without any check; see `onnxruntime.open_engine`.

    Raises:
        UserError: OpenVINO is not installed, or cannot load the model.
    """
    if device != "cpu":
        raise UserError("openvino is for CPUs here", "leave out the device, or use `onnxruntime`")
    if importlib.util.find_spec("openvino") is None:
        raise UserError("the package `openvino` is not installed", "run `pip install 'lora2onnx[openvino]'`")
    encoder = load_encoder(folder, artifact)

    def split(streams: int) -> list[OpenVinoModel]:
        if sha256:
            check_checksums(folder, sha256)
        compiled = _compile(folder / artifact.model_file, threads, streams, hint)
        requests = [compiled.create_infer_request() for _ in range(streams)]
        return [OpenVinoModel(request, encoder, len(artifact.label_names)) for request in requests]

    return ModelEngine(split(1)[0], bulk or usual_batching(threads), split)


load_bundle = partial(onnxruntime.load_bundle, name="openvino", open_with=open_engine)
"""Check a bundle's files, load it, and let it answer its golden texts; see `onnxruntime.load_bundle`."""


def _runtime() -> Any:
    """Import OpenVINO without the package that reports to its maker who uses it, which it can do without."""
    blocked = sys.modules.setdefault("openvino_telemetry", None) is None  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    finally:
        if blocked:
            del sys.modules["openvino_telemetry"]


def _compile(path: Path, threads: int, streams: int, hint: Hint) -> Any:
    core = _runtime().Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": hint,
        "ENABLE_CPU_PINNING": False,  # pinned, several processes would share one core
    }
    try:
        return core.compile_model(core.read_model(path), "CPU", settings)
    except Exception as error:  # classes of its own that it does not export
        raise UserError(f"openvino cannot load `{path}`: {_last_line(error)}", "use `onnxruntime`") from None


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]


def _load(run: RunDir, threads: int, _: Path, *, artifact: str, hint: Hint) -> ModelEngine[Any]:
    opening, is_exact = partial(open_engine, hint=hint), hint == "f32"  # golden answers are those of all bits
    folder = run.export / artifact
    return load_bundle(folder, device="cpu", threads=threads, golden=is_exact, open_with=opening)[1]


def _objection(_: RunDir, *, hint: Hint) -> str | None:
    if hint == "f32":
        return None
    can = "BF16" in _runtime().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return None if can else "this CPU does not compute in bf16"


def _spec(name: str, artifact: str, precision: str, hint: Hint = "f32", made_with: str = "") -> EngineSpec:
    return EngineSpec(
        name=name,
        load=partial(_load, artifact=artifact, hint=hint),
        precision=precision,
        artifact=artifact,
        made_with=made_with,
        imports=("openvino", "tokenizers"),
        packages=("openvino", "tokenizers", "numpy"),
        can_ship=hint == "f32",
        is_extra=True,
        objection=partial(_objection, hint=hint),
    )


ENGINES = (
    _spec("onnx-fp32-openvino", ONNX_FP32, "fp32"),
    _spec("onnx-bf16-openvino", ONNX_FP32, "bf16", "bf16"),
    _spec("onnx-int8-openvino", ONNX_INT8, "int8", made_with="--quantize"),
)
"""Of int8 it is fast with static recipes (`--quantize static`); the dynamic ones are slower than onnxruntime's."""
