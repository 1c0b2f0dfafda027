"""Compare accuracy and latency across runtimes: ``python -m bench``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench.config import BenchConfig
from trainer.errors import run_command
from trainer.flags import HelpFormatter, parse, take_defaults


def main() -> None:
    """Read the flags, measure, and print the table."""
    config = parse(make_parser(), BenchConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from bench.report import render
    from bench.run import bench  # imports numpy and onnxruntime, and --help should not wait for it

    record = bench(config)
    print(render(record))
    print(f"\nAll samples: {config.run_dir / 'bench.json'}; this table: {config.run_dir / 'bench.md'}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of BenchConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare accuracy and latency of a trained classifier across PyTorch and ONNX Runtime.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the exported run to measure")
    parser.add_argument("--backends", nargs="+", metavar="NAME", help="which to measure, as named in the table (all)")
    parser.add_argument("--batch-sizes", nargs="+", type=int, metavar="N", help="reviews per timed call")
    parser.add_argument("--calls", type=int, metavar="N", help="timed calls of each backend at each batch size")
    parser.add_argument("--warmup", type=int, metavar="N", help="calls before that are not counted")
    parser.add_argument("--max-eval-samples", type=int, metavar="N", help="most reviews to score; 0 takes all")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of each backend (all usable cores)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the reviews drawn and of the order")
    return take_defaults(parser, BenchConfig)


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="nothing was recorded; run the command again"))
