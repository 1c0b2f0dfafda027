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
from exporter.bundle.artifact import MANIFEST, Artifact
from exporter.cascade.explain import reasons
from exporter.engines.spec import is_installed
from exporter.records import load_export
from trainer.config import TrainConfig
from trainer.data.load import check_unicode, stream_texts
from trainer.errors import UserError, run_command
from trainer.files.tables import Reading, decoded_lines
from trainer.flags import HelpFormatter, add_reading_flags, add_text_column_flag, check_text_column
from trainer.progress import say
from trainer.records import read_record
from trainer.run import RunDir
from trainer.tasks import NO_LABEL
from trainer.text.characters import visible
from trainer.text.texts import Text, shortened

if TYPE_CHECKING:
    from exporter.cascade.engine import CascadeEngine
    from exporter.runtime import Prediction

MOST_REASONS = 10
"""Printed for an answer."""


def main() -> None:
    """Read the flags, classify, and print or write the answers."""
    args = make_parser().parse_args()
    if args.artifact and args.run_dir:
        raise UserError("both `--artifact` and `--run-dir` were given", "give one of them")
    texts = Counted(_texts(args, _manifest(args)))
    if args.explain and (args.output or args.no_cascade):
        other = "--output" if args.output else "--no-cascade"
        raise UserError(f"both `--explain` and `{other}` were given", "give one of them")
    if args.output:
        check_output(args.output)
        _check_apart(args.output, args.file)
    folder = _folder(args)
    with answer_file(args.output) if args.output else nullcontext() as answers:
        from exporter.runtime import Classifier  # onnxruntime: --help should not wait for it

        classifier = Classifier.load(
            folder,
            golden=not args.no_golden,
            require_sha256=args.require_sha256,
            engine=args.engine,
            cascade=not args.no_cascade,
        )
        if args.explain and classifier.cascade is None:
            raise UserError(f"`{folder}` has no first stage to explain", "leave out `--explain`")
        answered, stages = classifier.stream(texts), classifier.cascade is not None
        if answers is None:
            number = _print(answered, classifier.cascade, explain=args.explain)
        else:
            number = _write(answers, answered, classifier.artifact, csv_safe=args.csv_safe, stages=stages)
        if number != texts.number:
            raise UserError(f"there are {number} answers to {texts.number} texts", "please report this as a bug")
    if args.output:
        sys.stderr.write(f"{number} answers in {visible(str(args.output))}\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter.predict",
        description="Classify texts with an exported artifact. Without a text or --file, reads one text a line from "
        "standard input, or one pair of texts with a tab between them.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("text", nargs="*", help="the texts to classify; of pairs, always the first and then the second")
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
    parser.add_argument(
        "--engine",
        choices=("auto", "onnxruntime", "openvino"),
        default="auto",
        help="what runs the model; `auto` is what `python -m exporter.tune` found to be the fastest here, or what the "
        "artifact was made for",
    )
    parser.add_argument("--no-cascade", action="store_true", help="ask the model alone, without its first stage")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="after each answer of the first stage, print the tokens and pairs whose weights decided",
    )
    parser.set_defaults(encoding=Reading.encoding)
    return parser


def describe(text: Text, answer: Prediction, *, stages: bool = False) -> str:
    """Render one answer as a line for a person: its labels, every probability, a note if the text was cut, the text.

    Of a cascade with `stages`, another note says which of them answered.
    """
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {share:.1%}" for name, share in ranked)
    given, note = ", ".join(answer.labels) or NO_LABEL, "  [truncated]" if answer.truncated else ""
    note += f"  [{answer.stage}]" if stages else ""
    return visible(f"{given}  ({shares}){note}  {shortened(text, 60)}")


class Counted:
    """Counts the texts that are taken from an iterator."""

    def __init__(self, texts: Iterator[Text]) -> None:
        self._texts = texts
        self.number = 0

    def __iter__(self) -> Iterator[Text]:
        return self

    def __next__(self) -> Text:
        text = next(self._texts)
        self.number += 1
        return text


def _print(answered: Iterator[tuple[Text, Prediction]], cascade: CascadeEngine | None, *, explain: bool) -> int:
    """Print all answers, and what decided those of a first stage if asked for; return how many there are."""
    number = 0
    for text, answer in answered:
        print(describe(text, answer, stages=cascade is not None))
        if cascade and explain and answer.stage == "lexical":
            for reason in reasons(cascade.first, cascade.encoder, text)[:MOST_REASONS]:
                print(visible(f"    {reason.weight:+.2f}  {shortened(reason.tokens, 60)}"))
        number += 1
    return number


def _write(
    answers: AnswerFile,
    answered: Iterator[tuple[Text, Prediction]],
    artifact: Artifact,
    *,
    csv_safe: bool,
    stages: bool,
) -> int:
    """Write all answers; return how many there are."""
    is_csv = answers.path.suffix.lower() == ".csv"
    task, names = artifact.task, artifact.label_names
    render = partial(partial(csv_row, safe=csv_safe) if is_csv else json_line, task=task, stages=stages)
    header = csv_header(names, task=task, pairs=artifact.pairs, stages=stages) if is_csv else iter(())
    number = 0
    for text, answer in answered:
        number += 1
        for piece in chain(header, render(text, answer)):  # the header is empty from the second answer on
            answers.write(piece)
    return number


def _texts(args: argparse.Namespace, artifact: Artifact | None) -> Iterator[Text]:
    """Return the texts that are given, or those of a file, or of standard input; or their pairs."""
    pairs, trained = (artifact.pairs, artifact.text_columns) if artifact else (False, ())
    if args.text and args.file:
        raise UserError("both a text and `--file` were given", "give one of them")
    columns = None if args.text_column is None else tuple(args.text_column)
    check_text_column(columns)
    if args.file:
        reading = Reading(args.encoding, args.no_header)
        return stream_texts(args.file, columns, reading, say, pairs=pairs, trained=trained)
    for flag, is_given in (
        ("--text-column", columns is not None),
        ("--encoding", args.encoding != Reading.encoding),
        ("--no-header", args.no_header),
    ):
        if is_given:
            raise UserError(f"`{flag}` needs `--file`", f"add `--file`, or leave out `{flag}`")
    if args.text:
        check_unicode(args.text, "the input")
        return iter(_two_by_two(args.text) if pairs else args.text)
    texts = _lines()
    return _split_at_tabs(texts) if pairs else texts


def _lines() -> Iterator[str]:
    """Return the lines of standard input."""
    lines = iter(()) if sys.stdin.isatty() else decoded_lines(sys.stdin.buffer, "standard input")
    texts = (line[:-2] if line.endswith("\r\n") else line.removesuffix("\n") for line in lines)
    beginning = list(islice(texts, 2))
    if beginning in ([], [""]):
        raise UserError("no text to classify", 'give one, as in `python -m exporter.predict "A fine film."`')
    return chain(beginning, texts)


def _two_by_two(texts: list[str]) -> list[Text]:
    if len(texts) % 2:
        raise UserError(
            f"this classifier reads pairs of texts, and {len(texts)} {'texts were' if texts[1:] else 'text was'} given",
            "give both texts of each pair, one after the other",
        )
    return [*zip(texts[::2], texts[1::2], strict=True)]


def _split_at_tabs(lines: Iterator[str]) -> Iterator[Text]:
    for number, line in enumerate(lines, 1):
        first, *others = line.split("\t")
        if len(others) != 1:
            raise UserError(
                f"this classifier reads pairs of texts, and line {number} of standard input has {len(others)} tabs",
                "put one tab between both texts of a pair, or give a file with `--file`",
            )
        yield (first, others[0])


def _check_apart(output: Path, file: Path | None) -> None:
    """Refuse to write to the file that is read, whatever it is called."""
    with suppress(OSError):  # there is no output yet
        if file and output.samefile(file):
            raise UserError("`--output` is the file that is read", "name another file")


def _folder(args: argparse.Namespace) -> Path:
    """Return the folder of the artifact that is asked for, or else of the one that the run chose for the engine."""
    if args.artifact:
        return Path(args.artifact)
    run = RunDir(args.run_dir or TrainConfig.run_dir)
    export = load_export(run)
    if args.engine == "onnxruntime" or not is_installed("openvino"):
        return run.export / export.chosen
    best = export.for_openvino if args.no_cascade else export.with_openvino  # which both stages may beat
    if args.explain and best not in [artifact.name for artifact in export.artifacts if artifact.cascade]:
        best = None  # it has no first stage to explain; the other may have one
    return run.export / (best or export.chosen)


def _manifest(args: argparse.Namespace) -> Artifact | None:
    """Return what the artifact says of itself, None where that cannot be read; loading it says what is wrong."""
    with suppress(UserError):
        return read_record(_folder(args) / MANIFEST, Artifact)
    return None


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="run the command again"))
