"""Fine-tune a text classifier with LoRA: ``python -m trainer``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from trainer.config import Device, Precision, TrainConfig, Truncation
from trainer.errors import run_command
from trainer.flags import HelpFormatter, parse, run_dir_flag, take_defaults

if TYPE_CHECKING:
    from trainer.train import TrainResult


def main() -> None:
    """Read the flags, train, and print a summary."""
    config = parse(make_parser(), TrainConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from trainer.train import train  # takes seconds to import, and --help should not wait for it

    result = train(config)
    if result:
        print(summary(result))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of TrainConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Fine-tune a text classifier with LoRA.",
        formatter_class=HelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--model", help="base model: a folder, a Hub id, or `sample` (by default DistilBERT)")
    data.add_argument(
        "--dataset", help="a CSV, TSV, JSON Lines or Parquet file, a Hub id, or `sample` (by default IMDB)"
    )
    data.add_argument(
        "--eval-dataset", help="the same, or a split of --dataset (by default its evaluation split, or a fifth of it)"
    )
    data.add_argument("--text-column", help="column with the texts (by default the first with a usual name)")
    data.add_argument("--label-column", help="column with the labels (by default the first with a usual name)")
    data.add_argument("--label-names", nargs="+", metavar="NAME", help="names for labels that are the integers 0, 1, …")
    data.add_argument("--max-train-samples", type=int, metavar="N", help="maximum number of training texts; 0 for all")
    data.add_argument("--max-eval-samples", type=int, metavar="N", help="maximum number of evaluation texts; 0 for all")
    data.add_argument("--max-length", type=int, metavar="N", help="maximum number of tokens in a text")
    data.add_argument("--truncation", choices=get_args(Truncation), help="which tokens of a longer text are kept")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the training texts; the best one is kept"
    )
    training.add_argument("--batch-size", type=int, metavar="N", help="texts per step and device")
    training.add_argument("--learning-rate", type=float, metavar="X", help="peak learning rate")
    training.add_argument(
        "--warmup-ratio", type=float, metavar="X", help="share of the steps in which the learning rate rises"
    )
    training.add_argument("--weight-decay", type=float, metavar="X", help="AdamW's weight decay")
    training.add_argument("--gradient-accumulation-steps", type=int, metavar="N", help="batches per optimizer step")
    training.add_argument(
        "--early-stopping-patience",
        type=int,
        metavar="N",
        help="stop after N epochs without improvement (by default never)",
    )
    training.add_argument("--lora-r", type=int, metavar="N", help="rank of the LoRA matrices")
    training.add_argument("--lora-alpha", type=int, metavar="N", help="scale of the LoRA update, divided by the rank")
    training.add_argument("--lora-dropout", type=float, metavar="X", help="dropout before the LoRA matrices")
    training.add_argument(
        "--lora-targets", nargs="+", metavar="LAYER", help="layers to adapt (by default the query and value layers)"
    )
    training.add_argument(
        "--seed", type=int, metavar="N", help="seed of the data split, the new weights and the order of the texts"
    )
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=get_args(Device), help="where to train")
    run.add_argument("--precision", choices=get_args(Precision), help="auto is bf16 where that is fast")
    run.add_argument("--run-dir", type=Path, metavar="DIR", help="where to write the run")
    run.add_argument("--resume", action="store_true", help="continue an interrupted run with the same flags")
    run.add_argument("--overwrite", action="store_true", help="replace the run in --run-dir")
    return take_defaults(parser, TrainConfig)


def summary(result: TrainResult) -> str:
    """Return what a finished run prints."""
    training = result.training
    lines = [
        f"best epoch {training.best_epoch} of {len(training.epochs)}: accuracy {training.best.accuracy:.1%}, "
        f"weighted F1 {training.best.f1_weighted:.1%}, evaluation loss {training.best.loss:.3f} "
        f"on {result.evaluation_texts:,} texts",
        "",
        *(f"{e.predicted} ({e.probability:.1%}, labelled {e.label}): {_shorten(e.text)}" for e in result.examples),
        "",
        f"next: python -m exporter --quantize{run_dir_flag(training.config.run_dir, TrainConfig.run_dir)}",
    ]
    return "\n".join(lines)


def _shorten(text: str, width: int = 72) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


if __name__ == "__main__":
    sys.exit(
        run_command(main, if_interrupted="if training had begun, `--resume` continues after the last finished epoch")
    )
