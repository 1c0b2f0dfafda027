"""int8, and what else is tried for CPUs: recipes, and the choice of an artifact for each engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.bundle.artifact import ONNX_BF16_OPENVINO, ONNX_FP32, ONNX_INT8, ONNX_INT8_OPENVINO
from exporter.config import ExportConfig
from exporter.engines.onnxruntime import Feeds
from exporter.int8.ladder import Ladder, try_recipes
from exporter.int8.recipes import Ingredients, Recipe, of_family
from exporter.int8.select import choose, choose_for_openvino
from exporter.int8.target import instruction_sets, sums_bytes_exactly
from exporter.records import Candidate
from exporter.steps.fp32 import Fp32
from exporter.steps.job import Job
from exporter.steps.outcome import Beside, Outcome
from trainer.progress import say
from trainer.run import CALIBRATION_TEXTS


def recipes_to_try(recipes: Sequence[Recipe], config: ExportConfig) -> Sequence[Recipe]:
    """Return those of the recipes that are asked for, and right on the CPUs that they are for."""
    if config.quantize is None:
        return ()
    return of_family(recipes, config.quantize, reduce_range=_reduces_range(config))


def make_int8(job: Job, fp32: Fp32, recipes: Sequence[Recipe], *, cascades: int) -> Outcome:
    """Try recipes where that is asked for, choose, and keep the best artifact for each engine.

    Args:
        job: the export.
        fp32: what to compare with.
        recipes: those of `recipes_to_try`.
        cascades: how many cascades will be judged beside those for each engine.
    """
    if job.config.quantize is None:
        return Outcome(ONNX_FP32, "int8 was not asked for; `--quantize` tries it")
    ladder = _try(job, fp32, recipes)
    return _choose(job, ladder, ladder.judged(job.config.max_drop, cascades=cascades))


def _reduces_range(config: ExportConfig) -> bool:
    """Tell whether recipes have to keep weights to 7 bits."""
    return config.target == "portable" or not sums_bytes_exactly(instruction_sets())


def _try(job: Job, fp32: Fp32, recipes: Sequence[Recipe]) -> Ladder:
    subject, threads, reduce_range = job.subject, job.workers.threads, _reduces_range(job.config)
    if reduce_range:
        say("keeping int8 weights to 7 bits, for CPUs whose sums of 8-bit products can overflow")
    ingredients = Ingredients(_feeds(job), subject.task, threads, reduce_range)
    with job.workers.opened(job.fp32.name, job.opening(job.fp32, "fp32")) as worker:
        baseline, artifact = fp32.baseline(job, worker), subject.artifact(ONNX_INT8, "int8")
        return try_recipes(recipes, job.unfused, artifact, ingredients, baseline, minutes=job.config.budget_minutes)


def _feeds(job: Job) -> list[Feeds]:
    """Return the model's inputs for the calibration texts, one each."""
    model = job.opening(job.unfused, "fp32")().model
    texts = job.subject.calibration.texts[:CALIBRATION_TEXTS]
    return [model.feeds([encoded]) for encoded in model.encoder.encode(texts)]


def _choose(job: Job, ladder: Ladder, candidates: Sequence[Candidate]) -> Outcome:
    limits: dict[str, Any] = {"max_drop": job.config.max_drop, "accept_undecided": job.config.accept_undecided}
    choice = choose([c for c in candidates if c.engine == "onnxruntime"], **limits)
    kept = [rung for rung in (choice.best, choose_for_openvino(candidates, **limits)) if rung]
    for rung in kept:
        (job.scratch / rung.recipe).rename(job.folder / _name(rung))
    return Outcome(
        chosen=ONNX_INT8 if choice.ships else ONNX_FP32,
        reason=choice.reason,
        beside=tuple(
            Beside(_name(rung), "bf16" if rung.family == "bf16" else "int8", rung.recipe, rung) for rung in kept
        ),
        candidates=tuple(candidates),
        failed=ladder.failed,
        skipped=ladder.skipped,
    )


def _name(rung: Candidate) -> str:
    """Return what the artifact of a rung is called."""
    if rung.engine == "onnxruntime":
        return ONNX_INT8
    return ONNX_BF16_OPENVINO if rung.family == "bf16" else ONNX_INT8_OPENVINO
