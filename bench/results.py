"""What a benchmark measured: flat rows, each complete in itself, with every raw sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config import BenchConfig


@dataclass(frozen=True)
class BackendInfo:
    """One way to serve the classifier: an artifact on a device."""

    name: str
    artifact: str
    device: str
    size_bytes: int
    """Of all that has to be on disk to serve it, but for the installed packages."""


@dataclass(frozen=True)
class Skipped:
    """A backend that was not measured, and why."""

    backend: str
    reason: str


@dataclass(frozen=True)
class Accuracy:
    """A backend's answers to the evaluation reviews, and their scores."""

    backend: str
    reviews: int
    accuracy: float
    f1_weighted: float
    loss: float
    """Mean negative log-likelihood of the true label, in nats."""
    predicted: tuple[int, ...]
    """The index of the label given to each review, in the order of the evaluation file."""


@dataclass(frozen=True)
class Timing:
    """How long a backend took for each call with `batch_size` reviews, from texts to logits on the host.

    Sample i of every backend is the time for the same reviews, taken in the same round.
    """

    backend: str
    batch_size: int
    samples_s: tuple[float, ...]


@dataclass(frozen=True)
class Environment:
    """The machine and the software that the numbers belong to."""

    system: str
    cpu: str
    usable_cores: int
    threads: int
    """What every backend was allowed to use."""
    gpu: str | None
    versions: dict[str, str]


@dataclass(frozen=True)
class BenchRecord:
    """What a benchmark did and measured."""

    SCHEMA: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = "python -m bench"

    config: BenchConfig
    export_sha256: str
    """Of the `export.json` that was measured."""
    chosen: str
    """The artifact that the exporter chose."""
    labels: tuple[int, ...]
    """The true label of each evaluation review, as an index into `label_names`."""
    label_names: tuple[str, ...]
    environment: Environment
    backends: tuple[BackendInfo, ...]
    skipped: tuple[Skipped, ...]
    accuracies: tuple[Accuracy, ...]
    timings: tuple[Timing, ...]
    duration_s: float
    finished_at: str
