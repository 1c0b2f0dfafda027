"""Texts of another domain: a first stage can be sure there and wrong. What they show decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exporter.bundle.artifact import open_artifact
from exporter.cascade.engine import ask_both
from exporter.cascade.trial import ShiftScore
from exporter.engines.cascade import load_both
from exporter.engines.engine import usual_batching
from exporter.engines.spec import Device
from exporter.engines.table import LOAD
from exporter.int8.paired import ratio_of
from exporter.proof.worker import Workers
from exporter.subject import Subject
from trainer.data import Columns, Examples
from trainer.data.load import read_labelled
from trainer.data.splitting import draw, strata
from trainer.errors import UserError
from trainer.progress import say
from trainer.tasks import FloatArray

MOST_TEXTS = 2_000
"""Of each file."""


@dataclass(frozen=True)
class Shift:
    """Labelled texts of another domain."""

    name: str
    examples: Examples


def read_shifts(paths: Sequence[Path], subject: Subject) -> tuple[Shift, ...]:
    """Read files of labelled texts, of which a large one is drawn from.

    Raises:
        UserError: one cannot be read, or has other labels than the classifier.
    """
    return tuple(Shift(path.name, _read(path, subject)) for path in paths)


def score_shifts(
    shifts: Sequence[Shift], subject: Subject, folder: Path, workers: Workers, device: Device
) -> tuple[ShiftScore, ...]:
    """Let a sealed bundle answer them, and where it has a cascade, both stages as well.

    Args:
        shifts: the texts.
        subject: what their labels mean.
        folder: the bundle's.
        workers: starts a process for each.
        device: where the model runs.
    """
    if not shifts:
        return ()
    artifact = open_artifact(folder)
    say(f"asking {artifact.name} texts of {', '.join(shift.name for shift in shifts)}")
    threads, batching = workers.threads, usual_batching(workers.threads)

    with workers.opened(artifact.name, partial(LOAD[artifact.engine], folder, device=device, threads=threads)) as alone:
        found = [_score(subject, s.examples, alone.logits(s.examples.texts, batching)) for s in shifts]
    if artifact.cascade is None:
        return tuple(ShiftScore(s.name, len(s.examples), score) for s, score in zip(shifts, found, strict=True))
    with workers.opened("cascade", partial(load_both, folder, threads=threads)) as whole:
        both = [whole.call(ask_both, s.examples.texts, batching) for s in shifts]
    return tuple(
        ShiftScore(s.name, len(s.examples), score, _score(subject, s.examples, logits), share)
        for s, score, (logits, share) in zip(shifts, found, both, strict=True)
    )


def _read(path: Path, subject: Subject) -> Examples:
    train = subject.train
    asked = train.training.config if train.training else train.adopted
    columns = Columns(
        texts=train.text_columns or None,
        labels=asked.label_column if asked else None,
        names=asked.label_names if asked else None,
        separator=asked.label_separator if asked else None,
        task=train.task,
    )
    examples = read_labelled(path, train.label_names, columns)
    if isinstance(examples.texts[0], tuple) != train.pairs:
        what = ("single texts", "pairs of texts")
        raise UserError(
            f"`{path}` has {what[not train.pairs]}, and the classifier reads {what[train.pairs]}", "give another file"
        )
    return examples.take(draw(strata(examples.labels), MOST_TEXTS, 0))


def _score(subject: Subject, examples: Examples, logits: FloatArray) -> float:
    task = subject.task
    return ratio_of(task.parts(task.answers(logits), task.truth(examples.labels)))
