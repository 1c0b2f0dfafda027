"""Half precision on the GPU that is here: every recipe is made, proved, judged by the accuracy budget, and timed.

All are timed in turns beside `onnx-fp32` and the merged checkpoint in PyTorch's half precisions, one text a call and
many texts at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from exporter.bundle.artifact import MODEL, ONNX_FP32
from exporter.bundle.golden import write_golden
from exporter.engines.engine import ONE_BY_ONE, Engine
from exporter.engines.onnxruntime import GPU_BATCHING
from exporter.half.recipes import HalfRecipe, Source
from exporter.int8.budget import judge, texts_to_decide
from exporter.int8.ladder import Baseline
from exporter.int8.paired import Paired, pair
from exporter.proof.timing import speed_ratio, spread, time_interleaved
from exporter.proof.variations import in_batches
from exporter.proof.verify import SAME_HALVES, UNTOUCHED, VerificationError
from exporter.proof.worker import MANY_CORES, Worker, Workers
from exporter.records import Candidate, FailedRecipe, GpuSpeed, Variation
from trainer.errors import UserError
from trainer.progress import say
from trainer.text.texts import Text

ALONE_CALLS, ALONE_WARMUP = 100, 30
"""One text a call. The first call of each width is slow."""
BULK_CALLS, BULK_WARMUP, BULK_TEXTS = 7, 2, 1024
Load = Callable[[], Engine]
Times = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Made:
    """One recipe that passed the proof, before it is judged."""

    recipe: str
    size_bytes: int
    fused: dict[str, int]
    paired: Paired
    mean_divergence: float
    batch: Variation


@dataclass(frozen=True)
class Halves:
    """What was tried on the GPU, in the order tried."""

    made: tuple[Made, ...]
    failed: tuple[FailedRecipe, ...]
    alone: Times
    """Seconds of each call of one text, by what was called."""
    bulk: Times
    """Seconds of each call of many texts."""
    bulk_texts: int

    def candidates(self, max_drop: float) -> list[Candidate]:
        """Judge what was made by a budget of `max_drop` percentage points."""
        return [self._judged(made, max_drop / 100) for made in self.made]

    def speeds(self) -> tuple[GpuSpeed, ...]:
        """Return how fast everything was, PyTorch too."""
        return tuple(
            GpuSpeed(
                name,
                alone_ms=spread([1000 * s for s in self.alone[name]]),
                texts_per_s=spread([self.bulk_texts / s for s in self.bulk[name]]),
            )
            for name in self.alone
        )

    def fused_of(self, candidate: Candidate | None) -> dict[str, int]:
        """Return what was fused for a candidate."""
        return next((made.fused for made in self.made if candidate and made.recipe == candidate.recipe), {})

    def _judged(self, made: Made, budget: float) -> Candidate:
        change = made.paired.change(len(self.made))
        judgement = judge(change, budget)
        return Candidate(
            recipe=made.recipe,
            family="half",
            size_bytes=made.size_bytes,
            change=change,
            judgement=judgement,
            texts_to_decide=texts_to_decide(change, budget) if judgement == "undecided" else None,
            mean_divergence=made.mean_divergence,
            speed=speed_ratio(self.alone[ONNX_FP32], self.alone[made.recipe]),
            batch=made.batch,
            bulk=speed_ratio(self.bulk[ONNX_FP32], self.bulk[made.recipe]),
        )


def try_halves(
    recipes: Sequence[HalfRecipe],
    source: Source,
    opening: Callable[[Path], Load],
    baseline: Baseline,
    peers: Mapping[str, Load],
    workers: Workers,
) -> Halves:
    """Try recipes in their order; each that works leaves its folder beside the source.

    Args:
        recipes: what to try.
        source: what they convert.
        opening: returns what loads a recipe's folder on the GPU.
        baseline: what to compare with, on the GPU.
        peers: what else is timed, by name.
        workers: starts a process for each.
    """
    made, failed, timed = [], [], {ONNX_FP32: baseline.fp32}
    with ExitStack() as stack:
        say(f"converting to half precision: {', '.join(recipe.name for recipe in recipes)}")

        def start(recipe: HalfRecipe) -> Worker:
            return stack.enter_context(workers.opening(recipe.name, partial(_make, source.prepare(recipe))))

        has_cores = workers.threads >= MANY_CORES
        makers = {recipe.name: start(recipe) for recipe in recipes if has_cores}
        comparing = {n: stack.enter_context(workers.opening(n, load)) for n, load in peers.items() if has_cores}
        for recipe in recipes:
            found = _try(recipe, lambda r: makers.get(r.name) or start(r), source, opening, baseline, stack)
            if isinstance(found, FailedRecipe):
                failed.append(found)
            else:
                timed[recipe.name], measured = found
                made.append(measured)
        for name, load in peers.items():
            try:
                worker = comparing.get(name) or stack.enter_context(workers.opening(name, load))
                worker.wait()
                timed[name] = worker
            except UserError as error:  # it is there for comparison alone
                say(f"{name} is not timed: {error.message}")
        return Halves(tuple(made), tuple(failed), *_time(timed, baseline.evaluation.texts))


def _try(
    recipe: HalfRecipe,
    maker_of: Callable[[HalfRecipe], Worker],
    source: Source,
    opening: Callable[[Path], Load],
    baseline: Baseline,
    stack: ExitStack,
) -> tuple[Worker, Made] | FailedRecipe:
    """Prove and measure one recipe, whose process `stack` will end; one that breaks does not end the search."""
    folder = source.folder_of(recipe)
    try:
        fused = _made(maker_of(recipe))
        say(f"proving {recipe.name}")
        proved = baseline.chain.proved(folder, opening(folder), after=source.unfused.name, tolerance=SAME_HALVES)
        worker = stack.enter_context(proved)
        measured = _measure(recipe, folder, worker, baseline, fused)
        write_golden(folder, worker.logits, "fp16", pairs=source.pairs)
    except OSError:  # a full disk, for one, is no fault of the recipe
        raise
    except Exception as error:  # the converter raises whatever it pleases
        if not baseline.fp32.is_alive():  # without a baseline, every other recipe would seem to fail, too
            raise
        reason = error.message if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        say(f"{recipe.name} failed: {reason}")
        return FailedRecipe(recipe.name, reason)
    return worker, measured


def _make(write: Callable[[], dict[str, int]]) -> dict[str, int] | OSError:
    """Make a recipe in a process of its own, and return what was fused, or an error that is no fault of the recipe."""
    try:
        return write()
    except OSError as error:
        return error


def _made(maker: Worker) -> dict[str, int]:
    maker.wait()
    found: dict[str, int] | OSError = maker.call(_itself)
    maker.close()
    if isinstance(found, OSError):
        raise found
    return found


def _itself(made: dict[str, int] | OSError) -> dict[str, int] | OSError:
    return made


def _measure(recipe: HalfRecipe, folder: Path, worker: Worker, baseline: Baseline, fused: dict[str, int]) -> Made:
    """Compare a loaded model's answers, as bulk scoring gives them, with those of fp32."""
    texts, task = baseline.evaluation.texts, baseline.task
    logits = worker.logits(texts, GPU_BATCHING)
    if not np.isfinite(logits).all():
        raise VerificationError(f"`{recipe.name}` returned NaN or infinity", UNTOUCHED)
    before, after = task.answers(baseline.fp32_logits), task.answers(logits)
    return Made(
        recipe=recipe.name,
        size_bytes=(folder / MODEL).stat().st_size,
        fused=fused,
        paired=pair(task, before, after, task.truth(baseline.evaluation.labels)),
        mean_divergence=task.divergence(baseline.fp32_logits, logits),
        batch=in_batches(worker, baseline.varied, worker.logits(baseline.varied.texts, ONE_BY_ONE), task),
    )


def _time(workers: Mapping[str, Worker], texts: Sequence[Text]) -> tuple[Times, Times, int]:
    """Return the times of one text a call and of many, and how many those are."""
    say(f"timing {len(workers)} ways to answer on the GPU")
    bulk_texts = min(len(texts), BULK_TEXTS)
    alone = time_interleaved(
        {name: worker.time for name, worker in workers.items()},
        texts,
        batch_size=1,
        calls=ALONE_CALLS,
        warmup=ALONE_WARMUP,
        seed=0,
    )
    bulk = time_interleaved(
        {name: partial(worker.time, batching=GPU_BATCHING) for name, worker in workers.items()},
        texts,
        batch_size=bulk_texts,
        calls=BULK_CALLS,
        warmup=BULK_WARMUP,
        seed=0,
    )
    return alone, bulk, bulk_texts
