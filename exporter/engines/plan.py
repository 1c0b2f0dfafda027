"""A plan: the fastest way to score many texts, as it was measured on one machine for one bundle.

It lies beside the bundle's folder, whose checksums are sealed, as `<folder>.plan.json`. One for another machine,
other versions or another bundle is not used; the usual way takes its place. It chooses only among ways that were
checked: never more texts in a call than the gate of the exporter tried, and another engine only where it gave the
same answers to the texts that the plan was made with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from exporter.bundle.artifact import EngineName
from exporter.checksums import manifest_sha256
from exporter.engines.cores import cpu_kind, gpu_name
from exporter.engines.engine import MOST_TEXTS, Batching
from exporter.engines.spec import Device
from trainer.errors import UserError
from trainer.records import Upgrade, installed_versions, read_record

ENGINE_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino")
MOST_TOKENS: Mapping[Device, int] = {"cpu": 8192, "cuda": 131_072}
"""In one call: a plan may come from anybody, and activations take memory."""
MOST_TEXTS_ON: Mapping[Device, int] = {"cpu": MOST_TEXTS, "cuda": 4096}
"""In one call. On a GPU, the gate of the exporter has scored all its texts in calls of many."""
MOST_STREAMS = 1024
UNKNOWN_GPU = "an unknown GPU"
"""Nobody can tell whether a plan fits another one."""


@dataclass(frozen=True)
class Way:
    """A way to score many texts."""

    batching: Batching
    engine: EngineName = "onnxruntime"

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.engine}, {self.batching.name}"


@dataclass(frozen=True)
class Trial:
    """One way that was tried."""

    way: Way
    seconds: tuple[float, ...]
    """Of each round until it was told to be slower; in round i, all ways scored the same texts."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The fastest way to score many texts, where it holds, and what it was chosen by."""

    SCHEMA: ClassVar[int] = 1
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {}
    MADE_BY: ClassVar[str] = "python -m exporter.tune"

    artifact_sha256: str
    """Of the bundle's `SHA256SUMS`."""
    cpu: str
    """What it was made on: the kind of CPU, and the GPU before it where one is used."""
    threads: int
    versions: dict[str, str]
    """Of what runs models."""
    way: Way
    trials: tuple[Trial, ...] = ()
    texts: int = 0
    """In each round."""
    finished_at: str = ""

    def fits(self, artifact_sha256: str, threads: int, device: Device = "cpu") -> bool:
        """Return whether it was made for this bundle, machine, number of threads, and for what is installed."""
        if self.cpu.startswith(UNKNOWN_GPU):
            return False
        here = (artifact_sha256, machine_kind(device), threads, engine_versions())
        return (self.artifact_sha256, self.cpu, self.threads, self.versions) == here


def plan_path(folder: Path, device: Device = "cpu") -> Path:
    """Return where the plan for a bundle on a device lies."""
    folder = folder.resolve()  # `.` has no name
    return folder.parent / f"{folder.name}{'' if device == 'cpu' else f'.{device}'}.plan.json"


def machine_kind(device: Device) -> str:
    """Return what tells one kind of machine from another, for what runs on a device."""
    return cpu_kind() if device == "cpu" else f"{gpu_name() or UNKNOWN_GPU}, {cpu_kind()}"


def engine_versions() -> dict[str, str]:
    """Return the versions of what runs models here."""
    return installed_versions(ENGINE_PACKAGES)


def fitting_plan(folder: Path, threads: int, device: Device = "cpu") -> Plan | None:
    """Return the plan beside a bundle, None where there is none that can be used; what is wrong with one is said.

    Nothing depends on a plan but speed, so that none keeps a bundle from being loaded.
    """
    path = plan_path(folder, device)
    if not os.path.lexists(path):
        return None
    try:
        plan = read_record(path, Plan)
        problem = _problem(plan, device)
    except UserError as error:
        problem = error.message
    if problem:
        from trainer.progress import say  # much that a classifier does not need

        say(f"`{path}` is not used: {problem}; `{Plan.MADE_BY}` makes a new one")
        return None
    return plan if plan.fits(manifest_sha256(folder), threads, device) else None


def _problem(plan: Plan, device: Device) -> str | None:
    """Return what a plan says that nothing here writes: it may come from anybody."""
    batching = plan.way.batching
    if not 1 <= batching.streams <= min(plan.threads, MOST_STREAMS):
        return "`streams` is not from 1 to the number of threads"
    if batching.texts is None or not 1 <= batching.texts <= MOST_TEXTS_ON[device]:
        return f"`texts` is not from 1 to {MOST_TEXTS_ON[device]:,}"
    if batching.tokens is not None and not 1 <= batching.tokens <= MOST_TOKENS[device]:
        return f"`tokens` is not from 1 to {MOST_TOKENS[device]:,}"
    return None
