"""Merge, convert, quantize and verify a trained classifier: ``python -m exporter``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from exporter.bundle.artifact import ONNX_INT8
from exporter.config import ExportConfig, Exporter, Quantize, Target
from exporter.report import summary
from trainer.adopt.config import add_flags, take_config
from trainer.errors import UserError, run_command
from trainer.flags import HelpFormatter, parse_values, take_defaults
from trainer.progress import show

if TYPE_CHECKING:
    from exporter.records import ExportRecord


def main(export: Callable[[ExportConfig], ExportRecord] | None = None) -> None:
    """Read the flags, export, and print what was made and how it was checked.

    Args:
        export: exports; the real one where None.
    """
    values = parse_values(make_parser())
    adoption, config = take_config(values), ExportConfig(**values)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if adoption:
        from trainer.adopt.adopt import adopt

        adopt(adoption)
    if export is None:
        from exporter import export as exporting  # takes seconds to import, and --help should not wait for it

        export = partial(exporting.export, plan_seconds=exporting.PLAN_SECONDS)
    record = export(config)
    show(summary(record))
    if config.require_int8 and record.chosen != ONNX_INT8:
        raise NoInt8Error("no int8 artifact was chosen", "the export itself is complete; see the reason above")


class NoInt8Error(UserError):
    """`--require-int8` was given, and no int8 artifact was chosen."""

    exit_code = 3


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of ExportConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter",
        description="Merge a trained adapter, export it to ONNX, quantize it, and prove each step.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the run to export")
    parser.add_argument(
        "--quantize",
        nargs="?",
        const="auto",
        choices=get_args(Quantize),
        help="try int8 recipes, all or one family, and choose the fastest within the accuracy budget",
    )
    parser.add_argument(
        "--against-run",
        type=Path,
        metavar="RUN",
        help="another run, such as a student's teacher: say whether what is exported is as good, within --max-drop",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="X",
        help="accuracy that int8, half precision on a GPU, or a student may lose, in percentage points",
    )
    parser.add_argument(
        "--accept-undecided",
        action="store_true",
        help="choose int8 even if there are too few texts to be sure of its accuracy",
    )
    parser.add_argument("--require-int8", action="store_true", help="exit with status 3 if no int8 artifact is chosen")
    parser.add_argument(
        "--budget-minutes", type=float, metavar="X", help="minutes after which no further recipe is tried"
    )
    parser.add_argument(
        "--target",
        choices=get_args(Target),
        help="`portable` is int8 that is also right on x86 CPUs without VNNI; `cuda` is fp16 for GPUs",
    )
    parser.add_argument(
        "--exporter",
        choices=get_args(Exporter),
        help="what converts to ONNX; `optimum` needs `pip install 'lora2onnx[optimum]'`, an older transformers",
    )
    parser.add_argument("--no-fuse", action="store_true", help="do not fuse the fp32 graph")
    parser.add_argument(
        "--verify-samples", type=int, metavar="N", help="maximum number of evaluation texts for the proof"
    )
    parser.add_argument(
        "--no-cascade",
        action="store_true",
        help="do not try to let a linear classifier of words answer the texts that it is sure of",
    )
    parser.add_argument(
        "--stack",
        action="store_true",
        help="add the logits of that classifier and of the model for usual texts that it is not sure of, and let it "
        "answer fewer by itself",
    )
    parser.add_argument(
        "--shift",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="labelled texts of other domains: report the score on them, which decides nothing",
    )
    add_flags(parser)
    return take_defaults(parser, ExportConfig)


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="nothing was exported; run the command again"))
