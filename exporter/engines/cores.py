"""The processors: what they are called, and how many cores of the CPU this process may keep busy."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Return how many cores this process may keep busy: by affinity, and by the quota of its container.

    Args:
        cgroup: where the kernel shows the quota.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(affinity, quota_cores(cgroup))))


def quota_cores(cgroup: Path) -> float:
    """Return the CPU quota of the container in cores, infinite where there is none.

    Source: the kernel's documentation of `cpu.max` (cgroup v2) and `cpu.cfs_quota_us` (v1).
    """
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{kind}_us").read_text().strip() for kind in ("quota", "period")
            )
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """Return what the CPU calls itself.

    Args:
        cpuinfo: where Linux describes it.
    """
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_kind(cpuinfo: Path = CPUINFO) -> str:
    """Return what tells one kind of CPU from another: its name, which may be that of many, and what it can do.

    Args:
        cpuinfo: where Linux describes it; on ARM it has no name there, but numbers of its maker and its part.
    """
    told = ("flags", "Features", "CPU implementer", "CPU part")
    lines: list[str] = []
    with suppress(OSError):
        lines = sorted({line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith(told)})
    return f"{cpu_name(cpuinfo)}, {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:12]}"


def ask_driver(*fields: str, what: str = "gpu") -> list[list[str]]:
    """Return the answers of NVIDIA's driver, a row for each card, or for each process where `what` is `compute-apps`.

    Only the card that CUDA calls the first one is asked for. Nothing is returned where there is no driver or no card.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    query = ["nvidia-smi", f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
    query += [f"--id={first}"] if first else []
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return [[value.strip() for value in line.split(",")] for line in answer.splitlines() if line.strip()]


def gpu_name() -> str | None:
    """Return the name of the first CUDA device by the word of its driver, None where that is not known."""
    names = ask_driver("name")
    return names[0][0] if names else None
