"""Where a training runs, and in which precision."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import accelerate
import torch

from trainer.config import Device, Precision
from trainer.errors import UserError
from trainer.locks import is_first_process

ROUNDS = 8
PAYS = 1.25
"""How many times as fast products have to be in bf16: what is not a product gains nothing, and is cast to and fro."""


@dataclass(frozen=True)
class Hardware:
    """Where a training runs, and in which precision."""

    device: str
    """`cuda`, `mps` or `cpu`."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""

    @property
    def name(self) -> str:
        """The GPU's name, or else the kind of device."""
        return str(torch.cuda.get_device_name()) if self.device == "cuda" else self.device


def choose_hardware(device: Device, precision: Precision, before: str = "") -> Hardware:
    """Return the device and the precision to train with, or raise a UserError for what does not exist here.

    Of a distributed training, the first process chooses for all: another may measure something else.

    Args:
        device: asked for.
        precision: the same.
        before: that of the run that is resumed, to which `auto` keeps where the hardware has it; empty for none.
    """
    chosen = choose_device(device)
    accelerate.PartialState(cpu=chosen == "cpu")  # several processes find each other
    if precision != "auto":
        return Hardware(chosen, choose_precision(precision, chosen))
    if before == "fp32" or (before == "bf16" and has_bf16(chosen)):
        return Hardware(chosen, before)
    settled = [choose_precision(precision, chosen) if is_first_process() else ""]
    return Hardware(chosen, accelerate.utils.broadcast_object_list(settled)[0])


def has_bf16(device: str) -> bool:
    """Return whether the device multiplies bf16 natively; others emulate it, many times slower."""
    if device == "cuda":
        return bool(torch.cuda.get_device_capability() >= (8, 0))
    features = torch.cpu.get_capabilities() if device == "cpu" else {}
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


def choose_device(asked: Device) -> str:
    """Return `cuda`, `mps` or `cpu`: what was asked for, or the best available."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(device for device, is_available in available.items() if is_available)
    if not available[asked]:
        raise UserError(f"no `{asked}` device on this machine", "leave out `--device` to use the best available")
    return asked


def choose_precision(asked: Precision, device: str, gain: Callable[[], float] | None = None) -> str:
    """Return the precision to train in; `auto` is bf16 where the hardware multiplies it natively and faster, else fp32.

    Args:
        asked: for.
        device: where to train.
        gain: how many times as fast products are in bf16 on a CPU; `gain_of_bf16` where None.
    """
    if asked == "fp16" and device != "cuda":
        raise UserError("fp16 training needs a CUDA device", "leave out `--precision` to use the best available")
    if asked != "auto":
        return asked
    is_faster = has_bf16(device) and (device == "cuda" or (gain or gain_of_bf16)() >= PAYS)
    return "bf16" if is_faster else "fp32"


@cache
def gain_of_bf16(time_of: Callable[[torch.dtype], float] | None = None) -> float:
    """Return how many times as fast products are in bf16 as in fp32 on this CPU: the fastest of some, asked in turns.

    What a CPU lists says too little: AMX can be refused to a container, and bf16 without it was 0.7 times as fast as
    fp32 on a CPU that is 7 times as fast with it.

    Args:
        time_of: returns the seconds of a product in a precision; measures one where None.
    """
    time_of = time_of or _Product()
    times = [(time_of(torch.float32), time_of(torch.bfloat16)) for _ in range(ROUNDS)]
    return min(fp32 for fp32, _ in times) / min(bf16 for _, bf16 in times)


class _Product:
    """Times the product of 2,048 tokens with an encoder's largest weight; smaller ones are told apart worse."""

    def __init__(self) -> None:
        self._tokens, self._weight = torch.ones(2048, 768), torch.ones(3072, 768)

    def __call__(self, dtype: torch.dtype) -> float:
        tokens, weight = self._tokens.to(dtype), self._weight.to(dtype)
        start = time.perf_counter()
        torch.nn.functional.linear(tokens, weight)
        return time.perf_counter() - start
