"""Compare accuracy and latency across runtimes: ``python -m bench``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

from bench.config import BenchConfig, Device
from trainer.errors import run_command
from trainer.flags import HelpFormatter, parse, take_defaults

WIDE = 200
"""Columns of the table where it goes to a file."""


def main() -> None:
    """Read the flags, measure, and print what to ship."""
    config = parse(make_parser(), BenchConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from rich.console import Console

    from bench.judge.against import compare, load_earlier, refuse_worse, render
    from bench.judge.summary import summarise
    from bench.judge.verdict import recommend
    from bench.measure.environment import read_environment
    from bench.report.tables import console, expected, method
    from bench.run import bench  # imports numpy and onnxruntime, and --help should not wait for it
    from exporter.runtime import usable_cores
    from trainer.run import RunDir

    earlier = None
    if config.against:  # now, since it may be the file that this benchmark will replace
        here = read_environment(config.threads or usable_cores())
        earlier = load_earlier(config.against, config, here)
    record = bench(config)
    summary = summarise(record)
    recommendation = recommend(record, summary)
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDE).print(console(record, summary))
    print("\n" + "\n\n".join(text for text in (expected(summary), method(record, summary)) if text) + "\n")
    for skipped in record.skipped:
        print(f"not measured: {skipped.engine}, {skipped.reason}")
    for line in recommendation.rejected:
        print(f"not {line}")
    print(f"\n{recommendation.sentence}\n\nreport: {RunDir(config.run_dir).bench_report.with_suffix('.html')}")
    if config.against and earlier:
        differences = compare(earlier, record)
        print(f"\nagainst {config.against}:\n{render(differences)}")
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
        "--engines", "--backends", nargs="+", metavar="NAME", help="which to measure, as named in the table (all)"
    )
    what.add_argument("--peers", action="store_true", help="measure other tools on the same classifier, too")
    what.add_argument("--max-eval-samples", type=int, metavar="N", help="most texts to score; 0 takes all")
    what.add_argument("--texts", type=Path, metavar="FILE", help="texts of yours: their p95 is estimated")
    what.add_argument("--text-column", metavar="NAME", help="the column of --texts (found by its usual names)")
    how = parser.add_argument_group("how to measure")
    how.add_argument("--restarts", type=int, metavar="N", help="how often all processes start anew; even from 6 on")
    how.add_argument("--calls", type=int, metavar="N", help="texts asked one by one after each restart")
    how.add_argument("--grid-batches", nargs="+", type=int, metavar="N", help="batch sizes of the grid, model only")
    how.add_argument("--grid-lengths", nargs="+", type=int, metavar="N", help="lengths of the grid, in tokens")
    how.add_argument("--grid-calls", type=int, metavar="N", help="calls of each cell after each restart; 0 for no grid")
    how.add_argument("--soak-calls", type=int, metavar="N", help="calls over which memory is watched at the end")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads of each engine (all usable cores)")
    how.add_argument("--seed", type=int, metavar="N", help="seed of the texts drawn and of the order")
    limits = parser.add_argument_group("what to ship")
    limits.add_argument("--device", choices=get_args(Device), help="where it will run")
    limits.add_argument("--max-drop", type=float, metavar="X", help="accuracy that it may cost, percentage points")
    limits.add_argument("--max-p95-ms", type=float, metavar="X", help="latency of one text that 95 of 100 keep")
    limits.add_argument("--max-size-mb", type=float, metavar="X", help="size on disk")
    limits.add_argument("--price-per-hour", type=float, metavar="X", help="of the machine, for the cost per million")
    time = parser.add_argument_group("over time")
    time.add_argument("--against", type=Path, metavar="FILE", help="an earlier bench.json; status 4 if this is worse")
    time.add_argument("--any-machine", action="store_true", help="compare even if that was another machine")
    return take_defaults(parser, BenchConfig)


if __name__ == "__main__":
    sys.exit(
        run_command(
            main,
            if_interrupted="whole parts measured so far, if any, are in the run's `bench.json` and reports, as partial",
        )
    )
