"""PyTorch on CPU and CUDA: the adapter as it was trained, and the merged checkpoint in each precision."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.bundle.artifact import MERGED
from exporter.engines.spec import Device, EngineSpec
from exporter.proof.reference import Dtype, TorchModel, load_merged, load_trained
from trainer.data.sources import locate_base

if TYPE_CHECKING:
    from exporter.engines.engine import ModelEngine
    from trainer.run import RunDir


def _load_adapter(run: RunDir, threads: int, _: Path, *, device: Device) -> ModelEngine[TorchModel]:
    import torch

    torch.set_num_threads(threads)
    return load_trained(run, device)


def _load_merged(run: RunDir, threads: int, _: Path, *, device: Device, dtype: Dtype) -> ModelEngine[TorchModel]:
    import torch

    torch.set_num_threads(threads)
    return load_merged(run.export / MERGED, device, dtype)


def _adapter_files(run: RunDir) -> Iterable[Path]:
    """Return the adapter and its base: both have to be on disk."""
    base = run.load().base
    return [*run.adapter.iterdir(), *locate_base(base.name, base.revision).folder.glob("*.safetensors")]


def _without_adapter(run: RunDir) -> str | None:
    return None if run.has_adapter() else "the run came as a merged checkpoint, without an adapter"


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
)
