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

from exporter.artifacts import Candidate, FailedRecipe, Variation
from exporter.budget import accuracy_change, judge, reviews_to_decide
from exporter.config import Quantize
from exporter.probabilities import FloatArray, divergence, softmax
from exporter.quantize import RECIPES, Recipe
from exporter.runtime import BATCH_TOKENS, Classifier
from exporter.select import points
from exporter.timing import speed_ratio, time_interleaved
from exporter.verify import UNTOUCHED, VerificationError
from exporter.worker import Worker
from trainer.data import Examples
from trainer.encoding import Encoder
from trainer.errors import UserError

CALLS, WARMUP = 40, 4
BATCH = 32
"""Reviews a batch where it is asked what batching does to answers."""


@dataclass
class Ladder:
    """What the search found, in the order tried."""

    candidates: list[Candidate] = field(default_factory=list)
    failed: list[FailedRecipe] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """What every candidate is measured on."""

    fp32: Worker
    """The baseline, loaded."""
    fp32_logits: FloatArray
    """Its answers to the gate."""
    gate: Examples
    """Evaluation reviews: nothing was trained or calibrated on them."""
    some: Examples
    """Those on which batching is tried."""
    max_drop: float
    """The accuracy budget, in percentage points."""
    tried: int
    """How many candidates are judged on the gate."""
    threads: int


def recipes(family: Quantize) -> list[Recipe]:
    """Return the rungs of a family, or all."""
    return [recipe for recipe in RECIPES if family in ("auto", recipe.family)]


def climb(
    rungs: Sequence[Recipe],
    make: Callable[[Recipe], Path],
    prove: Callable[[Recipe, Worker], None],
    bench: Bench,
    *,
    minutes: float,
) -> Ladder:
    """Try recipes in their order until time is up; the first is tried in any case.

    Args:
        rungs: what to try.
        make: makes a recipe's artifact and returns its folder.
        prove: compares it with the form that it was made from.
        bench: what to measure on.
        minutes: when to stop.

    Raises:
        VerificationError: a candidate's weights are not those it was made from: the tools are broken, not a recipe.
    """
    found, started = Ladder(), time.monotonic()
    for number, recipe in enumerate(rungs):
        if not recipe.is_usable():
            found.skipped.append(f"{recipe.name}: `pip install {recipe.needs}` to have it")
        elif number and time.monotonic() - started > 60 * minutes:
            found.skipped.append(f"{recipe.name}: `--budget-minutes` were over")
        else:
            _try(recipe, make, prove, bench, found)
    return found


def _try(
    recipe: Recipe,
    make: Callable[[Recipe], Path],
    prove: Callable[[Recipe, Worker], None],
    bench: Bench,
    found: Ladder,
) -> None:
    """Make, prove and measure one recipe; one that breaks is a row of its own and does not end the search."""
    try:
        folder = make(recipe)
    except (UserError, OSError):  # a full disk, for one, is no fault of the recipe
        raise
    except Exception as error:  # the quantizers raise whatever they please
        reason = (str(error).splitlines() or [""])[0][:200]
        found.failed.append(FailedRecipe(recipe.name, f"{type(error).__name__}: {reason}"))
        return
    try:
        load = partial(Classifier.load, folder, threads=bench.threads)
        with closing(Worker(recipe.name, load, bench.threads)) as worker:
            prove(recipe, worker)
            candidate = measure(recipe, folder, worker, bench)
    except UserError as error:
        found.failed.append(FailedRecipe(recipe.name, error.message))
        shutil.rmtree(folder)
        return
    found.candidates.append(candidate)
    _tell(candidate)


def _tell(candidate: Candidate) -> None:
    change = candidate.change
    say(
        f"{candidate.recipe}: accuracy {points(change.change)} points "
        f"[{points(change.lower)}, {points(change.upper)}], {candidate.judgement}; {candidate.speed.median:.2f}x fp32"
    )


def measure(recipe: Recipe, folder: Path, worker: Worker, bench: Bench) -> Candidate:
    """Measure a loaded candidate: answers on the gate, speed beside fp32 in interleaved rounds, what batching does."""
    logits = worker.logits(bench.gate.texts, BATCH_TOKENS)
    if not np.isfinite(logits).all():
        raise VerificationError(f"`{recipe.name}` answers with something that is no finite number", UNTOUCHED)
    before, after = (list(map(int, rows.argmax(-1))) for rows in (bench.fp32_logits, logits))
    change = accuracy_change(before, after, bench.gate.labels, tried=bench.tried)
    budget = bench.max_drop / 100
    judgement = judge(change, budget)
    times = time_interleaved(
        {"fp32": bench.fp32, "candidate": worker}, bench.gate.texts, batch_size=1, calls=CALLS, warmup=WARMUP, seed=0
    )
    return Candidate(
        recipe=recipe.name,
        family=recipe.family,
        size_bytes=(folder / "model.onnx").stat().st_size,
        change=change,
        judgement=judgement,
        reviews_to_decide=reviews_to_decide(change, budget) if judgement == "undecided" else None,
        mean_divergence=divergence(bench.fp32_logits, logits),
        speed=speed_ratio(times["fp32"], times["candidate"]),
        batch=in_batches(worker, bench.some, alone(worker, bench.some)),
    )


def in_batches(worker: Worker, reviews: Examples, usual: FloatArray) -> Variation:
    """Compare the answers to reviews asked one by one, `usual`, with those to the same reviews in padded batches."""
    batches = [reviews.texts[i : i + BATCH] for i in range(0, len(reviews), BATCH)]
    return vary(f"in batches of {BATCH}", usual, np.concatenate([worker.logits(b) for b in batches]))


def alone(worker: Worker, reviews: Examples) -> FloatArray:
    """Return the logits of reviews asked one by one, [reviews, classes]."""
    return np.concatenate([worker.logits([text]) for text in reviews.texts])


def vary(name: str, usual: FloatArray, varied: FloatArray) -> Variation:
    """Compare two sets of logits for the same reviews from the same classifier."""
    return Variation(
        name=name,
        reviews=len(usual),
        flips=int((usual.argmax(-1) != varied.argmax(-1)).sum()),
        max_abs_probability=float(np.abs(softmax(usual) - softmax(varied)).max()),
    )


def variations(folder: Path, encoder: Encoder, reviews: Examples, threads: int) -> list[Variation]:
    """Ask an artifact the same reviews in other ways than one by one on `threads` threads."""
    load = partial(Classifier.load, folder)
    with closing(Worker(folder.name, partial(load, threads=threads), threads)) as worker:
        usual = alone(worker, reviews)
        longest = encoder.max_length
        padded = np.concatenate([worker.run([e], longest) for e in encoder.encode(reviews.texts)])
        found = [in_batches(worker, reviews, usual), vary(f"padded to {longest} tokens", usual, padded)]
    other = 1 if threads > 1 else 2
    with closing(Worker(folder.name, partial(load, threads=other), other)) as worker:
        name = f"on {other} thread{'s' * (other > 1)} instead of {threads}"
        return [*found, vary(name, usual, alone(worker, reviews))]


def say(message: str) -> None:
    """Tell of progress on stderr."""
    sys.stderr.write(message + "\n")
