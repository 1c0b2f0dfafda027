"""Tables read from CSV, TSV, JSON Lines and Parquet files, row by row.

The standard library reads them (pyarrow reads Parquet), not a data-frame library: a deployed classifier reads its input
with the same code and needs nothing more, and no text such as "NA" becomes a missing value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from trainer.csv_rows import CsvError, csv_rows
from trainer.errors import UserError
from trainer.limits import open_regular

FILE_TYPES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PARQUET_ROWS = 256
"""That are in memory at a time, and as many bytes of a column as `PARQUET_BYTES`."""
PARQUET_BYTES = 2**20

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """One file or split: its columns, and what the integers in some of them stand for."""

    name: str
    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """A file that is open: the names of its columns, and its rows, which can be read once."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[Row]]
    """Yields the values of those columns, row by row, or raises a UserError that names the line."""
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


def open_rows(path: Path) -> Rows:
    """Open a CSV, TSV, JSON Lines or Parquet file.

    Raises:
        UserError: the file is missing, of another type, not UTF-8, or malformed in its beginning.
    """
    kind = path.suffix.lower()
    if not os.path.exists(path):  # noqa: PTH110  Path.exists raises for a name that is too long
        raise UserError(f"no file `{path}`", f"give the path of a file: {listed(FILE_TYPES)}")
    try:
        file = open_regular(path, limit=2**63)
    except IsADirectoryError:
        raise UserError(f"`{path}` is a folder", f"give the path of a file: {listed(FILE_TYPES)}") from None
    except OSError as error:
        hint = "give a regular file; texts from a pipe are read from standard input, one a line"
        raise UserError(f"cannot read `{path}`: {error.strerror or error}", hint) from None
    if kind not in FILE_TYPES:
        file.close()
        raise UserError(f"cannot read `{path}`: unknown file type `{path.suffix}`", f"give one of {listed(FILE_TYPES)}")
    if kind == ".parquet":
        file.close()
        rows = _open_parquet(path)
    else:
        rows = _open_csv(path, file) if kind in (".csv", ".tsv") else _open_json_lines(path, file)
    if not rows.columns:
        raise _empty(path)
    return rows


def read_table(path: Path) -> Table:
    """Read a whole CSV, TSV, JSON Lines or Parquet file.

    Raises:
        UserError: the file is missing, empty, of another type, not UTF-8, or malformed; the message names the line.
    """
    rows = open_rows(path)
    columns: dict[str, list[Any]] = {name: [] for name in rows.columns}
    for row in not_empty(path, rows.read(rows.columns)):
        for values, value in zip(columns.values(), row, strict=True):
            values.append(value)
    return Table(rows.name, columns, rows.class_names)


def not_empty(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Return the rows, or raise a UserError if there are none."""
    try:
        first = next(rows)
    except StopIteration:
        raise _empty(path) from None
    return chain([first], rows)


def _empty(path: Path) -> UserError:
    return UserError(f"`{path}` is empty", "give a file with a header and at least one row")


def decoded_lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Yield the lines of a file of UTF-8 with their line feeds, which alone end them.

    Raises:
        UserError: a byte is not UTF-8, or the file cannot be read.
    """
    offset = 0
    with file:
        while line := _next_line(file, name):
            try:
                decoded = [line.decode("utf-8-sig" if offset == 0 else "utf-8")]
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{name} is not valid UTF-8 at byte {offset + error.start}", "convert it with `iconv`"
                ) from None
            offset += len(line)
            del line  # a line may be large: it is not kept while its reader is at work
            yield decoded.pop()


def _next_line(file: BinaryIO, name: str) -> bytes:
    try:
        return file.readline()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}", "check the file") from None


def _open_csv(path: Path, file: BinaryIO) -> Rows:
    name = f"`{path}`"
    rows = csv_rows(decoded_lines(file, name), "\t" if path.suffix.lower() == ".tsv" else ",")

    def numbered() -> Iterator[tuple[int, list[str]]]:
        try:
            yield from rows
        except CsvError as error:
            raise UserError(f"{name} line {error.line}: {error.reason}", "check the quoting") from None

    lines = numbered()
    _, header = next(lines, (0, []))
    columns = tuple(column.strip() for column in header)
    if len(set(columns)) != len(columns):
        raise UserError(f"{name} names a column twice", "give every column a name of its own")

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        places = [columns.index(column) for column in wanted]
        for number, row in lines:
            if len(row) != len(columns):
                raise UserError(
                    f"{name} line {number}: {len(row)} fields, the header has {len(columns)}",
                    "quote fields that hold the separator or a line break",
                )
            yield tuple(row[i] for i in places)

    return Rows(str(path), columns, read)


def _open_json_lines(path: Path, file: BinaryIO) -> Rows:
    objects = _json_objects(f"`{path}`", decoded_lines(file, f"`{path}`"))
    first = next(objects, None)

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        nonlocal first
        if first is not None:
            row, first = tuple(first[column] for column in wanted), None
            yield row
            del row
        for values in objects:
            yield tuple(values[column] for column in wanted)

    return Rows(str(path), tuple(first or ()), read)


def _json_objects(name: str, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    columns = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{name} line {number} is not JSON: {error}", "give one JSON object a line") from None
        except RecursionError:
            raise UserError(f"{name} line {number} is nested too deep", "give one flat JSON object a line") from None
        if not isinstance(row, dict) or (columns is not None and row.keys() != columns):
            raise UserError(f"{name} line {number} has other fields than line 1", "give every line the same fields")
        columns = columns or set(row)
        del line
        yield row


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
    if len(set(schema.names)) != len(schema.names):
        raise UserError(f"`{path}` names a column twice", "give every column a name of its own")

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
    while left > 0 and (batch := next(batches, None)) is not None:
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


def find_column(name: str, columns: Collection[str], wanted: str | None, usual: tuple[str, ...], kind: str) -> str:
    """Return the column called `wanted`, or else the first that has one of the `usual` names, ignoring case.

    Args:
        name: the file's or the split's, for messages.
        columns: those that it has.
        wanted: the column that the user named.
        usual: the names to look for.
        kind: what is in the column; its flag is called after it.

    Raises:
        UserError: there is none; the hint lists those that there are, and the flag for this kind of column.
    """
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise UserError(f"`{name}` has no column `{wanted}`", f"it has {listed(columns)}")
    lower = {column.lower(): column for column in columns}
    found = next((lower[column] for column in usual if column in lower), None)
    if found is None:
        raise UserError(
            f"cannot tell which column of `{name}` holds the {kind}s",
            f"name it with `--{kind}-column`; the file has {listed(columns)}",
        )
    return found


def listed(names: Iterable[str]) -> str:
    """Return names as a message lists them."""
    return ", ".join(f"`{name}`" for name in names)
