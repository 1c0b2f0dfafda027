"""Find the fastest way to score many texts here: ``python -m exporter.tune runs/default/export/onnx-int8``."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.load import stream_texts
from trainer.errors import UserError, run_command
from trainer.files.tables import Reading
from trainer.flags import HelpFormatter, Range, add_reading_flags, add_text_column_flag, out_of_range
from trainer.progress import say, show
from trainer.text.characters import visible

if TYPE_CHECKING:
    from exporter.engines.plan import Plan


def main() -> None:
    """Read the flags, measure, and print what was tried and which way is taken from now on."""
    args = make_parser().parse_args()
    if args.text_column is not None and not args.texts:
        raise UserError("`--text-column` needs `--texts`", "add `--texts`")
    for field, allowed in (("threads", Range(1, 1024)), ("seconds", Range(0, 3600))):
        if (value := getattr(args, field)) is not None and value not in allowed:
            raise out_of_range(field, value, str(allowed))
    from exporter.bundle.artifact import open_artifact
    from exporter.engines.plan import plan_path  # numpy and more: --help should not wait for it
    from exporter.tune.tune import MOST_DRAWN, tune

    texts: list[Any] = []
    if args.texts:
        reading = Reading(args.encoding, args.no_header)
        known = open_artifact(args.artifact)
        read = stream_texts(args.texts, args.text_column, reading, say, pairs=known.pairs, trained=known.text_columns)
        texts = list(islice(read, MOST_DRAWN))
    say(f"trying ways to score many texts, for about {args.seconds:g} seconds")
    plan = tune(args.artifact, texts, device=args.device, threads=args.threads, seconds=args.seconds)
    show(table(plan))
    sys.stderr.write(f"written to {visible(str(plan_path(args.artifact, args.device)))}\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter.tune",
        description="Find the fastest way to score many texts with an artifact on this machine: how many in a call, "
        "and how many calls at a time. It is kept beside the artifact, and used from then on.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="the artifact's folder")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="a file with texts like those to be scored")
    add_text_column_flag(parser.add_argument)
    add_reading_flags(parser.add_argument)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to run the model")
    parser.add_argument("--threads", type=int, help="CPU threads to use (by default one for each usable core)")
    parser.add_argument("--seconds", type=float, help="after which nothing else is tried")
    parser.set_defaults(encoding=Reading.encoding, device="cpu", seconds=30.0)
    return parser


def table(plan: Plan) -> str:
    """Render what was tried, the chosen way marked."""
    from statistics import median

    from exporter.tune.search import plain, ratio_to

    lines = [f"{'':2}{'':62}{'texts/s':>9}{'one by one':>12}{'rounds':>8}"]
    for trial in plan.trials:
        mark = "*" if trial.way == plan.way else ""
        ratio = ratio_to(plan.trials, trial.way, plain(plan.trials[0].way))
        rate = f"{plan.texts / median(trial.seconds):,.1f}" if trial.seconds else "-"
        beside = "-" if ratio is None else f"{ratio:.2f}x"
        lines.append(f"{mark:2}{trial.way.name:62}{rate:>9}{beside:>12}{len(trial.seconds):>8}")
    return "\n".join([*lines, f"* from now on, with {plan.threads} threads on {plan.cpu}"])


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="nothing was changed; run the command again"))
