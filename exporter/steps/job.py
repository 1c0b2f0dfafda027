"""Job: what every step of an export needs, where each leaves its model, and how that is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exporter.bundle.artifact import MERGED, ONNX_FP32, Precision, open_artifact
from exporter.config import ExportConfig
from exporter.engines.cascade import load_both
from exporter.engines.engine import Batching, Engine, ModelEngine, usual_batching
from exporter.engines.onnxruntime import GPU_BATCHING, OnnxModel, open_engine
from exporter.engines.spec import Device
from exporter.proof.chain import Chain
from exporter.proof.worker import Workers
from exporter.records import PARTIAL
from exporter.subject import Subject


@dataclass(frozen=True)
class Job:
    """One export, while it is made."""

    subject: Subject
    config: ExportConfig
    workers: Workers
    chain: Chain
    """The proof, which every step that makes a model joins."""
    gpu: str | None
    """The GPU that half precision is proved and measured on; None where there is none, or none is asked for."""

    @property
    def device(self) -> Device:
        """Where models are proved and measured."""
        return "cuda" if self.gpu else "cpu"

    @property
    def batching(self) -> Batching:
        """How many texts are asked there."""
        return usual_batching(self.workers.threads) if self.device == "cpu" else GPU_BATCHING

    @property
    def folder(self) -> Path:
        """Where artifacts are made, beside the export that they will replace."""
        return self.subject.run.path / PARTIAL

    @property
    def merged(self) -> Path:
        """The merged checkpoint."""
        return self.folder / MERGED

    @property
    def fp32(self) -> Path:
        """The artifact in fp32."""
        return self.folder / ONNX_FP32

    @property
    def scratch(self) -> Path:
        """What lies here is not shipped."""
        return self.folder / "scratch"

    @property
    def unfused(self) -> Path:
        """The model as it was converted, which all artifacts but the checkpoint are made from."""
        return self.scratch / "onnx-unfused"

    def opening(self, folder: Path, precision: Precision) -> partial[ModelEngine[OnnxModel]]:
        """Return what loads an ONNX model that is not sealed yet, to compute in the precision of its numbers."""
        artifact, threads = self.subject.artifact(folder.name, precision), self.workers.threads
        return partial(open_engine, folder, artifact, device=self.device, threads=threads, exact=True)

    def opening_sealed(self, folder: Path) -> Callable[[], Engine]:
        """Return what loads a sealed artifact, with its first stage where it has one, else as its model was proved."""
        artifact = open_artifact(folder)
        if artifact.cascade:
            return partial(load_both, folder, threads=self.workers.threads)
        return self.opening(folder, artifact.precision)
