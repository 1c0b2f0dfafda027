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
from trainer.flags import HelpFormatter, add_reading_flags, parse, take_defaults
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
from trainer.progress import show


def main() -> None:
    """Read the flags, pretrain, and print a summary."""
    config = parse(make_parser(), PretrainConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from trainer.pretrain.train import pretrain  # takes seconds to import, and --help should not wait for it

    record = pretrain(config)
    if record:
        show(summary(record))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of PretrainConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.pretrain",
        description="Train an encoder on unlabelled text, to be fine-tuned with `python -m trainer --model DIR`.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument_group("text").add_argument
    add("--text", type=Path, nargs="+", metavar="FILE",
        help="plain text (one text a line), CSV, TSV, JSON Lines, Parquet")  # fmt: skip
    add("--text-column", metavar="NAME", help="column with the texts (by default the first with a usual name)")
    add_reading_flags(add)
    add("--max-length", type=int, help="tokens in a sequence; half as many at first")
    add = parser.add_argument_group("model").add_argument
    add("--model", help="checkpoint to continue from: a folder, a Hub id, or `sample`; without it from scratch")
    add("--teacher", help="larger checkpoint to learn from as well; from scratch, its vocabulary is used")
    add("--vocabulary", type=int, help=f"from scratch: word pieces to learn (by default {VOCABULARY})")
    add("--width", type=int, help=f"from scratch: width of the hidden states (by default {WIDTH})")
    add("--layers", type=int, help=f"from scratch: number of layers (by default {LAYERS})")
    add("--word-vectors", choices=get_args(WordVectors),
        help="from scratch: initial word vectors (by default cooccurrence)")  # fmt: skip
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=float, help="passes over the text")
    add("--batch-tokens", type=int, help="tokens per step and device; 65536 suits a GPU")
    add("--mask-ratio", type=float, help="share of the tokens to predict")
    add("--summary-weight", type=float,
        help="weight of predicting a sequence's words from [CLS]; 0 trains on masked tokens only")  # fmt: skip
    rates = f"(by default {LEARNING_RATE} from scratch, {LEARNING_RATE_CONTINUED} continued)"
    add("--learning-rate", type=float, help=f"peak learning rate {rates}")
    add("--warmup-ratio", type=float, help="share of the steps in which the learning rate rises")
    add("--weight-decay", type=float, help="AdamW's weight decay")
    add("--seed", type=int, help="seed of the weights, the order and the masks")
    add = parser.add_argument_group("run").add_argument
    add("--device", choices=get_args(Device), help="where to train")
    add("--precision", choices=get_args(Precision), help="auto is bf16 where that is fast")
    add("--save-precision", choices=get_args(SavePrecision), help="precision of the saved weights")
    add("--output-dir", type=Path, metavar="DIR", help="where to write the checkpoint")
    add("--resume", action="store_true", help="continue an interrupted run with the same flags")
    add("--overwrite", action="store_true", help="replace the checkpoint in --output-dir")
    return take_defaults(parser, PretrainConfig)


def summary(record: PretrainRecord) -> str:
    """Return what a finished run prints."""
    first, last = record.evaluations[0], record.evaluations[-1]
    return (
        f"evaluation loss {last.loss:.3f} after {last.tokens:,} tokens ({first.loss:.3f} after {first.tokens:,})\n\n"
        f"next: python -m trainer --model {shlex.quote(str(record.config.output_dir))}"
    )


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="`--resume` continues a run from its last checkpoint"))
