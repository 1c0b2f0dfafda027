"""The gate: a cascade is made as a bundle, judged as a whole by the accuracy budget, and timed beside the model alone.

It is one more candidate of the search for int8, and is judged with the others, by the same interval.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from exporter.bundle.artifact import CARD, open_artifact, seal, with_size
from exporter.card import tell_cascade
from exporter.cascade.bundle import add_cascade
from exporter.cascade.choose import SHARE_OF_BUDGET, Calibrated, choose_cascade
from exporter.cascade.engine import are_whole, ask_both
from exporter.cascade.ready import Ready
from exporter.cascade.speed import TimeBoth, is_cheaper, time_both, time_many
from exporter.cascade.stage import Cascade
from exporter.cascade.suspicion import find_suspicion
from exporter.cascade.trial import CascadeJudged, CascadeSpeed, CascadeTrial
from exporter.checksums import IntegrityError, write_checksums
from exporter.engines.cascade import load_both, load_served
from exporter.engines.engine import usual_batching
from exporter.engines.table import LOAD
from exporter.int8.budget import judge
from exporter.int8.paired import pair
from exporter.int8.select import points
from exporter.proof.timing import Spread
from exporter.proof.verify import VerificationError
from exporter.proof.worker import Worker, Workers
from exporter.subject import Subject
from trainer.errors import UserError
from trainer.lexical.file import to_bytes
from trainer.progress import say
from trainer.records import write_text
from trainer.tasks import FloatArray


@dataclass(frozen=True)
class Gate:
    """What a cascade has to pass."""

    subject: Subject
    fp32_logits: FloatArray
    """Of `onnx-fp32` for the evaluation texts, [texts, classes]."""
    workers: Workers
    max_drop: float
    """The budget, in percentage points."""
    tried: int
    """How many candidates for the same engine are judged on the evaluation texts, the cascade among them."""
    time: TimeBoth = time_both
    stacked: bool = False
    """Whether the logits of both stages are added where the first does not answer alone."""

    def try_cascade(self, ready: Ready, folder: Path, scratch: Path) -> CascadeTrial:
        """Choose, judge and time a cascade before a sealed bundle, which takes it in where it passes.

        Args:
            ready: the first stage.
            folder: the bundle's.
            scratch: where to make the cascade.

        Raises:
            VerificationError, IntegrityError: something is not what it says it is. All else that fails is the reason
                why the cascade is not shipped.
            UserError: the bundle's own process died.
        """
        name, made = folder.name, scratch / folder.name
        say(f"choosing when a first stage answers before {name}, on {len(ready.calibration):,} texts")
        load = partial(LOAD[open_artifact(folder).engine], folder, threads=self.workers.threads)
        with self.workers.opened(name, load) as alone:
            trial = self._choose(ready, name, alone)
            if trial.chosen is None:
                return trial
            try:
                trial = replace(trial, added_bytes=_make(ready, trial.chosen, folder, made))
                judged, speed = self._measure(alone, made)
            except (VerificationError, IntegrityError):
                raise
            except UserError as error:
                if not alone.is_alive():
                    raise
                return replace(trial, reason=f"it failed: {error.message}")
        trial = replace(trial, judged=judged, speed=speed)
        if speed is None:
            return replace(trial, reason=self._describe(judged))
        beside = (
            f"{speed.bulk.median:.2f}x the speed of {name} alone with many texts, {speed.one.median:.2f}x one by one"
        )
        if not is_cheaper(speed):
            return replace(trial, reason=f"it is not cheaper here: {beside}")
        card = (made / CARD).read_text(encoding="utf-8")
        write_text(made / CARD, tell_cascade(card, judged, speed, stacked=self.stacked))
        write_checksums(made)
        shutil.rmtree(folder)
        made.rename(folder)
        return replace(trial, shipped=True, reason=f"{self._describe(judged)}; {beside}")

    def time_beside(self, other: Path, folder: Path) -> Spread | None:
        """Return how many times as fast as another artifact a cascade is with many texts, None where that fails.

        Both are asked as they are served: the other one through its first stage, too, where it has one.
        """
        threads, texts = self.workers.threads, self.subject.evaluation.texts
        try:
            with (
                self.workers.opened(other.name, partial(load_served, other, threads=threads)) as its,
                self.workers.opened("cascade", partial(load_both, folder, threads=threads)) as whole,
            ):
                return time_many(its, whole, texts, usual_batching(threads))
        except UserError as error:  # nothing depends on it but which of two artifacts is recommended
            say(f"{other.name} was not timed beside the cascade: {error.message}")
            return None

    def _choose(self, ready: Ready, name: str, alone: Worker) -> CascadeTrial:
        """Let both stages answer the calibration texts, and choose by that."""
        subject, examples = self.subject, ready.calibration
        task, evaluation = subject.task, subject.evaluation
        truth, truth_there = task.truth(examples.labels), task.truth(evaluation.labels)
        logits = alone.logits(examples.texts, usual_batching(self.workers.threads))
        model = task.answers(logits)
        tokens = subject.encoder.tokens(examples.texts)
        texts = Calibrated.of(ready.lexical, tokens, are_whole(examples.texts), logits, truth)
        trial = CascadeTrial(
            shipped=False,
            reason="",
            artifact=name,
            calibration_texts=len(examples),
            calibration_score=float((model == truth).mean()),
        )
        there = ready.lexical.logits(subject.encoder.tokens(evaluation.texts))
        first = (task.answers(texts.lexical), task.answers(there))
        if reason := find_suspicion(first, (model, task.answers(self.fp32_logits)), (truth, truth_there)):
            return replace(trial, reason=reason)
        found = choose_cascade(texts, self.max_drop / 100, len(evaluation), self.tried, stacked=self.stacked)
        trial = replace(trial, curve=found.curve, stacked_score=found.stacked_score, chosen=found.cascade)
        reason = (
            f"no threshold keeps the loss on {len(examples):,} calibration texts within {SHARE_OF_BUDGET:.0%} of "
            f"the budget of {self.max_drop:g} points, and changes no more answers than {len(evaluation):,} texts "
            "can judge" + "; with `--stack` more answers change, which takes more evaluation texts" * self.stacked
        )
        return replace(trial, reason="" if found.cascade else reason)

    def _measure(self, alone: Worker, made: Path) -> tuple[CascadeJudged, CascadeSpeed | None]:
        """Judge both stages together on the evaluation texts, and time them where they are within the budget."""
        subject, texts = self.subject, self.subject.evaluation.texts
        task, batching = subject.task, usual_batching(self.workers.threads)
        before, truth = task.answers(self.fp32_logits), task.truth(subject.evaluation.labels)
        with self.workers.opened("cascade", partial(load_both, made, threads=self.workers.threads)) as whole:
            logits, answered = whole.call(ask_both, texts, batching)
            change = pair(task, before, task.answers(logits), truth).change(self.tried)
            judged = CascadeJudged(answered, change, judge(change, self.max_drop / 100))
            say(f"the first stage answers {judged.answered:.0%} of the evaluation texts; {self._describe(judged)}")
            if judged.judgement != "within budget":
                return judged, None
            return judged, self.time(alone, whole, texts, batching)

    def _describe(self, judged: CascadeJudged) -> str:
        change = judged.change
        return (
            f"{judged.judgement}: {change.metric} {points(change.change)} points [{points(change.lower)}, "
            f"{points(change.upper)}] against onnx-fp32, and the budget is {self.max_drop:g}"
        )


def _make(ready: Ready, chosen: Cascade, folder: Path, made: Path) -> int:
    """Make the bundle with its first stage elsewhere, sealed, and return how many bytes it is larger."""
    shutil.copytree(folder, made)
    before = open_artifact(made)
    given = with_size(made, add_cascade(made, before, to_bytes(ready.lexical), chosen))
    seal(made, given)
    return given.size_bytes - before.size_bytes
