"""What a stage between would be worth, which reads a part of each text that the first stage leaves.

`PYTHONPATH=. python tests/short_read_trials.py ARTIFACT FILE`: the folder of an artifact with a first stage, and a
labelled file. The work is the tokens that are read, in both, as a share of those that the model reads without it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np

from exporter.bundle.artifact import open_artifact
from exporter.engines.cascade import load_both
from exporter.engines.engine import load_encoder
from trainer.data import Columns
from trainer.data.load import read_labelled
from trainer.progress import show

LENGTHS = (64, 96, 128)
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)
"""Of the texts that a short read cuts, those that it answers: the ones it is surest of."""


def main() -> None:
    """Print the score and the cost for each length and share, beside those of the whole read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    artifact = open_artifact(args.artifact)
    both, task = load_both(args.artifact, threads=1), artifact.meaning()
    columns = Columns(texts=artifact.text_columns or None, names=artifact.label_names)
    examples = read_labelled(args.file, artifact.label_names, columns)
    goes_on = [stage != "lexical" for stage in both.stages(examples.texts)]
    tokens = both.encoder.tokens([*compress(examples.texts, goes_on)])
    truth = task.truth([*compress(examples.labels, goes_on)])
    engine = both.engine
    whole = [both.encoder.fit(parts) for parts in tokens]
    answers, cost = task.answers(engine.run_all(whole, engine.for_list(len(whole)))), np.array([*map(len, whole)])
    right = answers == truth
    show(f"{len(whole):,} of {len(examples):,} texts go on, {cost.mean():.0f} tokens each, right on {right.mean():.2%}")
    for length in LENGTHS:
        encoder = load_encoder(args.artifact, replace(artifact, max_length=length))
        short = [encoder.fit(parts) for parts in tokens]
        logits, own = engine.run_all(short, engine.for_list(len(short))), np.array([*map(len, short)])
        is_cut, sure = own < cost, task.probabilities(logits).max(axis=1)
        for share in SHARES:
            answered = is_cut & (sure >= np.quantile(sure[is_cut], 1 - share))
            after = np.where(answered, task.answers(logits), answers) == truth
            points = 100 * (int(after.sum()) - int(right.sum())) / len(examples)
            spent = (own[is_cut].sum() + cost[~answered].sum()) / cost.sum()
            show(f"{length:>4} tokens answer {answered.mean():.0%}, {points:+.2f} points, {spent:.0%} of the work")


if __name__ == "__main__":
    main()
