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
        refuse_worse(differences, config.against, earlier.crowd or summary.crowd)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of BenchConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare accuracy and latency of a trained classifier across PyTorch and ONNX Runtime.",
        formatter_class=HelpFormatter,
    )
    _add_what(parser.add_argument_group("what to measure").add_argument)
    _add_how(parser.add_argument_group("how to measure").add_argument)
    _add_limits(parser.add_argument_group("what to ship").add_argument)
    _add_time(parser.add_argument_group("over time").add_argument)
    return take_defaults(parser, BenchConfig)


def _add_what(add: Callable[..., object]) -> None:
    """Add the flags that say what is measured."""
    add("--run-dir", type=Path, metavar="DIR", help="the exported run to measure")
    add("--engines", "--backends", nargs="+", metavar="NAME", help="the engines to measure, by name (default: all)")
    add("--peers", action="store_true", help="also measure other tools on the same classifier")
    add("--max-eval-samples", type=int, metavar="N", help="maximum number of texts to score; 0 for all")
    add("--texts", type=Path, metavar="FILE", help="texts of your own, to estimate their p95 latency")
    add_text_column_flag(add)
    add_reading_flags(add)


def _add_how(add: Callable[..., object]) -> None:
    """Add the flags that say how it is measured."""
    add(
        "--restarts",
        type=int,
        metavar="N",
        help="how often all processes are restarted: 3 or more for intervals, even from 6 on",
    )
    add(
        "--budget-minutes",
        type=float,
        metavar="X",
        help="minutes that all may take: no restart begins that would end later, and none once all is told apart",
    )
    add("--calls", type=int, metavar="N", help="timed calls with one text, per restart")
    add("--grid-batches", nargs="+", type=int, metavar="N", help="batch sizes of the grid, model only")
    add("--grid-lengths", nargs="+", type=int, metavar="N", help="text lengths of the grid, in tokens")
    add("--grid-calls", type=int, metavar="N", help="calls per grid cell and restart; 0 for no grid")
    add("--soak-calls", type=int, metavar="N", help="calls over which the first restart watches memory")
    add("--cold-starts", type=int, metavar="N", help="new processes timed per engine, one each restart")
    add("--threads", type=int, metavar="N", help="CPU threads per engine (default: all usable cores)")
    add("--seed", type=int, metavar="N", help="random seed for the choice and order of the texts")


def _add_limits(add: Callable[..., object]) -> None:
    """Add the flags that say what may be shipped."""
    add("--device", choices=get_args(Device), help="the device to deploy on")
    add("--max-drop", type=float, metavar="X", help="highest acceptable accuracy loss, in points")
    add("--max-p95-ms", type=float, metavar="X", help="highest acceptable p95 latency of one text")
    add("--max-size-mb", type=float, metavar="X", help="highest acceptable size on disk")
    add("--price-per-hour", type=float, metavar="X", help="machine price, for the cost per million texts")


def _add_time(add: Callable[..., object]) -> None:
    """Add the flags of a comparison over time."""
    add("--against", type=Path, metavar="FILE", help="an earlier bench.json; exit status 4 if worse now")
    add("--any-machine", action="store_true", help="compare even with another machine's benchmark")


if __name__ == "__main__":
    sys.exit(
        run_command(
            main,
            if_interrupted="completed restarts, if any, are in the run's `bench.json` and reports, marked as partial",
        )
    )
