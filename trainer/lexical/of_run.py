"""The linear classifier of a run: fitted on whole training texts, so that it can answer before the transformer does."""

from __future__ import annotations

import time

from trainer.data.load import Examples
from trainer.lexical.fit import Fitted, fit, objection, same_texts
from trainer.lexical.sample import sample
from trainer.progress import say
from trainer.tasks import Task
from trainer.text.encoding import Encoder


def fit_lexical(encoder: Encoder, train: Examples, task: Task, seed: int) -> Fitted | str:
    """Fit the linear classifier of a run's training texts, and say how right it is on texts that it has not seen.

    Returns:
        The classifier, or why there is none.
    """
    started = time.monotonic()
    if task.name == "multi-label":
        return _without("it answers with one label a text")
    chosen = sample(encoder, train, len(train), seed)
    truth, tokens = task.truth(chosen.labels), encoder.tokens(chosen.texts)
    if reason := objection(same_texts(tokens), (truth, task.classes)):
        return _without(reason)
    fitted = fit(tokens, truth.tolist(), task.classes, seed)
    seen = f"fitted on {fitted.texts:,} texts in {time.monotonic() - started:.1f} s"
    say(f"linear classifier: {seen}, accuracy {fitted.accuracy:.1%} on texts that it was not fitted on")
    return fitted


def _without(reason: str) -> str:
    say(f"linear classifier: none, because {reason}")
    return reason
