"""Merge, convert, quantize and verify a trained classifier: ``python -m exporter``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

from exporter.config import ExportConfig, Quantize, Target
from exporter.records import ONNX_INT8
from exporter.report import summary
from trainer.config import Truncation
from trainer.errors import UserError, run_command
from trainer.flags import HelpFormatter, parse, take_defaults
from trainer.run import RunDir


def main() -> None:
    """Read the flags, export, and print what was made and how it was proved."""
    config = parse(make_parser(), ExportConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if config.adapter:
        adopt_from(config, config.adapter)
    from exporter.export import export  # takes seconds to import, and --help should not wait for it

    record = export(config)
    print(summary(record))
    if config.require_int8 and record.chosen != ONNX_INT8:
        raise NoInt8Error("no int8 artifact was chosen", "the export is complete all the same; see the reason above")


def adopt_from(config: ExportConfig, folder: Path) -> None:
    """Make a run of the adapter or checkpoint in `folder`, as `config` asks."""
    from trainer.adopt import adopt

    adopt(
        RunDir(config.run_dir),
        folder,
        model=config.model,
        dataset=config.dataset,
        eval_dataset=config.eval_dataset,
        text_column=config.text_column,
        label_column=config.label_column,
        label_names=config.label_names,
        max_eval_samples=config.max_eval_samples,
        max_length=config.max_length,
        truncation=config.truncation,
    )


class NoInt8Error(UserError):
    """`--require-int8` was given, and fp32 is what should be shipped."""

    exit_code = 3


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of ExportConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter",
        description="Merge a trained adapter, export it to ONNX, quantize it, and prove it the same classifier.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the run to export")
    parser.add_argument(
        "--quantize",
        nargs="?",
        const="auto",
        choices=get_args(Quantize),
        help="try int8 recipes, all or one family, and choose the fastest within the budget",
    )
    parser.add_argument("--max-drop", type=float, metavar="X", help="accuracy that int8 may cost, percentage points")
    parser.add_argument(
        "--accept-undecided", action="store_true", help="ship int8 even if the texts are too few to tell"
    )
    parser.add_argument("--require-int8", action="store_true", help="status 3 if no int8 artifact is chosen")
    parser.add_argument("--budget-minutes", type=float, metavar="X", help="time after which no further recipe is tried")
    parser.add_argument(
        "--target",
        choices=get_args(Target),
        help="`portable` keeps int8 right on x86 CPUs without VNNI, too; `cuda` makes fp16 for GPUs",
    )
    parser.add_argument("--no-fuse", action="store_true", help="leave the fp32 graph as it was converted")
    parser.add_argument("--verify-samples", type=int, metavar="N", help="most evaluation texts to compare on")
    other = parser.add_argument_group("an adapter from elsewhere")
    other.add_argument("--adapter", type=Path, metavar="FOLDER", help="a peft adapter or a merged checkpoint to export")
    other.add_argument("--model", help="its base model, where it is not the one that the adapter names")
    other.add_argument("--dataset", help="labelled texts it was not trained on: a file or a Hub id")
    other.add_argument("--eval-dataset", help="the same; then --dataset may be its training texts")
    other.add_argument("--text-column", help="column with the texts (found by its usual names)")
    other.add_argument("--label-column", help="column with the labels (found by its usual names)")
    other.add_argument("--label-names", nargs="+", metavar="NAME", help="names of its classes, in its order")
    other.add_argument("--max-eval-samples", type=int, metavar="N", help="most texts to measure on; 0 takes all")
    other.add_argument("--max-length", type=int, metavar="N", help="most tokens of a text (its model's, up to 512)")
    other.add_argument("--truncation", choices=get_args(Truncation), help="which tokens of a longer text to keep")
    return take_defaults(parser, ExportConfig)


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="nothing was exported; run the command again"))
