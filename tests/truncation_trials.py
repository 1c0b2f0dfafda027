"""Which tokens of long texts to keep, by the linear classifier: every rule, and `head-tail` with other shares.

`PYTHONPATH=. python tests/truncation_trials.py TOKENIZER TRAIN TEST`: the folder of a tokenizer, and two files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data.load import load_splits
from trainer.lexical.fit import fit
from trainer.progress import show
from trainer.text.encoding import Encoder

SHARES = {"head": 1, "0.75": 0.75, "0.5": 0.5, "head-tail": 0.25, "0.1": 0.1, "tail": 0}
"""Of the tokens that are kept, those from the beginning."""
LENGTHS = (128, 256, 512)
Tokens = list[tuple[list[int], ...]]
Labelled = tuple[Tokens, npt.NDArray[np.int64]]


def cut(tokens: Tokens, room: int, share: float) -> list[list[list[int]]]:
    """Return what is left of single texts."""
    head = round(room * share)
    return [[body if len(body) <= room else body[:head] + body[len(body) - (room - head) :]] for (body,) in tokens]


def trial(train: Labelled, test: Labelled, room: int, share: float) -> str:
    """Return the out-of-fold loss and the accuracy on test texts."""
    fitted = fit(cut(train[0], room, share), train[1].tolist(), int(train[1].max()) + 1, seed=0)
    right = fitted.lexical.logits(cut(test[0], room, share)).argmax(axis=1) == test[1]
    return f"{fitted.loss:.3f}, {100 * right.mean():.1f} %"


def main() -> None:
    """Print a row for each share, with a column for each length."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("tokenizer", "train", "test"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    splits = load_splits(str(asked.train), str(asked.test), max_train_samples=5_000)
    encoder = Encoder.load(asked.tokenizer, max(LENGTHS), "tail", 0)
    parts = (splits.train, splits.evaluation)
    train, test = ((encoder.tokens(part.texts), np.asarray(part.labels)) for part in parts)
    show(f"| first tokens | {' | '.join(map(str, LENGTHS))} |")
    for name, share in SHARES.items():
        show(f"| {name} | {' | '.join(trial(train, test, length - 2, share) for length in LENGTHS)} |")


if __name__ == "__main__":
    main()
