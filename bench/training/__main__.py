"""Measure how fast a run trains beside a plain Trainer: ``python -m bench.training``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench.training.record import TrainingSpeedConfig, table
from trainer.errors import run_command
from trainer.flags import HelpFormatter, parse, take_defaults
from trainer.progress import show


def main() -> None:
    """Read the flags, measure, and print a table."""
    config = parse(make_parser(), TrainingSpeedConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from bench.training.compare import compare  # takes seconds to import, and --help should not wait for it

    show(table(compare(config)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of TrainingSpeedConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.training",
        description="Measure how many texts a second a run was trained with, beside a plain Trainer and peft on the "
        "same texts, in turns. The run stays as it is.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the trained run whose texts and flags are taken")
    parser.add_argument("--minutes", type=float, help="minutes that it may take; two rounds are measured in any case")
    return take_defaults(parser, TrainingSpeedConfig)


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="nothing was changed; run the command again"))
