"""The CUDA device, as its driver describes it, or PyTorch where there is no such tool: its name, memory and clock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from bench.results import Card
from exporter.engines.cores import ask_driver
from trainer.records import installed_versions

DEVICE = Path("/dev/nvidia0")
PACKAGES = tuple(f"nvidia-{name}{suffix}" for name in ("cuda-runtime", "cudnn") for suffix in ("", "-cu13", "-cu12"))
"""What pip brings of CUDA and cuDNN; two of a kind where two packages want different ones."""
MEBIBYTE, MEGAHERTZ = 2**20, 1e6


@lru_cache
def find_card() -> tuple[str, Card] | None:
    """Return the name of the first CUDA device and what there is to say of it, None where there is none."""
    if rows := ask_driver("name", "driver_version", "memory.total"):
        name, driver, memory = rows[0]
        return name, Card(driver, scaled(memory, MEBIBYTE))
    return _by_torch() if DEVICE.exists() else None


def _by_torch() -> tuple[str, Card] | None:
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return str(found.name), Card(None, int(found.total_memory))


def cuda_versions() -> dict[str, str]:
    """Return the versions of CUDA and cuDNN: those that pip brought, else those that PyTorch was built with."""
    versions = installed_versions(PACKAGES)
    versions.pop("python", None)
    if versions:
        return versions
    import torch

    built = {"CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
    return {name: str(version) for name, version in built.items() if version}


def read_gpu_clocks() -> list[float]:
    """Return the clock at which the card's multiprocessors run now, in Hz; nothing where that is not known."""
    rows = ask_driver("clocks.sm") if find_card() else []
    return [hz for hz in (scaled(row[0], int(MEGAHERTZ)) for row in rows[:1]) if hz is not None]


def used_bytes() -> int | None:
    """Return how much memory of the card is in use now, by whomever; None where that is not known."""
    rows = ask_driver("memory.used")
    return scaled(rows[0][0], MEBIBYTE) if rows else None


def bytes_of(process: int) -> int | None:
    """Return what a process holds; in a container the driver may know it by another number, and then does not tell."""
    rows: Sequence[Sequence[str]] = ask_driver("pid", "used_memory", what="compute-apps")
    return next((scaled(row[1], MEBIBYTE) for row in rows if row[0] == str(process)), None)


def scaled(value: str, unit: int) -> int | None:
    """Return a number of the driver's in units, None where it says that it does not know."""
    return int(value) * unit if value.isdecimal() else None
