"""How right the model of a trained run is on a labelled file, in PyTorch, and beside that of another run.

`PYTHONPATH=. python tests/run_scores.py RUN FILE [OTHER]`: a change is from the other run to this one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from exporter.int8.paired import pair
from exporter.subject import Subject
from trainer.data import Columns
from trainer.data.load import read_labelled
from trainer.progress import show
from trainer.run import RunDir
from trainer.student.teacher import Teacher
from trainer.tasks import Answers
from trainer.training.hardware import choose_hardware


def main() -> None:
    """Print the score, and where there is another run, its score and the change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    args = parser.parse_args()
    subject = Subject.read(RunDir(args.run), calibration=False)
    train, task, hardware = subject.train, subject.task, choose_hardware("auto", "auto")
    names = train.training.config.label_names if train.training else None
    examples = read_labelled(args.file, train.label_names, Columns(texts=train.text_columns or None, names=names))
    truth = task.truth(examples.labels)

    def answers_of(folder: Path) -> Answers:
        answers = task.answers(Teacher.open(folder, Path()).logits(examples.texts, hardware))
        show(f"{(answers == truth).mean():.2%} of {len(truth):,}: {folder}")
        return answers

    answers = answers_of(args.run)
    if args.other:
        change = pair(task, answers_of(args.other), answers, truth).change(1)
        bounds = f"[{100 * change.lower:+.2f}, {100 * change.upper:+.2f}]"
        show(f"{100 * change.change:+.2f} points {bounds}, worse/better {change.harmful}/{change.helpful}")


if __name__ == "__main__":
    main()
