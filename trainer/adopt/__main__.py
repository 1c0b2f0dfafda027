"""Make a run of an adapter or a merged checkpoint that was trained elsewhere: ``python -m trainer.adopt``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.adopt.config import AdoptConfig, add_data_flags
from trainer.errors import run_command
from trainer.flags import HelpFormatter, parse, run_dir_flag, take_defaults
from trainer.progress import show

if TYPE_CHECKING:
    from trainer.run import TrainRecord


def main() -> None:
    """Read the flags, make the run, and print a summary."""
    config = parse(make_parser(), AdoptConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from trainer.adopt.adopt import adopt  # checking an adapter takes torch, and --help should not wait for it

    show(summary(config, adopt(config)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of AdoptConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.adopt",
        description="Make a run of an adapter or a merged checkpoint that was trained elsewhere.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("adapter", type=Path, metavar="FOLDER", help="a peft adapter or a merged checkpoint")
    add_data_flags(parser)
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where to write the run")
    return take_defaults(parser, AdoptConfig)


def summary(config: AdoptConfig, record: TrainRecord) -> str:
    """Return what a finished adoption prints."""
    return (
        f"`{config.run_dir}` is now a run of `{config.adapter}`, on top of {record.base.name}: "
        f"labels {', '.join(record.label_names)}, {record.evaluation_texts:,} evaluation texts, "
        f"up to {record.max_length} tokens\n\n"
        f"next: python -m exporter --quantize{run_dir_flag(config.run_dir, AdoptConfig.run_dir)}"
    )


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="no run was made; run the command again"))
