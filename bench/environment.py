"""What machine and which software the numbers belong to."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

from bench.results import Environment
from exporter.runtime import usable_cores
from trainer.records import installed_versions

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy", "torch", "transformers", "peft")


def read_environment(threads: int) -> Environment:
    """Describe this machine; `threads` is what every backend is allowed to use."""
    return Environment(
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        usable_cores=usable_cores(),
        threads=threads,
        gpu=gpu_name(),
        versions=installed_versions(PACKAGES),
    )


def gpu_name() -> str | None:
    """Return the name of the first CUDA device by the word of its driver, None where there is none."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return names.splitlines()[0].strip() if names.strip() else None


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or os.uname().machine
