"""How much memory this process holds, on the host and on the GPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.measure.gpu import bytes_of


def resident_bytes(_: object = None) -> int | None:
    """Return the memory that this process has resident now, None where that is not known."""
    return _status("VmRSS")


def peak_bytes(_: object = None) -> int | None:
    """Return the most that it ever had, None where that is not known."""
    return _status("VmHWM")


def gpu_bytes(_: object = None) -> int | None:
    """Return the memory of this process on the GPU, None where that is not known.

    Of PyTorch it is the most that was ever allocated; of others what they hold now by the driver's count, which those
    that never give memory back have held at most.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    return bytes_of(os.getpid())


def _status(field: str) -> int | None:
    """Read a size from the kernel's account of this process.

    `getrusage` would do on all systems, but counts what the parent process had before this one was started.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), None)
