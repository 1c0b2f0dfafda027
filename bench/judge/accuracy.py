"""How right each engine is: scores of its logits on the evaluation texts, alone and against the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.judge.stats import brier_score, expected_calibration_error, mcnemar_exact
from bench.results import Accuracy, ClassScores, LengthScores
from exporter.int8.paired import pair, ratio_of
from trainer.tasks import Answers, FloatArray, Label, Task

BUCKETS = 4
"""Parts of equally many texts into which their lengths are cut."""


def score(
    engine: str,
    logits: FloatArray,
    labels: Sequence[Label],
    label_names: Sequence[str],
    tokens: Sequence[int],
    task: Task,
    *,
    reference: Answers | None,
    tried: int = 1,
) -> Accuracy:
    """Score an engine's answers, alone and against those of the reference, which are None for itself.

    The logits are [texts, classes], and `tokens` the length of each text as the classifier reads it. `tried` engines
    are compared with the reference, and their intervals hold jointly.
    """
    answers, truth = task.answers(logits), task.truth(labels)
    probabilities, chosen = task.choices(logits, truth)
    change = p = None
    if reference is not None:
        paired = pair(task, reference, answers, truth)
        change, p = paired.change(tried), mcnemar_exact(paired.harmful, paired.helpful)
    scores = task.scores(logits, truth)
    return Accuracy(
        engine=engine,
        texts=len(truth),
        accuracy=scores["accuracy"],
        f1_weighted=scores["f1_weighted"],
        loss=task.loss(logits, truth),
        calibration_error=expected_calibration_error(probabilities, chosen.tolist()),
        brier=brier_score(probabilities, chosen.tolist()),
        classes=_by_class(truth, answers, label_names),
        lengths=_by_length(task.parts(answers, truth), tokens),
        change=change,
        mcnemar_p=p,
        predicted=tuple(task.label_sets(answers)),
        **{name: scores.get(name) for name in ("f1_micro", "average_precision")},
        f1_macro=scores["f1_macro"] if "f1_micro" in scores else None,
    )


def _by_class(truth: Answers, answers: Answers, names: Sequence[str]) -> tuple[ClassScores, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(truth, answers, labels=range(len(names)), zero_division=0)
    return tuple(
        ClassScores(name, int(support), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    )


def _by_length(parts: npt.NDArray[np.float64], tokens: Sequence[int]) -> tuple[LengthScores, ...]:
    """Cut the texts into four groups by length; those of one length stay together. `parts` make up the score."""
    lengths = np.asarray(tokens)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BUCKETS + 1)[1:], method="higher"))
    least, groups = int(lengths.min()), []
    for edge in edges:
        inside = (lengths >= least) & (lengths <= edge)
        groups.append(LengthScores(least, int(edge), int(inside.sum()), ratio_of(parts[inside])))
        least = int(edge) + 1
    return tuple(groups)
