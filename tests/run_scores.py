"""How right the model of a trained run is on a labelled file, in PyTorch, and beside that of another run.

`PYTHONPATH=. python tests/run_scores.py RUN FILE [OTHER]`: a change is from the other run to this one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from exporter.int8.paired import pair, ratio_of
from exporter.subject import Subject
from trainer.data import Columns
from trainer.data.load import read_labelled
from trainer.progress import show
from trainer.run import RunDir
from trainer.student.teacher import Teacher
from trainer.tasks import Answers
from trainer.training.hardware import Hardware


def main() -> None:
    """Print the score, and where there is another run, its score and the change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    args = parser.parse_args()
    subject = Subject.read(RunDir(args.run), calibration=False)
    train, task = subject.train, subject.task
    names = train.training.config.label_names if train.training else None
    examples = read_labelled(args.file, train.label_names, Columns(texts=train.text_columns or None, names=names))
    truth = task.truth(examples.labels)

    def answers_of(folder: Path) -> Answers:
        teacher = Teacher.open(folder, Path())
        if teacher.record.label_names != train.label_names:
            parser.error(f"{folder} has other labels")
        answers = task.answers(teacher.logits(examples.texts, Hardware("cpu", args.precision)))
        score = ratio_of(task.parts(answers, truth))
        show(f"{task.metric} {score:.2%} of {len(truth):,} in {args.precision}: {folder}")
        return answers

    answers = answers_of(args.run)
    if args.other:
        change = pair(task, answers_of(args.other), answers, truth).change(1)
        bounds = f"[{100 * change.lower:+.2f}, {100 * change.upper:+.2f}]"
        show(f"{100 * change.change:+.2f} points {bounds}, worse/better {change.harmful}/{change.helpful}")


if __name__ == "__main__":
    main()
