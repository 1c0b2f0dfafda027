"""What changed between two files of answers to the same labelled texts, with the interval by which exports are judged.

`PYTHONPATH=. python tests/paired_answers.py BEFORE.csv AFTER.csv FILE`: what `exporter.predict --output` wrote, and the
texts with their labels. Labels that are numbers are in the order of the answers' columns.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from exporter.int8.paired import pair
from trainer.data import Columns
from trainer.data.load import read_labelled
from trainer.progress import show
from trainer.tasks import Answers, SingleLabel

COLUMN = "probability_"


def read(path: Path) -> tuple[tuple[str, ...], Answers]:
    """Return the label names, and the index of each answer."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        names = tuple(name[len(COLUMN) :] for name in rows.fieldnames or () if name.startswith(COLUMN))
        return names, np.array([names.index(row["label"]) for row in rows])


def main() -> None:
    """Print both scores, and the change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    (names, before), (others, after) = read(args.before), read(args.after)
    if names != others:
        parser.error("the two files have other labels")
    task = SingleLabel(len(names))
    truth = task.truth(read_labelled(args.file, names, Columns(names=names)).labels)
    change = pair(task, before, after, truth).change(1)
    show(
        f"{(before == truth).mean():.2%}, {(after == truth).mean():.2%}: {100 * change.change:+.2f} points "
        f"[{100 * change.lower:+.2f}, {100 * change.upper:+.2f}], worse/better {change.harmful}/{change.helpful}"
    )


if __name__ == "__main__":
    main()
