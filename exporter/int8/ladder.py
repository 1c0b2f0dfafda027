"""The ladder: every recipe is made, proved, measured beside fp32 and judged by the accuracy budget.

All this by the engine that it is meant for.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from exporter.bundle.artifact import MODEL, Artifact
from exporter.bundle.golden import write_golden
from exporter.convert.merge import copy_around_model
from exporter.engines.engine import ONE_BY_ONE, usual_batching
from exporter.engines.table import OPEN
from exporter.int8.budget import judge, texts_to_decide
from exporter.int8.paired import Paired, pair
from exporter.int8.recipes import Ingredients, Recipe
from exporter.int8.weights import LeftInFloatError, check_quantized, check_ranges, check_weights
from exporter.proof.chain import Chain
from exporter.proof.timing import Spread, speed_ratio, time_interleaved
from exporter.proof.variations import in_batches
from exporter.proof.verify import SAME_ANSWERS, UNTOUCHED, VerificationError, check_labels
from exporter.proof.worker import Worker
from exporter.records import Candidate, FailedRecipe, Variation
from trainer.data import Examples
from trainer.errors import UserError
from trainer.progress import left_text, say
from trainer.tasks import FloatArray, Task

CALLS, WARMUP = 40, 4
TIME_IS_UP = "out of time (`--budget-minutes`)"


@dataclass(frozen=True)
class Baseline:
    """What every recipe is compared with, and on which texts."""

    fp32: Worker
    fp32_logits: FloatArray
    """Its answers to the evaluation texts."""
    evaluation: Examples
    """Texts on which nothing was trained or calibrated."""
    varied: Examples
    """Those on which batching is tried."""
    chain: Chain
    """The proof that a recipe's model has to join."""
    task: Task


@dataclass(frozen=True)
class Measured:
    """What one recipe measured, before it is judged."""

    recipe: Recipe
    size_bytes: int
    paired: Paired
    """Its answers beside those of fp32."""
    mean_divergence: float
    speed: Spread
    batch: Variation


@dataclass(frozen=True)
class Ladder:
    """What the search found, in the order tried."""

    measured: tuple[Measured, ...] = ()
    failed: tuple[FailedRecipe, ...] = ()
    skipped: tuple[str, ...] = ()

    def judged(self, max_drop: float, *, cascades: int = 0) -> list[Candidate]:
        """Judge what was measured by a budget of `max_drop` percentage points.

        Only now is it known how many were tried, and so how wide their intervals have to be. One is chosen for each
        engine, among those for it, and `cascades` will be judged beside those for each.
        """
        tried = Counter(m.recipe.engine for m in self.measured)
        return [_judged(m, max_drop / 100, tried=tried[m.recipe.engine] + cascades) for m in self.measured]


def try_recipes(
    recipes: Sequence[Recipe],
    unfused: Path,
    artifact: Artifact,
    ingredients: Ingredients,
    baseline: Baseline,
    *,
    minutes: float,
    clock: Callable[[], float] = time.monotonic,
) -> Ladder:
    """Try recipes in their order until time is up; the first is tried in any case.

    Each that works leaves a folder of its name beside `unfused`.

    Args:
        recipes: what to try.
        unfused: the folder of the model to quantize, and the name of its step in the proof.
        artifact: what a recipe's folder will be sealed as.
        ingredients: what recipes may use; the time when to give up a search of their own is set here.
        baseline: what to compare with.
        minutes: when to stop.
        clock: tells the time, in seconds.

    Raises:
        VerificationError: a candidate's weights are not those it was made from: the tools are broken, not a recipe.
    """
    ladder, began, done = Ladder(), clock(), 0
    deadline = began + 60 * minutes
    for number, recipe in enumerate(recipes):
        if not recipe.is_usable():
            ladder = _skip(ladder, recipe, f"`pip install {recipe.needs}` to have it")
            continue
        now = clock() if number else began
        if now > deadline:
            ladder = _skip(ladder, recipe, TIME_IS_UP)
        else:
            to_do = sum(other.is_usable() for other in recipes[number:])
            each_s = (now - began) / done if done else 0.0
            left = left_text(min(each_s * to_do, deadline - now + each_s)) if done else ""
            say(f"trying {recipe.name}, {done + 1} of {done + to_do}{left}")
            ladder = _try(recipe, unfused, artifact, replace(ingredients, deadline=deadline), baseline, ladder)
            done += 1
    return ladder


def _skip(ladder: Ladder, recipe: Recipe, reason: str) -> Ladder:
    return replace(ladder, skipped=(*ladder.skipped, f"{recipe.name}: {reason}"))


def _fail(ladder: Ladder, recipe: Recipe, reason: str) -> Ladder:
    return replace(ladder, failed=(*ladder.failed, FailedRecipe(recipe.name, reason)))


def _try(
    recipe: Recipe, unfused: Path, artifact: Artifact, ingredients: Ingredients, baseline: Baseline, ladder: Ladder
) -> Ladder:
    """Make, prove and measure one recipe; one that breaks is a row of its own and does not end the search."""
    folder = unfused.with_name(recipe.name)
    try:
        make(recipe, unfused, folder, ingredients)
        check_labels(folder, artifact.label_names)
    except TimeoutError:
        return _skip(ladder, recipe, TIME_IS_UP)
    except LeftInFloatError as error:
        return _fail(ladder, recipe, str(error))
    except (UserError, OSError):  # a full disk, for one, is no fault of the recipe
        raise
    except Exception as error:  # the quantizers raise whatever they please
        return _fail(ladder, recipe, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}")
    artifact = replace(artifact, precision=recipe.precision, engine=recipe.engine)
    load = partial(OPEN[recipe.engine], folder, artifact, threads=ingredients.threads)
    try:
        with baseline.chain.proved(folder, load, after=unfused.name, tolerance=SAME_ANSWERS) as worker:
            measured = measure(recipe, folder, worker, baseline, ingredients.threads)
            write_golden(folder, worker.logits, recipe.precision, pairs=artifact.pairs, engine=recipe.engine)
    except UserError as error:
        if not baseline.fp32.is_alive():  # without a baseline, every other recipe would seem to fail, too
            raise
        shutil.rmtree(folder)
        return _fail(ladder, recipe, error.message)
    say(
        f"{recipe.name}: {measured.paired.harmful} answers became wrong, {measured.paired.helpful} right; "
        f"{measured.speed.median:.2f}x fp32"
    )
    return replace(ladder, measured=(*ladder.measured, measured))


def make(recipe: Recipe, unfused: Path, folder: Path, ingredients: Ingredients) -> None:
    """Make a recipe's folder, and check that its model is int8, and made of the numbers of the model in fp32.

    Raises:
        LeftInFloatError: the recipe left more in float than it means to.
        VerificationError: its numbers are others.
    """
    copy_around_model(unfused, folder)
    models = (unfused / MODEL, folder / MODEL)
    leave = recipe.make(*models, ingredients)
    check_quantized(folder / MODEL, leave)
    if recipe.keeps_weights:
        check_weights(*models, recipe.name)
        if recipe.family == "static":
            feeds, threads = ingredients.calibration, ingredients.threads
            check_ranges(*models, feeds, recipe.name, clips=recipe.clips, threads=threads)


def measure(recipe: Recipe, folder: Path, worker: Worker, baseline: Baseline, threads: int) -> Measured:
    """Measure a loaded candidate: changed answers, speed beside fp32 in interleaved rounds, what batching does."""
    texts = baseline.evaluation.texts
    logits = worker.logits(texts, usual_batching(threads))
    if not np.isfinite(logits).all():
        raise VerificationError(f"`{recipe.name}` returned NaN or infinity", UNTOUCHED)
    task = baseline.task
    before, after = task.answers(baseline.fp32_logits), task.answers(logits)
    engines = {"fp32": baseline.fp32.time, "candidate": worker.time}
    times = time_interleaved(engines, texts, batch_size=1, calls=CALLS, warmup=WARMUP, seed=0)
    return Measured(
        recipe=recipe,
        size_bytes=(folder / MODEL).stat().st_size,
        paired=pair(task, before, after, task.truth(baseline.evaluation.labels)),
        mean_divergence=task.divergence(baseline.fp32_logits, logits),
        speed=speed_ratio(times["fp32"], times["candidate"]),
        batch=in_batches(worker, baseline.varied, worker.logits(baseline.varied.texts, ONE_BY_ONE), task),
    )


def _judged(measured: Measured, budget: float, *, tried: int) -> Candidate:
    change = measured.paired.change(tried)
    judgement = judge(change, budget)
    return Candidate(
        recipe=measured.recipe.name,
        family=measured.recipe.family,
        size_bytes=measured.size_bytes,
        change=change,
        judgement=judgement,
        texts_to_decide=texts_to_decide(change, budget) if judgement == "undecided" else None,
        mean_divergence=measured.mean_divergence,
        speed=measured.speed,
        batch=measured.batch,
        engine=measured.recipe.engine,
    )
