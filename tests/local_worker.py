"""The one stand-in for a worker: the engine is loaded into this process, where torch is imported already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench.measure.company import Watch
from bench.measure.instruments import Instruments
from bench.results import Company
from exporter.engines.engine import Engine
from exporter.proof.worker import Worker, failure
from trainer.errors import UserError

R = TypeVar("R")


class LocalWorker(Worker):
    """Answers as a worker does; `before`, which is for a process of its own, is left out."""

    _error: UserError | None = None

    def __init__(
        self,
        name: str,
        load: Callable[[], Engine | None],
        threads: int,  # noqa: ARG002
        before: Callable[[], None] | None = None,  # noqa: ARG002
        *,
        wait: bool = True,
    ) -> None:
        self._name = name
        try:
            self._engine = self._as_worker(load)
        except UserError as error:
            self._error = error
        if wait:
            self.wait()

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        return self._as_worker(function, self._engine, *arguments)

    def wait(self) -> None:
        if self._error:
            raise self._error

    def is_alive(self) -> bool:
        return True

    def dismiss(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _as_worker(self, function: Callable[..., R], *arguments: Any) -> R:
        try:
            return function(*arguments)
        except UserError:
            raise
        except Exception as error:
            raise failure(self._name, error) from None


class Alone(Watch):
    """Sees nobody else, whatever goes on beside the tests: a verdict is not to depend on it."""

    def company(self, restart: int) -> Company:
        return replace(super().company(restart), wall_s=1.0, own_s=1.0, others_s=0.0, stolen_s=0.0)


LOCAL = Instruments(
    start=LocalWorker,
    cold_start=lambda *_: {"total_s": 1.0, "import_s": 0.5, "load_s": 0.25, "first_s": 0.125},
    measure_machine=lambda *_: None,
    watch=Alone,
)
"""A benchmark without processes: for tests that are about something else."""


class Spoiling:
    """Starts such workers, and spoils what lies in a step's folder just before it is loaded.

    Args:
        step: the folder's name.
        spoil: what is done to it.
    """

    def __init__(self, step: str, spoil: Callable[[Path], None]) -> None:
        self._step, self._spoil = step, spoil

    def __call__(
        self, name: str, load: Any, threads: int, before: Callable[[], None] | None = None, *, wait: bool = True
    ) -> Worker:
        if name == self._step:
            self._spoil(load.args[0])
        return LocalWorker(name, load, threads, before, wait=wait)
