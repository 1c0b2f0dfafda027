"""Train a masked language model on plain text: ``python -m trainer.pretrain``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import get_args

from trainer.config import Device, Precision
from trainer.errors import run_command
from trainer.flags import HelpFormatter, parse, take_defaults
from trainer.pretrain.config import (
    LAYERS,
    LEARNING_RATE,
    LEARNING_RATE_CONTINUED,
    VOCABULARY,
    WIDTH,
    PretrainConfig,
    PretrainRecord,
    SavePrecision,
    WordVectors,
)


def main() -> None:
    """Read the flags, pretrain, and print a summary."""
    config = parse(make_parser(), PretrainConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from trainer.pretrain.train import pretrain  # takes seconds to import, and --help should not wait for it

    record = pretrain(config)
    if record:
        print(summary(record))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of PretrainConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.pretrain",
        description="Train an encoder on unlabelled text, to be fine-tuned with `python -m trainer --model DIR`.",
        formatter_class=HelpFormatter,
    )
    data = parser.add_argument_group("text")
    data.add_argument(
        "--text",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="plain text (one text a line), CSV, TSV, JSON Lines, Parquet",
    )
    data.add_argument(
        "--text-column", metavar="NAME", help="column with the texts (by default the first with a usual name)"
    )
    data.add_argument("--max-length", type=int, metavar="N", help="tokens in a sequence; half as many at first")
    start = parser.add_argument_group("model")
    start.add_argument(
        "--model", help="checkpoint to continue from: a folder, a Hub id, or `sample`; without it from scratch"
    )
    start.add_argument(
        "--teacher", help="larger checkpoint to learn from as well; from scratch, its vocabulary is used"
    )
    start.add_argument(
        "--vocabulary", type=int, metavar="N", help=f"from scratch: word pieces to learn (by default {VOCABULARY})"
    )
    start.add_argument(
        "--width", type=int, metavar="N", help=f"from scratch: width of the hidden states (by default {WIDTH})"
    )
    start.add_argument("--layers", type=int, metavar="N", help=f"from scratch: number of layers (by default {LAYERS})")
    start.add_argument(
        "--word-vectors",
        choices=get_args(WordVectors),
        help="from scratch: initial word vectors (by default cooccurrence)",
    )
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=float, metavar="X", help="passes over the text")
    training.add_argument("--batch-tokens", type=int, metavar="N", help="tokens per step and device; 65536 suits a GPU")
    training.add_argument("--mask-ratio", type=float, metavar="X", help="share of the tokens to predict")
    training.add_argument(
        "--summary-weight",
        type=float,
        metavar="X",
        help="weight of predicting a sequence's words from [CLS]; 0 trains on masked tokens only",
    )
    training.add_argument(
        "--learning-rate",
        type=float,
        metavar="X",
        help=f"peak learning rate (by default {LEARNING_RATE} from scratch, {LEARNING_RATE_CONTINUED} continued)",
    )
    training.add_argument(
        "--warmup-ratio", type=float, metavar="X", help="share of the steps in which the learning rate rises"
    )
    training.add_argument("--weight-decay", type=float, metavar="X", help="AdamW's weight decay")
    training.add_argument("--seed", type=int, metavar="N", help="seed of the weights, the order and the masks")
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=get_args(Device), help="where to train")
    run.add_argument("--precision", choices=get_args(Precision), help="auto is bf16 where that is fast")
    run.add_argument("--save-precision", choices=get_args(SavePrecision), help="precision of the saved weights")
    run.add_argument("--output-dir", type=Path, metavar="DIR", help="where to write the checkpoint")
    run.add_argument("--resume", action="store_true", help="continue an interrupted run with the same flags")
    run.add_argument("--overwrite", action="store_true", help="replace the checkpoint in --output-dir")
    return take_defaults(parser, PretrainConfig)


def summary(record: PretrainRecord) -> str:
    """Return what a finished run prints."""
    last = record.evaluations[-1]
    first = record.evaluations[0]
    return (
        f"evaluation loss {last.loss:.3f} after {last.tokens:,} tokens ({first.loss:.3f} after {first.tokens:,})\n\n"
        f"next: python -m trainer --model {shlex.quote(str(record.config.output_dir))}"
    )


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="`--resume` continues a run from its last checkpoint"))
