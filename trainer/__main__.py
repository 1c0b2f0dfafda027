"""Fine-tune a text classifier with LoRA: ``python -m trainer``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from trainer.config import (
    FULL_RATE,
    LORA_RATE,
    ClassWeights,
    Device,
    Precision,
    TaskName,
    TrainConfig,
    TruncationOrAuto,
)
from trainer.errors import run_command
from trainer.flags import HelpFormatter, JoinNames, add_column_flags, parse, run_dir_flag, take_defaults
from trainer.progress import show
from trainer.text.texts import shortened

if TYPE_CHECKING:
    from trainer.training.train import TrainResult


def main() -> None:
    """Read the flags, train, and print a summary."""
    config = parse(make_parser(), TrainConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from trainer.training.train import train  # takes seconds to import, and --help should not wait for it

    result = train(config)
    if result:
        show(summary(result))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of TrainConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description="Fine-tune a text classifier with LoRA.", formatter_class=HelpFormatter
    )
    add = parser.add_argument_group("data").add_argument
    add("--model", help="base model: a folder, a Hub id, or `sample` (by default DistilBERT); with "
        "--teacher also `small`, some of its layers, the default there")  # fmt: skip
    several: dict[str, Any] = {"nargs": "+", "action": JoinNames, "metavar": "DATASET"}
    add("--dataset", **several, help="CSV, TSV, JSON or Parquet files, a saved dataset, a Hub id, or `sample` (by "
        "default IMDB)")  # fmt: skip
    add("--eval-dataset", **several, help="the same, or a split of --dataset (by default its evaluation split, or a "
        "fifth of it)")  # fmt: skip
    add("--task", choices=get_args(TaskName), help="whether a text has one label, or any number of them (by default "
        "one, or what the teacher says)")  # fmt: skip
    add_column_flags(add, "names for labels that are the integers 0, 1, …")
    add("--max-train-samples", type=int, help="maximum number of training texts; 0 for all")
    add("--max-eval-samples", type=int, help="maximum number of evaluation texts; 0 for all")
    add("--max-length", type=int, help="maximum number of tokens in a text")
    add("--truncation", choices=get_args(TruncationOrAuto), help="which tokens of a longer text are kept; auto "
        "compares the rules on training texts")  # fmt: skip
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=int, help="passes over the training texts; the best one is kept")
    add("--batch-size", type=int, help="texts per step and device")
    add("--learning-rate", type=float, help=f"peak learning rate (by default {LORA_RATE:g}, for all weights "
        f"{FULL_RATE:g})")  # fmt: skip
    add("--warmup-ratio", type=float, help="share of the steps in which the learning rate rises")
    add("--weight-decay", type=float, help="AdamW's weight decay")
    add("--gradient-accumulation-steps", type=int, help="batches per optimizer step")
    add("--early-stopping-patience", type=int, help="stop after N epochs without improvement (by default never)")
    add("--class-weights", choices=get_args(ClassWeights), help="balanced: rare labels weigh as much as frequent ones")
    add("--lora-r", type=int, help="rank of the LoRA matrices")
    add("--lora-alpha", type=int, help="scale of the LoRA update, divided by the rank")
    add("--lora-dropout", type=float, help="dropout before the LoRA matrices")
    add("--lora-targets", nargs="+", metavar="LAYER", help="layers to adapt (by default the query and value layers)")
    add("--full", action=argparse.BooleanOptionalAction, help="train all weights instead of LoRA (by default those of "
        "a student)")  # fmt: skip
    add("--seed", type=int, help="seed of the data split, the new weights and the order of the texts")
    add = parser.add_argument_group("student").add_argument
    add("--teacher", type=Path, metavar="RUN", help="a finished run, whose answers are learnt; without --dataset its "
        "texts, too")  # fmt: skip
    add("--student-layers", type=int, help="layers of `small`, taken evenly from the teacher (by default half)")
    add("--temperature", type=float, help="divides both models' logits, so that the student learns what the teacher "
        "finds unlikely, too")  # fmt: skip
    several["metavar"] = "FILE"
    add("--unlabelled", **several, help="files of texts without labels, for which the teacher's answers are learnt")
    add = parser.add_argument_group("run").add_argument
    add("--device", choices=get_args(Device), help="where to train")
    add("--precision", choices=get_args(Precision), help="auto is bf16 where that is fast")
    add("--run-dir", type=Path, metavar="DIR", help="where to write the run")
    add("--resume", action="store_true", help="continue an interrupted run with the same flags")
    add("--overwrite", action="store_true", help="replace the run in --run-dir")
    return take_defaults(parser, TrainConfig)


def summary(result: TrainResult) -> str:
    """Return what a finished run prints."""
    training = result.training
    lines = [
        f"best epoch {training.best_epoch} of {len(training.epochs)}: {result.headline}, "
        f"evaluation loss {training.best.loss:.3f} on {result.evaluation_texts:,} texts",
        "",
        *(f"{e.predicted} (labelled {e.label}): {shortened(e.text, 72)}" for e in result.examples),
        "",
        f"next: python -m exporter --quantize{run_dir_flag(training.config.run_dir, TrainConfig.run_dir)}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(
        run_command(main, if_interrupted="if training had begun, `--resume` continues after the last finished epoch")
    )
