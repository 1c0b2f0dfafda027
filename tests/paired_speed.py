"""How many times as fast one artifact scores many texts as another, asked in turns in processes of their own.

`PYTHONPATH=. python tests/paired_speed.py SLOW FAST FILE`: two artifacts' folders, each with its first stage where it
has one and `--alone` does not name it, and a file with single texts.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from exporter.bundle.artifact import open_artifact
from exporter.cascade.speed import time_many
from exporter.engines.cascade import load_served
from exporter.engines.cores import usable_cores
from exporter.engines.engine import Engine, usual_batching
from exporter.engines.table import LOAD
from exporter.proof.worker import Workers
from trainer.data import read_texts
from trainer.progress import show

ROUNDS = 3


def main() -> None:
    """Print the median and the quartiles of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slow", type=Path)
    parser.add_argument("fast", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--alone", nargs="*", choices=("slow", "fast"), default=(), help="without its first stage")
    args = parser.parse_args()
    workers, texts = Workers(usable_cores()), read_texts(args.file, None)

    def opening(name: str, folder: Path) -> partial[Engine]:
        load = LOAD[open_artifact(folder).engine] if name in args.alone else load_served
        return partial(load, folder, threads=workers.threads)

    with (
        workers.opened("slow", opening("slow", args.slow)) as slow,
        workers.opened("fast", opening("fast", args.fast)) as fast,
    ):
        for _ in range(ROUNDS):
            speed = time_many(slow, fast, texts, usual_batching(workers.threads))
            show(f"{speed.median:.2f} [{speed.low:.2f}, {speed.high:.2f}]")


if __name__ == "__main__":
    main()
