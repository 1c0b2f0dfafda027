"""Classify texts with an exported artifact, without torch: ``python -m exporter.predict "An unforgettable film."``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.answers import AnswerFile, answer_file, check_output, csv_header, csv_row, json_line
from exporter.records import load_export
from trainer.characters import visible
from trainer.config import TrainConfig
from trainer.data import check_unicode, stream_texts
from trainer.errors import UserError, run_command
from trainer.flags import HelpFormatter, add_reading_flags, add_text_column_flag
from trainer.progress import say
from trainer.run import RunDir
from trainer.tables import Reading, decoded_lines

if TYPE_CHECKING:
    from exporter.runtime import Prediction


def main() -> None:
    """Read the flags, classify, and print or write the answers."""
    args = make_parser().parse_args()
    if args.artifact and args.run_dir:
        raise UserError("both `--artifact` and `--run-dir` were given", "give one of them")
    texts = Counted(_texts(args.text, args.file, args.text_column, Reading(args.encoding, args.no_header)))
    if args.output:
        check_output(args.output)
        _check_apart(args.output, args.file)
    folder = args.artifact or _chosen_artifact(RunDir(args.run_dir or TrainConfig.run_dir))
    with answer_file(args.output) if args.output else nullcontext() as answers:
        from exporter.runtime import Classifier  # onnxruntime: --help should not wait for it

        classifier = Classifier.load(folder, golden=not args.no_golden, require_sha256=args.require_sha256)
        pairs = classifier.stream(texts)
        if answers is None:
            number = _print(pairs)
        else:
            number = _write(answers, pairs, classifier.artifact.label_names, csv_safe=args.csv_safe)
        if number != texts.number:
            raise UserError(f"there are {number} answers to {texts.number} texts", "please report this as a bug")
    if args.output:
        sys.stderr.write(f"{number} answers in {visible(str(args.output))}\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter.predict",
        description="Classify texts with an exported artifact. Without a text or --file, reads one text a line from "
        "standard input.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("text", nargs="*", help="the texts to classify")
    parser.add_argument("--file", type=Path, help="a CSV, TSV, JSON or Parquet file with the texts")
    add_text_column_flag(parser.add_argument)
    add_reading_flags(parser.add_argument)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the answers to this .csv or .jsonl file")
    parser.add_argument(
        "--csv-safe",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="in a .csv, write `'` before texts and labels that a spreadsheet could take for formulas, and before "
        "those that begin with `'`",
    )
    parser.add_argument(
        "--artifact", type=Path, metavar="DIR", help="the artifact's folder (by default the run's chosen one)"
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the run to take it from (by default runs/default)")
    parser.add_argument(
        "--no-golden",
        action="store_true",
        help="load it even if it answers differently here than where it was exported",
    )
    parser.add_argument(
        "--require-sha256",
        metavar="HASH",
        help="refuse an artifact whose SHA256SUMS has another SHA-256 than this",
    )
    parser.set_defaults(encoding=Reading.encoding)
    return parser


def describe(text: str, answer: Prediction) -> str:
    """Render one answer as a line for a person: label, every probability, a note if the text was cut, the text."""
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {share:.1%}" for name, share in ranked)
    flat = " ".join(text[:1000].split())
    shown = flat if len(flat) <= 60 and len(text) <= 1000 else flat[:59] + "…"
    return visible(f"{answer.label}  ({shares}){'  [truncated]' if answer.truncated else ''}  {shown}")


class Counted:
    """Counts the texts that are taken from an iterator."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = next(self._texts)
        self.number += 1
        return text


def _print(pairs: Iterator[tuple[str, Prediction]]) -> int:
    """Print all answers; return how many there are."""
    number = 0
    for text, answer in pairs:
        print(describe(text, answer))
        number += 1
    return number


def _write(
    answers: AnswerFile, pairs: Iterator[tuple[str, Prediction]], label_names: tuple[str, ...], *, csv_safe: bool
) -> int:
    """Write all answers; return how many there are."""
    is_csv = answers.path.suffix.lower() == ".csv"
    render = partial(csv_row, safe=csv_safe) if is_csv else json_line
    number = 0
    for number, (text, answer) in enumerate(pairs, 1):
        for piece in chain(csv_header(label_names) if is_csv and number == 1 else (), render(text, answer)):
            answers.write(piece)
    return number


def _texts(given: list[str], file: Path | None, text_column: str | None, reading: Reading) -> Iterator[str]:
    if given and file:
        raise UserError("both a text and `--file` were given", "give one of them")
    if file:
        return stream_texts(file, text_column, reading, say)
    for flag, is_given in (
        ("--text-column", text_column is not None),
        ("--encoding", reading.encoding != Reading.encoding),
        ("--no-header", reading.no_header),
    ):
        if is_given:
            raise UserError(f"`{flag}` needs `--file`", f"add `--file`, or leave out `{flag}`")
    if given:
        check_unicode(given, "the input")
        return iter(given)
    lines = iter(()) if sys.stdin.isatty() else decoded_lines(sys.stdin.buffer, "standard input")
    texts = (line[:-2] if line.endswith("\r\n") else line.removesuffix("\n") for line in lines)
    beginning = list(islice(texts, 2))
    if beginning in ([], [""]):
        raise UserError("no text to classify", 'give one, as in `python -m exporter.predict "A fine film."`')
    return chain(beginning, texts)


def _check_apart(output: Path, file: Path | None) -> None:
    """Refuse to write to the file that is read, whatever it is called."""
    with suppress(OSError):  # there is no output yet
        if file and output.samefile(file):
            raise UserError("`--output` is the file that is read", "name another file")


def _chosen_artifact(run: RunDir) -> Path:
    return run.export / load_export(run).chosen


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="run the command again"))
