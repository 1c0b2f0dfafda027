"""How an engine is loaded, what that takes, and whether it can be shipped: all that the rest has to know of one."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from exporter.engines.engine import Engine
    from trainer.run import RunDir

Device = Literal["cpu", "cuda"]
Load = Callable[["RunDir", int, Path], "Engine"]


def is_installed(module: str) -> bool:
    """Tell whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def _no_files(_: RunDir) -> Iterable[Path]:
    return ()


def _no_objection(_: RunDir) -> str | None:
    return None


@dataclass(frozen=True)
class EngineSpec:
    """One way to answer with a run's classifier. Its name is the flag value, the JSON value and the row in the table.

    Its functions are functions of a module, or `partial`s of one: other processes call them.
    """

    name: str
    load: Load
    """Loads it from a run, with so many CPU threads, and from what `prepare` wrote to the folder."""
    precision: str
    device: Device = "cpu"
    artifact: str | None = None
    """The folder of the export that it answers from; None where it needs none."""
    made_with: str = ""
    """The flag of the exporter that makes this artifact."""
    imports: tuple[str, ...] = ()
    """Modules that it cannot do without, in the order of their loading."""
    packages: tuple[str, ...] = ()
    """What has to be installed where it is deployed."""
    can_ship: bool = False
    """Whether it is one of the ways to deploy what the exporter made."""
    is_peer: bool = False
    """Whether it is another tool's, measured on request for comparison."""
    is_extra: bool = False
    """Whether it is left out without a word where what it imports is not installed."""
    has_first_stage: bool = False
    """Whether it is a `CascadeEngine`: something smaller than its model answers what it is sure of."""
    prepare: Callable[[RunDir, Path], None] | None = None
    """Makes what it loads, once for a whole benchmark, in an empty folder."""
    files: Callable[[RunDir], Iterable[Path]] = _no_files
    """What it reads of a run beside its artifact."""
    objection: Callable[[RunDir], str | None] = _no_objection
    """Says why it cannot be used for a run, if there is a reason of its own."""

    def why_unusable(self, run: RunDir, artifacts: Collection[str], gpu: str | None) -> str | None:
        """Return the reason why this engine cannot be used here, None where it can be tried.

        Args:
            run: the run.
            artifacts: the names of the artifacts that its export holds.
            gpu: the name of the CUDA device, None where there is none.
        """
        if self.artifact and self.artifact not in artifacts:
            command = " ".join(("python -m exporter", self.made_with)).strip()
            return f"the export has no `{self.artifact}`; `{command}` makes it"
        if self.device == "cuda" and gpu is None:
            return "no CUDA device"
        if absent := self.absent():
            return f"`{absent[0]}` is not installed; `pip install {' '.join(self.packages)}` to have it"
        return self.objection(run)

    def absent(self) -> list[str]:
        """Return those modules that it cannot do without and that are not installed."""
        return [name for name in self.imports if not is_installed(name)]

    def import_packages(self) -> None:
        """Import what it needs, without loading any model."""
        for name in self.imports:
            importlib.import_module(name)
