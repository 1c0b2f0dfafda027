"""An engine as a newcomer would add it: one file, whose `ENGINES` a table has to name; and engines that fail."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching, Engine, ModelEngine
from exporter.engines.spec import EngineSpec
from trainer.data import read_examples
from trainer.errors import UserError
from trainer.run import RunDir
from trainer.tasks import FloatArray


class Majority:
    """Answers the most frequent label."""

    model = None
    batchings = (ONE_BY_ONE, ALL_AT_ONCE)

    def __init__(self, logits: FloatArray) -> None:
        self._logits = logits

    def logits(self, texts: Sequence[str], batching: Batching = ALL_AT_ONCE) -> FloatArray:  # noqa: ARG002
        return np.tile(self._logits, (len(texts), 1))


def load(run: RunDir, threads: int, _: Path) -> Engine:  # noqa: ARG001
    names = run.load().label_names
    counts = np.bincount(read_examples(run.calibration, names).labels, minlength=len(names))
    return Majority(np.log(np.maximum(counts, 0.5)).astype(np.float32))


ENGINES = (EngineSpec(name="majority", load=load, precision="none", is_peer=True),)


class Failing:
    """A model that fails in some calls."""

    def __init__(self, model: Any, fails: Callable[[int, int | None], bool]) -> None:
        self._model, self._fails, self.encoder = model, fails, model.encoder

    def run(self, batch: Sequence[Any], length: int | None = None) -> FloatArray:
        if self._fails(len(batch), length):
            raise UserError("out of memory", "")
        logits: FloatArray = self._model.run(batch, length)
        return logits


def alone(size: int, _: int | None) -> bool:
    return size == 1


def in_the_grid(_: int, length: int | None) -> bool:
    return length is not None


def failing(spec: EngineSpec, loads: Container[int], fails: Callable[[int, int | None], bool] = alone) -> EngineSpec:
    """Return the engine, which fails in the processes of these numbers."""
    number = iter(range(1000))

    def load(*arguments: Any) -> Engine:
        engine = spec.load(*arguments)
        if next(number) not in loads:
            return engine
        assert isinstance(engine, ModelEngine)
        return ModelEngine(Failing(engine.model, fails), engine.bulk)

    return replace(spec, load=load)
