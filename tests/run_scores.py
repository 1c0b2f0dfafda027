"""How right a trained run is on a labelled file, its linear classifier, and both with their logits added.

PYTHONPATH=. python tests/run_scores.py runs/default test.parquet [other-run]

The weights of the sum come from the run's calibration texts. With another run, it shows how the model differs from that
one's, with the interval.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from exporter.cascade.choose import fit_stack, fit_temperature
from exporter.int8.paired import pair
from exporter.subject import Subject
from trainer.data import Columns, Examples
from trainer.data.load import read_labelled
from trainer.lexical.file import read_lexical
from trainer.progress import show
from trainer.run import RunDir
from trainer.student.teacher import Teacher
from trainer.tasks import Answers, FloatArray, SingleLabel
from trainer.training.hardware import choose_hardware


def ask(folder: Path, texts: Examples) -> FloatArray:
    return Teacher.open(folder, Path()).logits(texts.texts, choose_hardware("auto", "auto"))


def main(folder: Path, file: Path, other: Path | None = None) -> None:
    subject = Subject.read(RunDir(folder), calibration=True)
    train, task, calibration = subject.train, subject.task, subject.calibration
    names = train.training.config.label_names if train.training else None
    examples = read_labelled(file, train.label_names, Columns(texts=train.text_columns or None, names=names))
    truth = task.truth(examples.labels)

    def score(name: str, answers: Answers) -> None:
        show(f"{name:<24}{np.mean(answers == truth):8.2%} of {len(truth):,}")

    model = ask(folder, examples)
    score("the model", task.answers(model))
    lexical = read_lexical(subject.run.lexical, len(train.label_names))
    first, there = (lexical.logits(subject.encoder.tokens(texts.texts)) for texts in (examples, calibration))
    score("the first stage", task.answers(first))
    right = task.truth(calibration.labels)
    temperature = fit_temperature(there, right)
    stack = fit_stack(there / np.float32(temperature), ask(folder, calibration), right)
    score("both, added", task.answers(stack.first / temperature * first + stack.model * model))
    if other:
        found = ask(other, examples)
        score("the other run's model", task.answers(found))
        kind = SingleLabel(len(train.label_names))
        show(str(pair(kind, task.answers(found), task.answers(model), truth).change(1)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
