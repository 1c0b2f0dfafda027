"""What cascades chosen on a run's calibration texts would answer on a labelled file that took no part in anything.

`PYTHONPATH=. python tests/cascade_scores.py RUN ARTIFACT FILE`: a run with a first stage, the folder of the artifact
that would be its second stage, and single texts. No gate judges: evaluation texts may be too few for that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from exporter.bundle.artifact import open_artifact
from exporter.cascade.choose import Calibrated, choose_cascade
from exporter.cascade.engine import are_whole
from exporter.cascade.stage import FirstStage
from exporter.engines.cores import usable_cores
from exporter.engines.engine import usual_batching
from exporter.engines.table import LOAD
from exporter.int8.paired import pair
from exporter.subject import Subject
from trainer.data import Columns
from trainer.data.load import read_labelled
from trainer.lexical.file import read_lexical
from trainer.progress import show
from trainer.run import RunDir
from trainer.tasks import Answers

MAX_DROP = 0.005
MANY = 10**9
"""Evaluation texts, so that a gate could judge whatever changes."""


def main() -> None:
    """Print the score of the model, of the first stage, of both added, and of cascades without and with adding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    subject, artifact = Subject.read(RunDir(args.run), calibration=True), open_artifact(args.artifact)
    engine, task, names = (
        LOAD[artifact.engine](args.artifact, threads=usable_cores()),
        subject.task,
        artifact.label_names,
    )
    lexical, batching = read_lexical(subject.run.lexical, len(names)), usual_batching(usable_cores())
    examples = read_labelled(args.file, names, Columns(texts=artifact.text_columns or None, names=names))
    parts = (subject.calibration, examples)
    known, new = (
        Calibrated.of(
            lexical,
            engine.model.encoder.tokens(part.texts),
            are_whole(part.texts),
            engine.logits(part.texts, batching),
            task.truth(part.labels),
        )
        for part in parts
    )
    alone = task.answers(new.model)

    def score(name: str, answers: Answers, share: float) -> None:
        change = pair(task, alone, answers, new.truth).change(1)
        bounds = f"{100 * change.change:+.2f} points [{100 * change.lower:+.2f}, {100 * change.upper:+.2f}]"
        show(f"{name:<24}{(answers == new.truth).mean():.2%}, {share:4.0%} answered first, {bounds}")

    score("the model", alone, 0)
    score("the first stage", task.answers(new.lexical), 1)
    for stacked in (False, True):
        chosen = choose_cascade(known, MAX_DROP, MANY, 1, stacked=stacked).cascade
        if chosen is None:
            show("no threshold will do" + " with --stack" * stacked)
            continue
        first = new.lexical / np.float32(chosen.temperature)
        usual = chosen.is_usual(new.known, new.tokens) & new.whole
        second = chosen.combine(first, usual, new.model)
        if stacked:
            score("both, added", task.answers(second), 0)
        sure = usual & FirstStage(lexical, chosen).is_sure(first)
        score("cascade" + ", --stack" * stacked, task.answers(np.where(sure[:, None], first, second)), sure.mean())


if __name__ == "__main__":
    main()
