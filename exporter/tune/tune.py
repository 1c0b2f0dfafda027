"""Makes a plan: loads a bundle, tries the ways to score many texts, and writes what was the fastest."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exporter.bundle.artifact import Artifact, open_artifact
from exporter.bundle.golden import PAIRS, TEXTS, check_golden
from exporter.checksums import manifest_sha256
from exporter.engines import onnxruntime, openvino
from exporter.engines.cores import usable_cores
from exporter.engines.engine import MOST_TEXTS, ONE_BY_ONE, Batching, ModelEngine
from exporter.engines.plan import EngineName, Plan, Way, engine_versions, machine_kind, plan_path
from exporter.engines.spec import Device
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
        UserError: the folder is no ONNX artifact.
    """
    artifact, threads = open_artifact(folder), threads or usable_cores()
    if not artifact.model_file.endswith(".onnx"):
        raise UserError(f"`{folder}` is not an ONNX artifact", "name one whose model is `model.onnx`")
    sha256 = manifest_sha256(folder)
    engines: dict[EngineName, ModelEngine[Any]] = {
        "onnxruntime": onnxruntime.open_engine(folder, artifact, device=device, threads=threads, sha256=sha256)
    }
    if device == "cpu":
        _add_openvino(engines, folder, artifact, sha256, texts, threads)
    plan = make_plan(engines, sha256, texts or (PAIRS if artifact.pairs else TEXTS), threads, seconds, device)
    write_record(plan_path(folder, device), plan)
    return plan


def _add_openvino(
    engines: dict[EngineName, ModelEngine[Any]],
    folder: Path,
    artifact: Artifact,
    sha256: str,
    texts: Sequence[Text],
    threads: int,
) -> None:
    """Add OpenVINO to the engines where it is installed and gives the same answers."""
    if texts and importlib.util.find_spec("openvino"):
        try:
            engines["openvino"] = openvino.open_engine(folder, artifact, threads=threads, sha256=sha256)
            check_golden(folder, engines["openvino"].logits, artifact.meaning(), pairs=artifact.pairs)
            _check_answers(engines, texts[:MOST_COMPARED], artifact.meaning())
        except UserError as error:
            engines.pop("openvino", None)
            say(f"openvino is left out: {error.message}")
    elif importlib.util.find_spec("openvino"):
        say("openvino is left out: add `--texts`, on which its answers can be compared")


def _check_answers(engines: Mapping[EngineName, ModelEngine[Any]], texts: Sequence[Text], task: Task) -> None:
    """Raise a UserError where OpenVINO gives other answers than the engine that the exporter's gate has tried."""
    expected = task.answers(engines["onnxruntime"].logits(texts, ONE_BY_ONE))
    for batching in (ONE_BY_ONE, Batching(texts=MOST_TEXTS)):
        changed = int(task.differ(task.answers(engines["openvino"].logits(texts, batching)), expected).sum())
        if changed > MOST_CHANGED * len(texts):
            raise UserError(f"{changed} of {len(texts)} answers are others than onnxruntime's", "use `onnxruntime`")


def plan_of(
    engine: ModelEngine[Any],
    artifact_sha256: str,
    texts: Sequence[Text],
    threads: int,
    seconds: float,
    device: Device = "cpu",
) -> Plan:
    """Measure a bundle that is loaded by onnxruntime, and return the plan; runs in the process of the engine."""
    return make_plan({"onnxruntime": engine}, artifact_sha256, texts, threads, seconds, device)


def make_plan(
    engines: Mapping[EngineName, ModelEngine[Any]],
    artifact_sha256: str,
    texts: Sequence[Text],
    threads: int,
    seconds: float,
    device: Device = "cpu",
) -> Plan:
    """Measure loaded engines of one bundle, and return the plan; nothing is written."""

    def score(some: Sequence[Text], way: Way) -> None:
        engines[way.engine].logits(some, way.batching)

    tried = ways(threads, list(engines), device)
    size, trials = try_ways(tried, score, texts[:MOST_DRAWN], seconds=seconds, device=device)
    return Plan(
        artifact_sha256=artifact_sha256,
        cpu=machine_kind(device),
        threads=threads,
        versions=engine_versions(),
        way=choose(trials, usual_way(threads, device)),
        trials=trials,
        texts=size,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
