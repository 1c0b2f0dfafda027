"""What machine and which software the numbers belong to."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution

from bench.measure.gpu import cuda_versions, find_card
from bench.results import Environment
from exporter.engines.cores import cpu_name, usable_cores
from exporter.int8.target import instruction_sets
from trainer.records import installed_versions

PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tokenizers",
    "numpy",
    "torch",
    "transformers",
    "peft",
    "optimum",
    "optimum-onnx",
    "scikit-learn",
)


def read_environment(threads: int) -> Environment:
    """Describe this machine; `threads` is what every engine is allowed to use."""
    card = find_card()
    return Environment(
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        instruction_sets=instruction_sets(),
        usable_cores=usable_cores(),
        threads=threads,
        gpu=card[0] if card else None,
        versions=installed_versions(PACKAGES) | (cuda_versions() if card else {}),
        card=card[1] if card else None,
    )


@lru_cache
def packages_bytes(names: tuple[str, ...]) -> int:
    """Return the size on disk of installed packages, together with those that they require."""
    seen: set[str] = set()
    waiting = [_normal(name) for name in names]
    total = 0
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        with suppress(PackageNotFoundError):
            found = distribution(name)
            for path in found.files or ():
                with suppress(OSError):
                    total += os.stat(str(found.locate_file(path))).st_size  # noqa: PTH116
            needed = (r for r in found.requires or () if "extra ==" not in r)
            waiting += [_normal(match.group()) for r in needed if (match := re.match(r"[\w.-]+", r))]
    return total


def _normal(name: str) -> str:
    """Return a package's name as the index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
