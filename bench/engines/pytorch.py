"""PyTorch on CPU and CUDA: the adapter as it was trained, and the merged checkpoint in each precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.engines.cuda_graph import GraphModel, without_capturing
from exporter.bundle.artifact import MERGED
from exporter.engines.engine import GPU_BLOCK_TEXTS, Batching, Model, ModelEngine
from exporter.engines.spec import Device, EngineSpec
from exporter.proof.reference import Dtype, TorchModel, load_merged, load_trained
from trainer.data.sources import locate_base

if TYPE_CHECKING:
    from trainer.run import RunDir

M = TypeVar("M", bound=Model, covariant=True)

CUDA_BATCHINGS = tuple(Batching(tokens=tokens) for tokens in (8192, 32_768, 131_072))
"""Below, most of a card has nothing to do."""


def _load_adapter(run: RunDir, threads: int, _: Path, *, device: Device) -> ModelEngine[TorchModel]:
    import torch

    torch.set_num_threads(threads)
    return _batched(load_trained(run, device), device)


def _load_merged(run: RunDir, threads: int, _: Path, *, device: Device, dtype: Dtype) -> ModelEngine[TorchModel]:
    import torch

    torch.set_num_threads(threads)
    return _batched(load_merged(run.export / MERGED, device, dtype), device)


def _load_graphs(run: RunDir, threads: int, _: Path, *, dtype: Dtype) -> ModelEngine[GraphModel]:
    import torch

    torch.set_num_threads(threads)
    eager = load_merged(run.export / MERGED, "cuda", dtype).model
    return _batched(ModelEngine(GraphModel(eager), shapes=eager.shapes, block=GPU_BLOCK_TEXTS), "cuda")


def _batched(engine: ModelEngine[M], device: Device) -> ModelEngine[M]:
    if device == "cuda":
        engine.batchings = CUDA_BATCHINGS
    return engine


def _adapter_files(run: RunDir) -> Iterable[Path]:
    """Return the adapter and its base: both have to be on disk."""
    base = run.load().base
    return [*run.adapter.iterdir(), *locate_base(base.name, base.revision).folder.glob("*.safetensors")]


def _without_adapter(run: RunDir) -> str | None:
    return None if run.has_adapter() else "the run holds or adopted a whole checkpoint, without an adapter"


def _adapter(device: Device) -> EngineSpec:
    return EngineSpec(
        name=f"adapter-fp32-{device}",
        load=partial(_load_adapter, device=device),
        precision="fp32",
        device=device,
        imports=("torch", "transformers", "peft"),
        packages=("torch", "transformers", "peft"),
        files=_adapter_files,
        objection=_without_adapter,
    )


def _merged(device: Device, dtype: Dtype) -> EngineSpec:
    return EngineSpec(
        name=f"pytorch-{dtype}-{device}",
        load=partial(_load_merged, device=device, dtype=dtype),
        precision=dtype,
        device=device,
        artifact=MERGED,
        imports=("torch", "transformers"),
        packages=("torch", "transformers"),
        can_ship=True,
    )


ENGINES = (
    _adapter("cpu"),
    _adapter("cuda"),
    _merged("cpu", "fp32"),
    _merged("cuda", "fp32"),
    _merged("cuda", "bf16"),
    _merged("cuda", "fp16"),
    replace(
        _merged("cuda", "fp16"),
        name="pytorch-fp16-cuda-graph",
        load=partial(_load_graphs, dtype="fp16"),
        objection=without_capturing,
        can_ship=False,  # there is no bundle that answers so
    ),
)
