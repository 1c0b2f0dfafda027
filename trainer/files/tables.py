"""Tables read from CSV, TSV, JSON and Parquet files, row by row.

The standard library reads them (pyarrow reads Parquet), not a data-frame library: a deployed classifier reads its input
with the same code and needs nothing more, and no text such as "NA" becomes a missing value.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from trainer.errors import UserError
from trainer.files.csv_rows import CsvError, Lines
from trainer.files.dialect import SEPARATORS, WINDOW, find_separator, separated_rows, whole_rows
from trainer.files.json_rows import json_objects
from trainer.limits import MAX_TEXT_CHARACTERS, open_regular

FILE_TYPES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
SEPARATOR_LINE = re.compile(r"sep=([,;|\t])[\r\n]*")
"""The first line of a file for Excel, which is none of the table."""
PACKED = (".gz", ".zst")
"""What all of these but Parquet may be packed in, as in `.csv.gz`."""
PARQUET_ROWS = 256
"""That are in memory at a time, and as many bytes of a column as `PARQUET_BYTES`."""
PARQUET_BYTES = 2**20
SAMPLE_ROWS = 200
"""At most, in the beginning of a file."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Reading:
    """What the user says about text files, where a command has the flags for it."""

    encoding: str = "utf-8"
    no_header: bool = False

    def __post_init__(self) -> None:
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            message = f"`--encoding {self.encoding}` is not known"
            raise UserError(message, "give one such as `utf-16` or `windows-1252`") from None


@dataclass(frozen=True)
class Rows:
    """A table that is open: the names of its columns, and its rows, which can be read once."""

    name: str
    columns: tuple[str, ...]
    """Those of a file may be repeated or empty."""
    read: Callable[[Sequence[str]], Iterator[Row]]
    """Yields the values of those columns, row by row, or raises a UserError that names the line."""
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What the integers in some columns stand for."""
    beginning: tuple[Row, ...] = ()
    """Some rows, where they are known before they are read; they may be shorter than `columns`."""
    written: tuple[str, ...] = ()
    """What was found about the file, in words."""
    is_headed: bool = False
    """Whether the first row of a file gave the columns their names."""
    flags: bool = False
    """Whether the command has the flags of `Reading`."""


def file_type(path: Path) -> str:
    """Return which of `FILE_TYPES` the name of a file says, also of a packed one; empty for any other."""
    kinds = [suffix.lower() for suffix in path.suffixes[-2:]]
    if kinds and kinds[-1] in FILE_TYPES:
        return kinds[-1]
    is_packed = len(kinds) == 2 and kinds[1] in PACKED and kinds[0] in FILE_TYPES and kinds[0] != ".parquet"
    return kinds[0] if is_packed else ""


def open_rows(path: Path, reading: Reading | None = None) -> Rows:
    """Open a CSV, TSV, JSON or Parquet file.

    Args:
        path: the file; all kinds but Parquet may be packed as `.gz` or `.zst`.
        reading: what the user says about it; None where the command has no flags for that.

    Raises:
        UserError: the file is missing, of another type, not in its encoding, or malformed in its beginning.
    """
    kind = file_type(path)
    if not os.path.exists(path):  # noqa: PTH110  Path.exists raises for a name that is too long
        raise UserError(f"no file `{path}`", f"give the path of a file: {listed(FILE_TYPES)}")
    try:
        file = open_regular(path, limit=2**63)
    except IsADirectoryError:
        raise UserError(f"`{path}` is a folder", f"give the path of a file: {listed(FILE_TYPES)}") from None
    except OSError as error:
        hint = "give a regular file; texts from a pipe are read from standard input, one a line"
        raise UserError(f"cannot read `{path}`: {error.strerror or error}", hint) from None
    if not kind:
        file.close()
        raise UserError(
            f"cannot read `{path}`: unknown file type `{path.suffix}`",
            f"give one of {listed(FILE_TYPES)}, all but the last also packed: {listed(PACKED)}",
        )
    if reading and reading.no_header and kind not in (".csv", ".tsv"):
        file.close()
        raise UserError(f"`{path}` names its columns itself", "leave out `--no-header`, which is for CSV and TSV")
    if kind == ".parquet":
        file.close()
        rows = _open_parquet(path)
    else:
        content = _unpacked(path, file)
        is_json = kind not in (".csv", ".tsv")
        rows = _open_json(path, content, reading) if is_json else _open_csv(path, content, kind, reading)
    if not rows.columns:
        raise _empty(path)
    return rows


def read_table(path: Path) -> dict[str, list[Any]]:
    """Read the columns of a whole file.

    Raises:
        UserError: the file is missing, empty, of another type, not UTF-8, or malformed; the message names the line.
    """
    rows = open_rows(path)
    columns: dict[str, list[Any]] = {name: [] for name in rows.columns}
    for row in not_empty(rows.name, rows.read(rows.columns)):
        for values, value in zip(columns.values(), row, strict=True):
            values.append(value)
    return columns


def not_empty(name: str | Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Return the rows, or raise a UserError if there are none."""
    try:
        first = next(rows)
    except StopIteration:
        raise _empty(name) from None
    return chain([first], rows)


def _empty(name: str | Path) -> UserError:
    return UserError(f"`{name}` is empty", "give a file with a header and at least one row")


def _unpacked(path: Path, file: BinaryIO) -> BinaryIO:
    """Return the content of a file that may be packed."""
    kind = path.suffix.lower()
    if kind == ".gz":
        return cast(BinaryIO, _Unzipped(file))
    if kind != ".zst":
        return file
    try:
        import pyarrow
    except ModuleNotFoundError:
        file.close()
        raise UserError(
            f"reading `{path}` needs pyarrow", "`pip install pyarrow`, or unpack it with `unzstd`"
        ) from None
    return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"))


class _Unzipped(gzip.GzipFile):
    """The content of a `.gz`, with which the file is closed."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file)
        self._packed = file

    def close(self) -> None:
        """Close both."""
        super().close()
        self._packed.close()


def decoded_lines(file: BinaryIO, name: str, reading: Reading | None = None, size: int = 0) -> Iterator[str]:
    """Yield the lines of a text file with their line feeds, which alone end them.

    Args:
        file: the file, which is closed at the end.
        name: what it is called in messages.
        reading: its encoding, UTF-8 where it is None.
        size: the largest piece of a line to yield, in bytes or characters; 0 for whole lines.

    Raises:
        UserError: the file is not in that encoding, or cannot be read.
    """
    encoding = reading.encoding if reading else "utf-8"
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    return _utf8_lines(file, name, size, reading) if is_utf8 else _other_lines(file, name, size, encoding)


def _utf8_lines(file: BinaryIO, name: str, size: int, reading: Reading | None) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    offset = 0
    with file:
        while True:
            line = _next_line(file, name, size)
            pending = len(decoder.getstate()[0])
            try:
                decoded = [decoder.decode(line, final=not line)]
            except UnicodeDecodeError as error:
                is_wide = offset == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                raise _not_utf8(name, offset - pending + error.start, reading, is_wide=is_wide) from None
            offset += len(line)
            if not line:
                return
            del line  # a line may be large: it is not kept while its reader is at work
            if decoded[0]:
                yield decoded.pop()


def _not_utf8(name: str, offset: int, reading: Reading | None, *, is_wide: bool) -> UserError:
    if is_wide:
        hint = "add `--encoding utf-16`" if reading else "convert it with `iconv --from-code=UTF-16`"
        return UserError(f"{name} is UTF-16, and not valid UTF-8", hint)
    flag = "add its encoding, such as `--encoding windows-1252` for Western Europe, or " if reading else ""
    return UserError(f"{name} is not valid UTF-8 at byte {offset}", f"{flag}convert it with `iconv`")


def _other_lines(file: BinaryIO, name: str, size: int, encoding: str) -> Iterator[str]:
    with io.TextIOWrapper(cast(IO[bytes], file), encoding, newline="\n") as reader:
        while line := _next_line(reader, name, size):
            yield line


def _next_line(file: Any, name: str, size: int) -> Any:
    """Return the next line as bytes or text, or the next part of one, if it can be read."""
    try:
        line = file.readline(size or MAX_TEXT_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not valid {error.encoding}: {error.reason}", "give another `--encoding`") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}", "check the file") from None
    if len(line) > MAX_TEXT_CHARACTERS:
        raise UserError(f"{name} has a line of more than {MAX_TEXT_CHARACTERS:,} characters", "cut it")
    return line


def _open_csv(path: Path, file: BinaryIO, kind: str, reading: Reading | None) -> Rows:
    name = f"`{path}`"
    lines = Lines(decoded_lines(file, name, reading))
    beginning, _ = lines.peek(WINDOW)
    told = SEPARATOR_LINE.fullmatch(beginning[0]) if beginning else None
    if told:
        lines.advance()
        beginning = beginning[1:]
    no_header = bool(reading and reading.no_header)
    try:
        separator = told[1] if told else "\t" if kind == ".tsv" else find_separator(beginning)
    except CsvError as error:
        raise _unclear(name, error) from None
    numbered = _in_words(name, separated_rows(lines, separator))
    first = next(numbered, None)
    if first is None:
        raise _empty(path)
    is_small = sum(map(len, beginning)) < 2 * WINDOW  # or else a text of many megabytes would be kept
    sample = [tuple(row) for row in islice(whole_rows(beginning, separator), SAMPLE_ROWS)] if is_small else []
    if no_header:
        columns = tuple(str(number) for number in range(1, len(first[1]) + 1))
        numbered = chain([first], numbered)
    else:
        columns = tuple(column.strip() for column in first[1])
        sample = sample[1:]
    shape = _Shape(name, columns, {len(row) for row in sample})

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        places = [columns.index(column) for column in wanted]
        for number, row in numbered:
            shape.check(number, row, max(places))
            yield tuple(row[i] for i in places)

    separated = f"separated by {SEPARATORS[separator]}" if len(columns) > 1 else "one column"
    written = (separated, "no header") if no_header else (separated,)
    return Rows(str(path), columns, read, {}, tuple(sample), written, not no_header, reading is not None)


def _in_words(name: str, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from rows
    except CsvError as error:
        raise _unclear(name, error) from None


def _unclear(name: str, error: CsvError) -> UserError:
    hint = "check the quoting; in a file with every field in quotation marks, the header too, all is clear"
    return UserError(f"{name} line {error.line}: {error.reason}", hint)


class _Shape:
    """How many fields a row may have.

    Those that nobody asked for may be missing at the end, and empty ones may follow. A text that goes on in the next
    line without being quoted looks like two such rows, and is refused.
    """

    def __init__(self, name: str, columns: Sequence[str], widths: set[int]) -> None:
        self._name = name
        self._header = len(columns)
        self._usual = min(widths) if len(widths) == 1 else len(columns)
        self._joined = 0
        """Fields of the short rows before, if they were one row."""

    def check(self, number: int, row: Sequence[str], last: int) -> None:
        """Raise a UserError if a row, that ends on this line, is none of a table in which `last` is needed."""
        is_short = len(row) < min(self._usual, self._header)
        self._joined = (self._joined + len(row) - bool(self._joined)) if is_short else 0
        is_part = is_short and (len(row) == 1 or self._joined == self._header)
        if is_part or len(row) <= last or any(row[self._header :]):
            raise UserError(
                f"{self._name} line {number}: {len(row)} fields, the header has {self._header}",
                "quote fields that hold the separator or a line break",
            )


def _open_json(path: Path, file: BinaryIO, reading: Reading | None) -> Rows:
    name = f"`{path}`"
    objects = json_objects(name, decoded_lines(file, name, reading, WINDOW))
    ahead: deque[tuple[str, dict[str, Any]]] = deque()
    seen = 0
    for where, size, values in objects:
        ahead.append((where, values))
        seen += size
        if seen > WINDOW or len(ahead) == SAMPLE_ROWS:
            break
    columns = tuple(dict.fromkeys(key for _, values in ahead for key in values))
    sample = [tuple(map(values.get, columns)) for _, values in ahead] if seen <= 2 * WINDOW else []

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        while ahead:
            yield _picked(name, *ahead.popleft(), wanted)
        for where, _, values in objects:
            yield _picked(name, where, values, wanted)

    return Rows(str(path), columns, read, beginning=tuple(sample), flags=reading is not None)


def _picked(name: str, where: str, values: dict[str, Any], wanted: Sequence[str]) -> Row:
    for column in wanted:
        if column not in values:
            raise UserError(f"{name} {where} has no `{column}`", "give every object one, or remove those without")
    return tuple(values[column] for column in wanted)


def _open_parquet(path: Path) -> Rows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UserError(f"reading `{path}` needs pyarrow", "`pip install pyarrow`, or give a CSV file") from None

    failures = (pyarrow.ArrowException, OSError, ValueError, OverflowError)
    try:
        # Without these, whole row groups are kept in memory.
        parquet = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BYTES)
        schema = parquet.schema_arrow
    except failures as error:
        raise UserError(f"`{path}` is not a Parquet file: {_first_line(error)}", "check the file") from None

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        try:
            for group in range(parquet.num_row_groups):
                for columns in _columns_of_group(parquet, group, wanted):
                    yield from zip(*columns, strict=True)
        except failures as error:
            raise UserError(f"`{path}` is damaged: {_first_line(error)}", "check the file") from None

    return Rows(str(path), tuple(schema.names), read, _class_names(schema.metadata))


def _columns_of_group(parquet: Any, group: int, wanted: Sequence[str]) -> Iterator[list[list[Any]]]:
    """Yield the values of columns, some rows at a time."""
    import pyarrow

    left = parquet.metadata.row_group(group).num_rows
    batches = parquet.iter_batches(PARQUET_ROWS, row_groups=[group], columns=list(wanted))
    while left > 0:
        batch = next(batches, None)
        if batch is None:
            raise ValueError(f"{left} rows are missing")
        left -= len(batch)
        columns = [batch.column(name).to_pylist() for name in wanted]
        del batch
        if left <= 0:
            del batches  # it keeps all that it has decoded, which may be one text of many megabytes
            pyarrow.default_memory_pool().release_unused()
        yield columns


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names that the `datasets` library leaves in its Parquet files; {} for anything else."""
    try:
        written = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = written["info"]["features"]
        names = {column: feature["names"] for column, feature in features.items() if "names" in feature}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return {}
    return {column: tuple(known) for column, known in names.items() if _are_names(known)}


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def listed(names: Iterable[str]) -> str:
    """Return names as a message lists them."""
    return ", ".join(f"`{name}`" for name in names)
