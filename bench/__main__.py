"""Compare accuracy and latency across runtimes: ``python -m bench``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bench.config import BenchConfig
from exporter.engines.spec import Device
from trainer.errors import run_command
from trainer.flags import HelpFormatter, add_reading_flags, add_text_column_flag, parse, take_defaults
from trainer.progress import show

if TYPE_CHECKING:
    from bench.judge.summary import Summary


def main(bench: Callable[[BenchConfig], Summary] | None = None) -> None:
    """Read the flags, measure, and print what to ship; `bench` measures, the real one where None."""
    config = parse(make_parser(), BenchConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from rich.console import Console

    from bench.judge.against import compare, load_earlier, refuse_worse
    from bench.measure.environment import read_environment
    from bench.report.tables import comparison, console, notes
    from exporter.engines.cores import usable_cores
    from trainer.run import RunDir

    if config.against:  # is read now, since it may be the file that this benchmark will replace
        earlier = load_earlier(config.against, config, read_environment(config.threads or usable_cores()))
    if bench is None:
        from bench import run  # takes a while to import, and --help should not wait for it

        bench = run.bench
    summary = bench(config)
    file_width = 200  # where the table does not go to a terminal
    Console(highlight=False, width=None if sys.stdout.isatty() else file_width).print(console(summary))
    show(f"\n{notes(summary)}\n\nreport: {RunDir(config.run_dir).bench_report.with_suffix('.html')}")
    if config.against:
        differences = compare(earlier, summary)
        show(f"\ncompared with {config.against}:\n{comparison(differences)}")
        refuse_worse(differences, config.against)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of BenchConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare accuracy and latency of a trained classifier across PyTorch and ONNX Runtime.",
        formatter_class=HelpFormatter,
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--run-dir", type=Path, metavar="DIR", help="the exported run to measure")
    what.add_argument(
        "--engines", "--backends", nargs="+", metavar="NAME", help="the engines to measure, by name (default: all)"
    )
    what.add_argument("--peers", action="store_true", help="also measure other tools on the same classifier")
    what.add_argument("--max-eval-samples", type=int, metavar="N", help="maximum number of texts to score; 0 for all")
    what.add_argument("--texts", type=Path, metavar="FILE", help="texts of your own, to estimate their p95 latency")
    add_text_column_flag(what.add_argument)
    add_reading_flags(what.add_argument)
    how = parser.add_argument_group("how to measure")
    how.add_argument(
        "--restarts",
        type=int,
        metavar="N",
        help="how often all processes are restarted: 3 or more for intervals, even from 6 on",
    )
    how.add_argument(
        "--budget-minutes",
        type=float,
        metavar="X",
        help="minutes that all may take: no restart begins that would end later, and none once all is told apart",
    )
    how.add_argument("--calls", type=int, metavar="N", help="timed calls with one text, per restart")
    how.add_argument("--grid-batches", nargs="+", type=int, metavar="N", help="batch sizes of the grid, model only")
    how.add_argument("--grid-lengths", nargs="+", type=int, metavar="N", help="text lengths of the grid, in tokens")
    how.add_argument("--grid-calls", type=int, metavar="N", help="calls per grid cell and restart; 0 for no grid")
    how.add_argument("--soak-calls", type=int, metavar="N", help="calls over which the first restart watches memory")
    how.add_argument("--cold-starts", type=int, metavar="N", help="new processes timed per engine, one each restart")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads per engine (default: all usable cores)")
    how.add_argument("--seed", type=int, metavar="N", help="random seed for the choice and order of the texts")
    limits = parser.add_argument_group("what to ship")
    limits.add_argument("--device", choices=get_args(Device), help="the device to deploy on")
    limits.add_argument("--max-drop", type=float, metavar="X", help="highest acceptable accuracy loss, in points")
    limits.add_argument("--max-p95-ms", type=float, metavar="X", help="highest acceptable p95 latency of one text")
    limits.add_argument("--max-size-mb", type=float, metavar="X", help="highest acceptable size on disk")
    limits.add_argument(
        "--price-per-hour", type=float, metavar="X", help="machine price, for the cost per million texts"
    )
    time = parser.add_argument_group("over time")
    time.add_argument("--against", type=Path, metavar="FILE", help="an earlier bench.json; exit status 4 if worse now")
    time.add_argument("--any-machine", action="store_true", help="compare even with another machine's benchmark")
    return take_defaults(parser, BenchConfig)


if __name__ == "__main__":
    sys.exit(
        run_command(
            main,
            if_interrupted="completed restarts, if any, are in the run's `bench.json` and reports, marked as partial",
        )
    )
