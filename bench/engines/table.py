"""Every way to serve the classifier, under one contract: texts in, logits on the host out."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.config import Device
from bench.measure.cores import pin
from exporter.proof.reference import Dtype, TorchClassifier
from exporter.records import MERGED, ONNX_FP16, ONNX_FP32, ONNX_INT8, ExportRecord
from trainer.errors import UserError
from trainer.run import RunDir

ADAPTER = "adapter-fp32"
REFERENCE = "pytorch-fp32-cpu"
"""What speed and accuracy are compared with."""
AGAIN = " (again)"

Precision = Literal["fp32", "bf16", "fp16", "int8", "none"]
ONNX_PACKAGES = ("onnxruntime", "tokenizers", "numpy")
TORCH_PACKAGES = ("torch", "transformers")


@dataclass(frozen=True)
class EngineSpec:
    """Which artifact to load, and where. Its name is the flag value, the JSON value and the row in the table."""

    name: str
    artifact: str
    device: Device
    precision: Precision
    packages: tuple[str, ...]
    """What has to be installed to serve it."""
    peer: str | None = None
    """The function of `bench.peers` that loads it, for another tool's way to serve."""
    prepares: bool = False
    """Whether loading it makes it first, so that its start says nothing of serving."""


SPECS = (
    EngineSpec("adapter-fp32-cpu", ADAPTER, "cpu", "fp32", (*TORCH_PACKAGES, "peft")),
    EngineSpec("adapter-fp32-cuda", ADAPTER, "cuda", "fp32", (*TORCH_PACKAGES, "peft")),
    EngineSpec("pytorch-fp32-cpu", MERGED, "cpu", "fp32", TORCH_PACKAGES),
    EngineSpec("pytorch-fp32-cuda", MERGED, "cuda", "fp32", TORCH_PACKAGES),
    EngineSpec("pytorch-bf16-cuda", MERGED, "cuda", "bf16", TORCH_PACKAGES),
    EngineSpec("pytorch-fp16-cuda", MERGED, "cuda", "fp16", TORCH_PACKAGES),
    EngineSpec("onnx-fp32-cpu", ONNX_FP32, "cpu", "fp32", ONNX_PACKAGES),
    EngineSpec("onnx-fp32-cuda", ONNX_FP32, "cuda", "fp32", ("onnxruntime-gpu", *ONNX_PACKAGES[1:])),
    EngineSpec("onnx-fp16-cuda", ONNX_FP16, "cuda", "fp16", ("onnxruntime-gpu", *ONNX_PACKAGES[1:])),
    EngineSpec("onnx-int8-cpu", ONNX_INT8, "cpu", "int8", ONNX_PACKAGES),
)

OPTIMUM = ("optimum-onnx", "onnxruntime", *TORCH_PACKAGES)
PEERS = (
    EngineSpec("transformers-pipeline", MERGED, "cpu", "fp32", TORCH_PACKAGES, "transformers_pipeline"),
    EngineSpec("optimum-pipeline-fp32", ONNX_FP32, "cpu", "fp32", OPTIMUM, "optimum_fp32"),
    EngineSpec("optimum-pipeline-int8", MERGED, "cpu", "int8", OPTIMUM, "optimum_int8", prepares=True),
    EngineSpec("openvino-fp32", ONNX_FP32, "cpu", "fp32", ("openvino", "tokenizers"), "OpenVino"),
    EngineSpec("tfidf-logistic-regression", "none", "cpu", "none", ("scikit-learn",), "word_counts", prepares=True),
)


def choose_specs(names: Sequence[str] | None, *, peers: bool = False) -> list[EngineSpec]:
    """Return the engines called `names`; all of ours where None, and the peers if asked for.

    Raises:
        UserError: there is no engine of that name.
    """
    known = {spec.name: spec for spec in (*SPECS, *PEERS)}
    if odd := [name for name in names or () if name not in known]:
        raise UserError(f"no engine `{odd[0]}`", f"choose among {', '.join(known)}")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    return [*SPECS, *PEERS] if peers else list(SPECS)


def why_unusable(spec: EngineSpec, run: RunDir, export: ExportRecord, gpu: str | None) -> str | None:
    """Return the reason why an engine cannot be measured here, None where it can be tried."""
    if spec.artifact == ADAPTER:
        if not run.has_adapter():
            return "the run came as a merged checkpoint, without an adapter"
    elif spec.artifact != "none" and spec.artifact not in {artifact.name for artifact in export.artifacts}:
        how = " --target cuda" if spec.artifact == ONNX_FP16 else " --quantize" if spec.artifact == ONNX_INT8 else ""
        return f"the export has no `{spec.artifact}`; `python -m exporter{how}` makes it"
    if spec.device == "cuda":
        if gpu is None:
            return "no CUDA device"
        if spec.artifact.startswith("onnx") and not _has_cuda():
            return "this onnxruntime cannot use CUDA; `onnxruntime-gpu` can"
    if spec.peer == "OpenVino" and not importlib.util.find_spec("openvino"):
        return "`pip install openvino` to have it"
    return None


def _has_cuda() -> bool:
    from onnxruntime import get_available_providers

    from exporter.runtime import PROVIDERS

    return PROVIDERS["cuda"] in get_available_providers()


def import_packages(spec: EngineSpec) -> None:
    """Import what an engine needs, without loading any model."""
    names = [name for name in ("torch", "transformers", "peft", "onnxruntime", "openvino") if name in spec.packages]
    for name in names:
        importlib.import_module(name)


def load_pinned(spec: EngineSpec, run: RunDir, threads: int) -> Any:
    """Load an engine into a process that may use as many cores, the same for all; see `load_engine`."""
    pin(threads)
    return load_engine(spec, run, threads)


def load_engine(spec: EngineSpec, run: RunDir, threads: int) -> Any:
    """Load an engine, allowed to use `threads` CPU threads: one of `bench.measure.Ours` or `Peer`.

    Raises:
        UserError: it cannot be used here.
    """
    if spec.peer:
        from bench.engines import pipelines as peers

        load: Callable[[RunDir, int], Any] = getattr(peers, spec.peer)
        return load(run, threads)
    if spec.artifact.startswith("onnx"):
        from exporter.runtime import Classifier  # onnxruntime is not to be in the memory of the others

        return Classifier.load(run.export / spec.artifact, device=spec.device, threads=threads)
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError("PyTorch is not installed", "`pip install 'lora2onnx[train]'`") from None
    torch.set_num_threads(threads)
    dtype: Dtype = spec.precision  # type: ignore[assignment]
    if spec.artifact == ADAPTER:
        return TorchClassifier.load_adapter(run, spec.device, dtype)
    return TorchClassifier.load(run.export / spec.artifact, spec.device, dtype)
