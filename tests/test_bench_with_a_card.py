"""A machine with 16 cores and a card, simulated: all its engines have intervals after five minutes by its clock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from local_worker import LOCAL, Alone, LocalWorker

import bench.measure.workload
from bench.config import BenchConfig
from bench.engines.table import ENGINES
from bench.measure import calls
from bench.measure.restart import SECOND
from bench.results import BenchRecord
from bench.run import bench as run_bench
from exporter.engines.engine import ONE_BY_ONE, Batching
from trainer.records import read_record
from trainer.run import RunDir

SINGLE_S = {"pytorch-fp32-cpu": 0.06, "adapter-fp32-cpu": 0.066, "onnx-fp32-cpu": 0.045, "onnx-int8-cpu": 0.025}
"""For one text; a card takes 3 ms. In bulk half of that for each text; a card takes 0.25 ms."""
CUDA = ("adapter-fp32", "pytorch-fp32", "pytorch-bf16", "pytorch-fp16", "onnx-fp32")
NAMES = (*SINGLE_S, *(f"{name}-cuda" for name in CUDA), "pytorch-fp16-cuda-graph")
LOADING_S, COLD_S, MACHINE_S = 12.0, 6.0, 10.0
TEXTS = 2000


class Simulated:
    """What goes on there, by a clock of its own."""

    def __init__(self) -> None:
        self.now, self.rng, self.are_loaded = 0.0, random.Random(0), False

    def takes(self, seconds: float) -> float:
        seconds *= self.rng.lognormvariate(0, 0.03)
        self.now += seconds
        return seconds

    def start(self, name: str, *_: Any, wait: bool = True) -> LocalWorker:  # noqa: ARG002
        if not self.are_loaded:  # on a core each, all at a time
            self.takes(LOADING_S)
        self.are_loaded = True
        return SimulatedWorker(self, name.removesuffix(SECOND))

    def cold_start(self, *_: Any) -> dict[str, float]:
        return {"total_s": self.takes(COLD_S), "import_s": 3.0, "load_s": 2.0, "first_s": 1.0}

    def measure_machine(self, *_: Any) -> None:
        self.takes(MACHINE_S)


class SimulatedWorker(LocalWorker):
    def __init__(self, machine: Simulated, name: str) -> None:
        self.machine, self.own = machine, machine.rng.lognormvariate(0, 0.01)
        self.single_s, self.is_ours = SINGLE_S.get(name, 0.003), name.startswith("onnx")
        self.text_s = 0.00025 if name not in SINGLE_S else self.single_s / 2

    def call(self, function: Callable[..., Any], *asked: Any) -> Any:
        if function is calls.timed:
            return calls.Call(self.machine.takes(self.single_s * self.own), None, None, (0.25,) * 4)
        if function is calls.scored:
            texts = len(asked[0])
            return calls.Scored(self.machine.takes(0.003 + texts * self.text_s * self.own), np.zeros((texts, 4)))
        if function is calls.batchings:
            ways = (ONE_BY_ONE,) if self.is_ours else (ONE_BY_ONE, Batching(tokens=2048), Batching(tokens=8192))
            return {way.name: way for way in ways}
        if function is calls.batch_time:
            return self.machine.takes(0.003 + asked[1] * asked[2] * self.text_s / 250)
        if function is calls.soak:
            count = min(len(asked[0]), 1 + int(asked[2] / self.single_s))
            self.machine.takes(count * self.single_s)
            return (10**8,) * count
        if function == self.machine.measure_machine:
            return function(*asked)
        return function is calls.has_model or 10**9  # of memory

    def close(self) -> None:
        self.machine.takes(0.3)
        self.machine.are_loaded = False


def test_all_engines_of_a_machine_with_a_card_have_intervals_in_five_minutes(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, workload = Simulated(), bench.measure.workload
    read, describe = workload.read_examples, workload.read_environment
    monkeypatch.setattr(workload, "read_examples", lambda *a: (e := read(*a)).take([i % len(e) for i in range(TEXTS)]))
    monkeypatch.setattr(workload, "read_environment", lambda n: replace(describe(n), gpu="a card", usable_cores=16))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    run = copy_of(exported)
    instruments = replace(
        LOCAL,
        engines=[replace(spec, objection=lambda _: None, imports=()) for spec in ENGINES],
        start=machine.start,
        cold_start=machine.cold_start,
        measure_machine=machine.measure_machine,
        watch=Alone,
        clock=lambda: machine.now,
    )
    summary = run_bench(BenchConfig(run.path, NAMES, budget_minutes=5), instruments)
    assert 200 < machine.now < 300
    assert summary.restarts >= 3
    for row in summary.rows:
        assert row.latency
        assert row.throughput
        assert row.latency.speed.bounds
        assert row.throughput.speed.bounds
        assert row.latency.speed.verdict == "faster" or not row.info.name.endswith(("cuda", "graph"))
    record = read_record(run.bench_record, BenchRecord)
    first = {b.engine: sum(b.texts) for b in record.bulks if b.restart == 0}
    assert first["pytorch-fp16-cuda"] == TEXTS // 6 > 3 * first["adapter-fp32-cpu"]
    assert {s.engine for s in record.singles if len(s.total_s) == 67} >= {n for n in NAMES if n.endswith("cuda")}
    assert len({start.engine for start in record.cold_starts}) >= 6
