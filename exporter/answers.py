"""Answers as CSV or JSON Lines, and the file that they go to: no answer is lost because it cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from trainer.config import TaskName
from trainer.data.load import TEXT_COLUMNS
from trainer.errors import UserError
from trainer.limits import open_regular
from trainer.locks import try_lock
from trainer.progress import say
from trainer.text.characters import is_unicode
from trainer.text.texts import Text, parts_of

if TYPE_CHECKING:
    from exporter.runtime import Prediction

FILE_TYPES = (".csv", ".jsonl")
SLICE = 2**20
"""Characters of a text that are rendered at a time, and bytes that are written at a time."""

FORMULA = re.compile("[\\s\\x00-\\x1f\\ufeff\\u200b]*[=+\\-@\uff1d\uff0b\uff0d\uff20']|[\\t\\r\\n]")
"""What a spreadsheet may take for a formula, even behind white space, and in full width; and the mark itself.

Source: OWASP, "CSV Injection".
"""


def json_line(text: Text, answer: Prediction, *, task: TaskName, stages: bool = False) -> Iterator[str]:
    """Render one answer as a line of JSON, in pieces; `stages` says by which stage of a cascade."""
    yield "{"
    for name, part in zip(TEXT_COLUMNS, parts_of(text), strict=False):
        yield f'"{name}": "'
        for piece in _slices(part):
            yield json.dumps(piece, ensure_ascii=False)[1:-1]
        yield '", '
    own = {"label": answer.label} if task == "single-label" else {"labels": answer.labels}
    rest = own | {"probabilities": answer.probabilities, "truncated": answer.truncated}
    rest |= {"stage": answer.stage} if stages else {}
    yield json.dumps(rest, ensure_ascii=False)[1:] + "\n"


def csv_header(label_names: tuple[str, ...], *, task: TaskName, pairs: bool, stages: bool = False) -> Iterator[str]:
    """Render the first row of a CSV file of answers to texts, or to `pairs` of texts, from `stages` of a cascade."""
    yield ",".join((*TEXT_COLUMNS[: 1 + pairs], "label" if task == "single-label" else "labels"))
    for name in label_names:
        yield ","
        yield from _cell(f"probability_{name}", safe=False)
    yield ",truncated,stage\n" if stages else ",truncated\n"


def csv_row(text: Text, answer: Prediction, *, task: TaskName, safe: bool, stages: bool = False) -> Iterator[str]:
    """Render one answer as a row of CSV, in pieces; `safe` marks cells that a spreadsheet may take for formulas.

    `stages` says by which stage of a cascade. Several labels are a list in JSON, in one cell.
    """
    for part in parts_of(text):
        yield from _cell(part, safe=safe)
        yield ","
    several = json.dumps(answer.labels, ensure_ascii=False)
    yield from _cell(answer.label if task == "single-label" else several, safe=safe)
    yield "".join(f",{share:.6f}" for share in answer.probabilities.values())
    yield f",{str(answer.truncated).lower()}{f',{answer.stage}' if stages else ''}\n"


def _cell(text: str, *, safe: bool) -> Iterator[str]:
    """Yield a quoted cell. Every cell that begins with the mark `'` gets another, so that the mark can be taken off."""
    yield '"'
    if safe and FORMULA.match(text):
        yield "'"
    for piece in _slices(text):
        yield piece.replace('"', '""')
    yield '"'


def _slices(text: str) -> Iterator[str]:
    return (text[i : i + SLICE] for i in range(0, len(text), SLICE))


def open_new(path: Path) -> IO[bytes]:
    """Open a file to write and read it, without a buffer, so that what is written is known at any time."""
    return path.open("wb+", buffering=0)


@contextlib.contextmanager
def answer_file(path: Path, opener: Callable[[Path], IO[bytes]] = open_new) -> Iterator[AnswerFile]:
    """Open the file that answers are written to. It gets its name when it is whole.

    Args:
        path: the file.
        opener: opens it.

    Raises:
        UserError: it cannot be written, which is found before any work is done if it can be; or the work failed, and
            the message names the file with the answers so far.
    """
    answers = AnswerFile(path, opener)
    try:
        yield answers
    except UserError as error:
        raise type(error)(f"{error.message}{answers.keep()}", error.hint) from None
    except BaseException:  # Ctrl-C, for instance
        if kept := answers.keep():
            say(kept.removeprefix("; "))
        raise
    answers.finish()


class AnswerFile:
    """A file next to the one that is asked for; or, after it could not be written, one among temporary files.

    Args:
        path: the file that is asked for.
        opener: opens the other one.
    """

    def __init__(self, path: Path, opener: Callable[[Path], IO[bytes]]) -> None:
        check_output(path)
        self.path = path
        self._at = path.with_name(f".predict-{os.getpid()}{path.suffix}")
        _remove_leftovers(path)
        self._failure: OSError | None = None
        self._waiting = bytearray()
        self._written = 0
        try:
            self._file = opener(self._at)
            try_lock(self._file.fileno())  # for as long as it is open
        except OSError as error:
            raise UserError(f"cannot write `{path}`: {error.strerror}", "name a file in another folder") from None

    def write(self, text: str) -> None:
        """Write a piece of text."""
        self._waiting += text.encode()
        if len(self._waiting) >= SLICE:
            self._flush()

    def finish(self) -> None:
        """Give the file its name, or raise a UserError that says where the answers are instead."""
        self._flush()
        if self._failure is None:
            try:
                os.fsync(self._file.fileno())
                self._at.replace(self.path)
            except OSError as error:
                self._rescue(error)
        self._file.close()
        if self._failure is not None:
            raise UserError(
                f"cannot write `{self.path}`: {self._failure.strerror}; the answers are in `{self._at}`",
                "move them to where there is room",
            )

    def keep(self) -> str:
        """Keep what was written so far, if anything, and return what to say about it."""
        if not self._written and not self._waiting:
            self.discard()
            return ""
        self._flush()
        self._file.close()
        with contextlib.suppress(OSError):
            self._at = self._at.replace(self.path.with_name(f"{self.path.stem}.partial{self.path.suffix}"))
        return f"; the answers before are in `{self._at}`"

    def discard(self) -> None:
        """Remove what was written so far."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._at.unlink()

    def _flush(self) -> None:
        try:
            self._put(self._waiting)
        except OSError as error:
            self._rescue(error)
            self._put(self._waiting)
        self._written += len(self._waiting)
        self._waiting = bytearray()

    def _put(self, content: bytes | bytearray) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _rescue(self, error: OSError) -> None:
        """Go on in a temporary file, with what was written before."""
        if self._failure is not None:
            raise UserError(
                f"cannot write `{self.path}`: {error.strerror}; the answers before are in `{self._at}`",
                "free some space and run the command again",
            )
        self._failure = error
        descriptor, name = tempfile.mkstemp(prefix="answers-", suffix=self.path.suffix)
        with self._file as before:
            os.close(descriptor)
            self._file, left = open_new(Path(name)), self._written
            before.seek(0)
            while left:
                self._put(part := before.read(min(left, SLICE)))
                left -= len(part)
        with contextlib.suppress(OSError):
            self._at.unlink()
        self._at = Path(name)


def _remove_leftovers(output: Path) -> None:
    """Remove what earlier commands left that were killed: their files are locked by nobody."""
    for path in output.parent.iterdir():
        if re.fullmatch(rf"\.predict-[0-9]+{re.escape(output.suffix)}", path.name):
            with contextlib.suppress(OSError), open_regular(path) as file:
                if try_lock(file.fileno()):
                    path.unlink()


def check_output(path: Path) -> None:
    """Raise a UserError for a file that cannot be written, or should not be."""
    if path.suffix.lower() not in FILE_TYPES:
        raise UserError(f"cannot write `{path}`: unknown file type `{path.suffix}`", "give a `.csv` or a `.jsonl`")
    if not is_unicode(str(path)):
        raise UserError(f"cannot write `{path}`: its name is not valid UTF-8", "name another file")
    if not os.path.isdir(path.parent):  # noqa: PTH112  Path.is_dir raises for a name that is too long
        raise UserError(f"no folder `{path.parent}`", "make it first")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write `{path}`: {getattr(error, 'strerror', error)}", "name another file") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise UserError(f"cannot write `{path}`: it is {what}", "name another file")
