"""Classify texts with an exported artifact, without torch: ``python -m exporter.predict "An unforgettable film."``."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.records import load_export
from trainer.config import TrainConfig
from trainer.data import check_unicode, read_texts
from trainer.errors import UserError, run_command
from trainer.flags import HelpFormatter
from trainer.records import write_text
from trainer.run import RunDir

if TYPE_CHECKING:
    from exporter.runtime import Prediction


def main() -> None:
    """Read the flags, classify, and print or write the answers."""
    args = make_parser().parse_args()
    if args.artifact and args.run_dir:
        raise UserError("both `--artifact` and `--run-dir` were given", "give one of them")
    texts = _texts(args.text, args.file, args.text_column)
    check_unicode(texts, "the input")
    _check_output(args.output, args.file)
    folder = args.artifact or _chosen_artifact(RunDir(args.run_dir or TrainConfig.run_dir))
    from exporter.runtime import Classifier  # onnxruntime: --help should not wait for it

    predictions = Classifier.load(folder, golden=not args.no_golden).predict(texts)
    if args.output:
        write_text(args.output, render(texts, predictions, args.output.suffix.lower()))
        sys.stderr.write(f"{len(texts)} answers in {args.output}\n")
    else:
        print("\n".join(describe(text, answer) for text, answer in zip(texts, predictions, strict=True)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter.predict",
        description="Classify texts with an exported artifact. Without a text or --file, reads one text a line from "
        "standard input.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("text", nargs="*", help="the texts to classify")
    parser.add_argument("--file", type=Path, help="a CSV, TSV, JSON Lines or Parquet file with the texts")
    parser.add_argument("--text-column", help="column with the texts (by default the first with a usual name)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the answers to this .csv or .jsonl file")
    parser.add_argument(
        "--artifact", type=Path, metavar="DIR", help="the artifact's folder (by default the run's chosen one)"
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the run to take it from (by default runs/default)")
    parser.add_argument(
        "--no-golden",
        action="store_true",
        help="load it even if it answers differently here than where it was exported",
    )
    return parser


def describe(text: str, answer: Prediction) -> str:
    """Render one answer as a line for a person: label, every probability, a note if the text was cut, the text."""
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {share:.1%}" for name, share in ranked)
    flat = " ".join(text.split())
    shown = flat if len(flat) <= 60 else flat[:59] + "…"
    return f"{answer.label}  ({shares}){'  [truncated]' if answer.truncated else ''}  {shown}"


def render(texts: list[str], predictions: list[Prediction], suffix: str) -> str:
    """Render all answers, in order, as CSV or as JSON Lines."""
    if suffix == ".jsonl":
        rows = (
            {"text": text, "label": p.label, "probabilities": p.probabilities, "truncated": p.truncated}
            for text, p in zip(texts, predictions, strict=True)
        )
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(["text", "label", *(f"probability_{name}" for name in predictions[0].probabilities), "truncated"])
    for text, p in zip(texts, predictions, strict=True):
        shares = (f"{share:.6f}" for share in p.probabilities.values())
        writer.writerow([text, p.label, *shares, str(p.truncated).lower()])
    return sheet.getvalue()


def _texts(given: list[str], file: Path | None, text_column: str | None) -> list[str]:
    if given and file:
        raise UserError("both a text and `--file` were given", "give one of them")
    if text_column and not file:
        raise UserError("`--text-column` needs `--file`", "add `--file`, or leave out `--text-column`")
    if file:
        return read_texts(file, text_column)
    if given:
        return given
    nothing = UserError("no text to classify", 'give one, as in `python -m exporter.predict "A fine film."`')
    if sys.stdin.isatty():
        raise nothing
    try:
        texts = sys.stdin.buffer.read().decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not valid UTF-8 at byte {error.start}", "convert it with `iconv`") from None
    if texts == [""]:
        raise nothing
    return texts


def _check_output(output: Path | None, file: Path | None) -> None:
    """Refuse an output that cannot be written, before any work is done."""
    if output is None:
        return
    if output.suffix.lower() not in (".csv", ".jsonl"):
        raise UserError(f"cannot write `{output}`: unknown file type `{output.suffix}`", "give a `.csv` or a `.jsonl`")
    if file and output.resolve() == file.resolve():
        raise UserError("`--output` is the file that is read", "name another file")
    if not output.parent.is_dir():
        raise UserError(f"no folder `{output.parent}`", "make it first")


def _chosen_artifact(run: RunDir) -> Path:
    return run.export / load_export(run).chosen


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="no answers were written; run the command again"))
