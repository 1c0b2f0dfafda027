"""What an artifact would answer if it read other tokens of long texts: the score, and how many tokens that takes.

`PYTHONPATH=. python tests/reading_trials.py ARTIFACT FILE`: an artifact's folder, and a labelled file of single texts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.bundle.artifact import open_artifact
from exporter.engines.engine import load_encoder
from exporter.engines.table import LOAD
from trainer.config import Truncation
from trainer.data import Columns
from trainer.data.load import read_labelled
from trainer.progress import show

RULES: tuple[Truncation, ...] = ("head", "head-tail")
LENGTHS = (96, 128, 192, 256, 384, 512)


def main() -> None:
    """Print a row for each rule and length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    artifact = open_artifact(args.artifact)
    engine, task = LOAD[artifact.engine](args.artifact, threads=1), artifact.meaning()
    columns = Columns(texts=artifact.text_columns or None, names=artifact.label_names)
    examples = read_labelled(args.file, artifact.label_names, columns)
    tokens, truth = engine.model.encoder.tokens(examples.texts), task.truth(examples.labels)
    for rule in RULES:
        for length in LENGTHS:
            encoder = load_encoder(args.artifact, replace(artifact, truncation=rule, max_length=length))
            read = [encoder.fit(parts) for parts in tokens]
            right = task.answers(engine.run_all(read, engine.for_list(len(read)))) == truth
            show(f"{rule:<10}{length:>4}{right.mean():>9.2%} {np.mean([*map(len, read)]):>6.0f} tokens a text")


if __name__ == "__main__":
    main()
