"""What a benchmark measures with: the engines, their processes, and the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.engines.table import ENGINES
from bench.measure.cold import cold_start
from bench.measure.company import Watch
from bench.measure.gpu import used_bytes
from bench.measure.machine import measure_machine
from bench.results import Machine
from exporter.engines.spec import EngineSpec
from exporter.proof.worker import StartWorker, Worker


@dataclass(frozen=True)
class Instruments:
    """The real ones by default."""

    engines: Sequence[EngineSpec] = ENGINES
    start: StartWorker = Worker
    cold_start: Callable[..., dict[str, float] | None] = cold_start
    measure_machine: Callable[..., Machine | None] = measure_machine
    watch: Callable[[int], Watch] = Watch
    used_on_gpu: Callable[[], int | None] = used_bytes
    clock: Callable[[], float] = time.monotonic
