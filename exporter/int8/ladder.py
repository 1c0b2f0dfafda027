"""The ladder: every int8 recipe is made, proved, measured beside fp32 and judged by the accuracy budget."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from exporter.bundle.probabilities import FloatArray, divergence, softmax
from exporter.config import Quantize
from exporter.int8.budget import accuracy_change, count_changes, judge, texts_to_decide
from exporter.int8.recipes import RECIPES, Recipe
from exporter.proof.timing import Spread, speed_ratio, time_interleaved
from exporter.proof.verify import UNTOUCHED, VerificationError
from exporter.proof.worker import Worker
from exporter.records import Candidate, FailedRecipe, Variation
from exporter.runtime import BATCH_TOKENS, Classifier
from trainer.data import Examples
from trainer.encoding import Encoder
from trainer.errors import UserError

CALLS, WARMUP = 40, 4
BATCH = 32
"""Texts a batch where it is asked what batching does to answers."""
TIME_IS_UP = "`--budget-minutes` were over"


@dataclass(frozen=True)
class Gate:
    """What every candidate is measured on."""

    fp32: Worker
    """The baseline, loaded."""
    fp32_logits: FloatArray
    """Its answers to the texts."""
    examples: Examples
    """Evaluation texts: nothing was trained or calibrated on them."""
    some: Examples
    """Those on which batching is tried."""
    threads: int


@dataclass(frozen=True)
class Measured:
    """What one recipe measured, before it is judged."""

    recipe: Recipe
    size_bytes: int
    harmful: int
    helpful: int
    mean_divergence: float
    speed: Spread
    batch: Variation


@dataclass
class Ladder:
    """What the search found, in the order tried."""

    measured: list[Measured] = field(default_factory=list)
    failed: list[FailedRecipe] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def judged(self, examples: int, max_drop: float) -> list[Candidate]:
        """Judge what was measured on `texts` by a budget of `max_drop` percentage points.

        Only now is it known how many were tried, and so how wide their intervals have to be.
        """
        return [_judged(m, examples, max_drop / 100, tried=len(self.measured)) for m in self.measured]


def recipes(family: Quantize) -> list[Recipe]:
    """Return the rungs of a family, or all."""
    return [recipe for recipe in RECIPES if family in ("auto", recipe.family)]


def climb(
    rungs: Sequence[Recipe],
    make: Callable[[Recipe, float], Path],
    prove: Callable[[Recipe, Worker], None],
    gate: Gate,
    *,
    minutes: float,
) -> Ladder:
    """Try recipes in their order until time is up; the first is tried in any case.

    Args:
        rungs: what to try.
        make: makes a recipe's artifact and returns its folder; gets the time, by the monotonic clock, when a recipe
            that searches on its own has to give up with a `TimeoutError`.
        prove: compares it with the form that it was made from.
        gate: what to measure on.
        minutes: when to stop.

    Raises:
        VerificationError: a candidate's weights are not those it was made from: the tools are broken, not a recipe.
    """
    found = Ladder()
    deadline = time.monotonic() + 60 * minutes
    for number, recipe in enumerate(rungs):
        if not recipe.is_usable():
            found.skipped.append(f"{recipe.name}: `pip install {recipe.needs}` to have it")
        elif number and time.monotonic() > deadline:
            found.skipped.append(f"{recipe.name}: {TIME_IS_UP}")
        else:
            _try(recipe, partial(make, recipe, deadline), prove, gate, found)
    return found


def _try(
    recipe: Recipe,
    make: Callable[[], Path],
    prove: Callable[[Recipe, Worker], None],
    gate: Gate,
    found: Ladder,
) -> None:
    """Make, prove and measure one recipe; one that breaks is a row of its own and does not end the search."""
    try:
        folder = make()
    except TimeoutError:
        found.skipped.append(f"{recipe.name}: {TIME_IS_UP}")
        return
    except (UserError, OSError):  # a full disk, for one, is no fault of the recipe
        raise
    except Exception as error:  # the quantizers raise whatever they please
        reason = (str(error).splitlines() or [""])[0][:200]
        found.failed.append(FailedRecipe(recipe.name, f"{type(error).__name__}: {reason}"))
        return
    try:
        load = partial(Classifier.load, folder, threads=gate.threads)
        with closing(Worker(recipe.name, load, gate.threads)) as worker:
            prove(recipe, worker)
            measured = measure(recipe, folder, worker, gate)
    except UserError as error:
        if not gate.fp32.is_alive():  # without a baseline, every other recipe would seem to fail, too
            raise
        found.failed.append(FailedRecipe(recipe.name, error.message))
        shutil.rmtree(folder)
        return
    found.measured.append(measured)
    say(
        f"{recipe.name}: {measured.harmful} answers turned wrong, {measured.helpful} right; "
        f"{measured.speed.median:.2f}x fp32"
    )


def measure(recipe: Recipe, folder: Path, worker: Worker, gate: Gate) -> Measured:
    """Measure a loaded candidate: answers on the gate, speed beside fp32 in interleaved rounds, what batching does."""
    logits = worker.logits(gate.examples.texts, BATCH_TOKENS)
    if not np.isfinite(logits).all():
        raise VerificationError(f"`{recipe.name}` answers with something that is no finite number", UNTOUCHED)
    before, after = gate.fp32_logits.argmax(-1).tolist(), logits.argmax(-1).tolist()
    harmful, helpful = count_changes(before, after, gate.examples.labels)
    times = time_interleaved(
        {"fp32": gate.fp32, "candidate": worker}, gate.examples.texts, batch_size=1, calls=CALLS, warmup=WARMUP, seed=0
    )
    return Measured(
        recipe=recipe,
        size_bytes=(folder / "model.onnx").stat().st_size,
        harmful=harmful,
        helpful=helpful,
        mean_divergence=divergence(gate.fp32_logits, logits),
        speed=speed_ratio(times["fp32"], times["candidate"]),
        batch=in_batches(worker, gate.some, alone(worker, gate.some)),
    )


def _judged(measured: Measured, examples: int, budget: float, *, tried: int) -> Candidate:
    change = accuracy_change(measured.harmful, measured.helpful, examples, tried=tried)
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
    )


def in_batches(worker: Worker, examples: Examples, usual: FloatArray) -> Variation:
    """Compare the answers to texts asked one by one, `usual`, with those to the same texts in padded batches."""
    batches = [examples.texts[i : i + BATCH] for i in range(0, len(examples), BATCH)]
    return vary(f"in batches of {BATCH}", usual, np.concatenate([worker.logits(b) for b in batches]))


def alone(worker: Worker, examples: Examples) -> FloatArray:
    """Return the logits of texts asked one by one, [texts, classes]."""
    return np.concatenate([worker.logits([text]) for text in examples.texts])


def vary(name: str, usual: FloatArray, varied: FloatArray) -> Variation:
    """Compare two sets of logits for the same texts from the same classifier."""
    return Variation(
        name=name,
        texts=len(usual),
        flips=int((usual.argmax(-1) != varied.argmax(-1)).sum()),
        max_abs_probability=float(np.abs(softmax(usual) - softmax(varied)).max()),
    )


def variations(folder: Path, encoder: Encoder, examples: Examples, threads: int) -> list[Variation]:
    """Ask an artifact the same texts in other ways than one by one on `threads` threads."""
    load = partial(Classifier.load, folder)
    with closing(Worker(folder.name, partial(load, threads=threads), threads)) as worker:
        usual = alone(worker, examples)
        longest = encoder.max_length
        padded = np.concatenate([worker.run([e], longest) for e in encoder.encode(examples.texts)])
        found = [in_batches(worker, examples, usual), vary(f"padded to {longest} tokens", usual, padded)]
    other = 1 if threads > 1 else 2
    with closing(Worker(folder.name, partial(load, threads=other), other)) as worker:
        name = f"on {other} thread{'s' * (other > 1)} instead of {threads}"
        return [*found, vary(name, usual, alone(worker, examples))]


def say(message: str) -> None:
    """Tell of progress on stderr."""
    sys.stderr.write(message + "\n")
