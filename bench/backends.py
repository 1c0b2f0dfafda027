"""Every way to serve the classifier, under one contract: texts in, logits on the host out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnxruntime import get_available_providers

from exporter.artifacts import MERGED, ONNX_FP16, ONNX_FP32, ONNX_INT8, ExportRecord
from exporter.reference import Dtype, TorchClassifier
from exporter.runtime import PROVIDERS, Classifier
from exporter.worker import Form
from trainer.errors import UserError
from trainer.run import RunDir

ADAPTER = "adapter-fp32"
BASELINE = "pytorch-fp32-cpu"
"""What speed and accuracy are compared with."""

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class BackendSpec:
    """Which artifact to load, and where. Its name is the flag value, the JSON value and the row in the table."""

    name: str
    artifact: str
    device: Device
    dtype: Dtype = "fp32"
    """The precision that PyTorch computes in; an ONNX artifact brings its own."""


SPECS = (
    BackendSpec("adapter-fp32-cpu", ADAPTER, "cpu", "fp32"),
    BackendSpec("adapter-fp32-cuda", ADAPTER, "cuda", "fp32"),
    BackendSpec("pytorch-fp32-cpu", MERGED, "cpu", "fp32"),
    BackendSpec("pytorch-fp32-cuda", MERGED, "cuda", "fp32"),
    BackendSpec("pytorch-bf16-cuda", MERGED, "cuda", "bf16"),
    BackendSpec("pytorch-fp16-cuda", MERGED, "cuda", "fp16"),
    BackendSpec("onnx-fp32-cpu", ONNX_FP32, "cpu"),
    BackendSpec("onnx-fp32-cuda", ONNX_FP32, "cuda"),
    BackendSpec("onnx-fp16-cuda", ONNX_FP16, "cuda"),
    BackendSpec("onnx-int8-cpu", ONNX_INT8, "cpu"),
)


def choose_specs(names: Sequence[str] | None) -> list[BackendSpec]:
    """Return the backends called `names`, all where None.

    Raises:
        UserError: there is no backend of that name.
    """
    known = {spec.name: spec for spec in SPECS}
    if odd := [name for name in names or () if name not in known]:
        raise UserError(f"no backend `{odd[0]}`", f"choose among {', '.join(known)}")
    return [known[name] for name in names or known]


def why_unusable(spec: BackendSpec, export: ExportRecord, gpu: str | None) -> str | None:
    """Return the reason why a backend cannot be measured here, None where it can be tried."""
    if spec.artifact != ADAPTER and spec.artifact not in {artifact.name for artifact in export.artifacts}:
        return f"the export has no `{spec.artifact}`; `{ExportRecord.MADE_BY}` makes it"
    if spec.device == "cuda":
        if gpu is None:
            return "no CUDA device"
        if spec.artifact.startswith("onnx") and PROVIDERS["cuda"] not in get_available_providers():
            return "this onnxruntime cannot use CUDA; `onnxruntime-gpu` can"
    return None


def load_backend(spec: BackendSpec, run: RunDir, threads: int) -> Form:
    """Load a backend, allowed to use `threads` CPU threads.

    Raises:
        UserError: it cannot be used here.
    """
    if spec.artifact.startswith("onnx"):
        return Classifier.load(run.export / spec.artifact, device=spec.device, threads=threads)
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError("PyTorch is not installed", "`pip install 'lora2onnx[train]'`") from None
    torch.set_num_threads(threads)
    if spec.artifact == ADAPTER:
        return TorchClassifier.load_adapter(run, spec.device, spec.dtype)
    return TorchClassifier.load(run.export / spec.artifact, spec.device, spec.dtype)
