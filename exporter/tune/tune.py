"""Makes a plan: loads a bundle, tries the ways to score many texts, and writes what was the fastest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exporter.bundle.artifact import Artifact, EngineName, open_artifact
from exporter.bundle.golden import PAIRS, TEXTS, check_golden
from exporter.checksums import IntegrityError, manifest_sha256
from exporter.engines.cores import usable_cores
from exporter.engines.engine import MOST_TEXTS, ONE_BY_ONE, Batching, ModelEngine
from exporter.engines.plan import Plan, Way, engine_versions, machine_kind, plan_path
from exporter.engines.spec import Device, is_installed
from exporter.engines.table import OPEN
from exporter.tune.search import choose, try_ways, usual_way, ways
from trainer.errors import UserError
from trainer.progress import say
from trainer.records import write_record
from trainer.tasks import Task
from trainer.text.texts import Text

MOST_DRAWN = 2000
"""Texts of a file that are looked at."""
MOST_COMPARED = 200
"""Of them, on which the answers of two engines are compared."""
MOST_CHANGED = 0.005
"""The share of the answers that another engine may give otherwise."""


def tune(
    folder: Path,
    texts: Sequence[Text] = (),
    *,
    device: Device = "cpu",
    threads: int | None = None,
    seconds: float,
) -> Plan:
    """Find the fastest way to score many texts with a bundle on this machine, and write it beside the bundle.

    Args:
        folder: the bundle's.
        texts: like those to be scored; some of many lengths where there are none.
        device: where.
        threads: how many CPU threads to use; all usable cores where None.
        seconds: after which nothing else is tried.

    Raises:
        IntegrityError: a file of the bundle was changed.
        UserError: the folder is no ONNX artifact, or nothing can be written beside it.
    """
    artifact, threads = open_artifact(folder), threads or usable_cores()
    if not artifact.model_file.endswith(".onnx"):
        raise UserError(f"`{folder}` is not an ONNX artifact", "name one whose model is `model.onnx`")
    path = plan_path(folder, device)
    check_can_write(path)
    sha256 = manifest_sha256(folder)
    engines = _engines(folder, artifact, threads, sha256, texts[:MOST_COMPARED], device)
    plan = make_plan(engines, sha256, texts or (PAIRS if artifact.pairs else TEXTS), threads, seconds, device)
    write_record(path, plan)
    return plan


def check_can_write(path: Path) -> None:
    """Raise a UserError where no file can be made beside `path`."""
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(
            f"cannot write `{path}`: {error.strerror}", "copy the artifact to a folder where you may write"
        ) from None


def _engines(
    folder: Path, artifact: Artifact, threads: int, sha256: str, texts: Sequence[Text], device: Device
) -> dict[EngineName, ModelEngine[Any]]:
    """Open a bundle with the engine that is taken without a plan, and with others that give the same answers."""
    if device != "cpu":
        return {"onnxruntime": OPEN["onnxruntime"](folder, artifact, device=device, threads=threads, sha256=sha256)}
    usual: EngineName = artifact.engine if is_installed(artifact.engine) else "onnxruntime"
    engines = {usual: OPEN[usual](folder, artifact, threads=threads, sha256=sha256)}
    for name in [name for name in OPEN if name != usual and is_installed(name)]:
        if not texts:
            say(f"{name} is left out: add `--texts`, on which its answers can be compared")
            continue
        try:
            other = OPEN[name](folder, artifact, threads=threads, sha256=sha256)
        except IntegrityError:  # a file was changed meanwhile, which is no fault of the engine
            raise
        except UserError as error:
            say(f"{name} is left out: {error.message}")
            continue
        try:
            check_golden(folder, other.logits, artifact.meaning(), pairs=artifact.pairs)
            _check_answers(other, engines[usual], texts, artifact.meaning(), usual)
        except UserError as error:
            say(f"{name} is left out: {error.message}")
            continue
        engines[name] = other
    return engines


def _check_answers(
    other: ModelEngine[Any], usual: ModelEngine[Any], texts: Sequence[Text], task: Task, name: EngineName
) -> None:
    """Raise a UserError where an engine gives other answers than the one called `name`, which the gate has tried."""
    expected = task.answers(usual.logits(texts, ONE_BY_ONE))
    for batching in (ONE_BY_ONE, Batching(texts=MOST_TEXTS)):
        changed = int(task.differ(task.answers(other.logits(texts, batching)), expected).sum())
        if changed > MOST_CHANGED * len(texts):
            raise UserError(f"{changed} of {len(texts)} answers are others than {name}'s", f"use `{name}`")


def plan_of(
    engine: ModelEngine[Any],
    name: EngineName,
    artifact_sha256: str,
    texts: Sequence[Text],
    threads: int,
    seconds: float,
    device: Device = "cpu",
) -> Plan:
    """Measure a bundle that is loaded by the engine called `name`, and return the plan; runs in its process."""
    return make_plan({name: engine}, artifact_sha256, texts, threads, seconds, device)


def make_plan(
    engines: Mapping[EngineName, ModelEngine[Any]],
    artifact_sha256: str,
    texts: Sequence[Text],
    threads: int,
    seconds: float,
    device: Device = "cpu",
) -> Plan:
    """Measure loaded engines of one bundle, and return the plan; nothing is written.

    The first engine is the one that is taken without a plan.
    """
    usual, *_ = engines

    def score(some: Sequence[Text], way: Way) -> None:
        engines[way.engine].logits(some, way.batching)

    tried = ways(threads, list(engines), device)
    size, trials = try_ways(tried, score, texts[:MOST_DRAWN], seconds=seconds, device=device)
    return Plan(
        artifact_sha256=artifact_sha256,
        cpu=machine_kind(device),
        threads=threads,
        versions=engine_versions(),
        way=choose(trials, usual_way(threads, usual, device)),
        trials=trials,
        texts=size,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
