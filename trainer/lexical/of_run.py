"""The linear classifier of a run: fitted on whole training texts, so that it can answer before the transformer does."""

from __future__ import annotations

import time

from trainer.data.load import Examples
from trainer.lexical.fit import fit, objection
from trainer.lexical.model import Lexical
from trainer.lexical.sample import sample
from trainer.progress import say
from trainer.tasks import Task
from trainer.text.encoding import Encoder


def fit_lexical(encoder: Encoder, train: Examples, task: Task, seed: int) -> Lexical | str:
    """Fit the linear classifier of a run's training texts, and say how right it is on texts that it has not seen.

    Returns:
        The classifier, or why there is none.
    """
    started = time.monotonic()
    if task.name == "multi-label":
        return _without("it answers with one label a text")
    chosen = sample(train, len(train), seed)
    truth = task.truth(chosen.labels)
    if reason := objection((truth, task.classes)):
        return _without(reason)
    fitted = fit(encoder.tokens(chosen.texts), truth.tolist(), task.classes, seed)
    accuracy = (fitted.out_of_fold.argmax(axis=1) == truth).mean()
    seen = f"fitted on {len(chosen):,} texts in {time.monotonic() - started:.1f} s"
    say(f"linear classifier: {seen}, accuracy {accuracy:.1%} on texts that it was not fitted on")
    return fitted.lexical


def _without(reason: str) -> str:
    say(f"linear classifier: none, because {reason}")
    return reason
