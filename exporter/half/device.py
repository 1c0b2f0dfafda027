"""Whether there is a GPU to prove and measure half precision on."""

from __future__ import annotations

from exporter.engines.cores import gpu_name
from exporter.engines.onnxruntime import PROVIDERS
from trainer.progress import say


def usable_gpu() -> str | None:
    """Return the name of the GPU that both PyTorch and onnxruntime can use, None where there is none; why is said."""
    import onnxruntime
    import torch

    if not torch.cuda.is_available():
        say("this PyTorch finds no CUDA device")
        return None
    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        say("this onnxruntime cannot use CUDA: replace the package `onnxruntime` by `onnxruntime-gpu`")
        return None
    return gpu_name() or str(torch.cuda.get_device_name())


def wake() -> None:
    """Import what PyTorch's steps of an export load with, and open the GPU where there is one."""
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
