"""Tables read from CSV, TSV, JSON Lines and Parquet files.

The standard library reads them (pyarrow reads Parquet), not a data-frame library: a deployed classifier reads its input
with the same code and needs nothing more, and no text such as "NA" becomes a missing value.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import UserError

FILE_TYPES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class Table:
    """One file or split: its columns, and what the integers in some of them stand for."""

    name: str
    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_table(path: Path) -> Table:
    """Read a CSV, TSV, JSON Lines or Parquet file.

    Raises:
        UserError: the file is missing, empty, of another type, not UTF-8, or malformed; the message names the line.
    """
    if not path.is_file():
        what = f"`{path}` is a folder" if path.is_dir() else f"no file `{path}`"
        raise UserError(what, f"give the path of a file: {listed(FILE_TYPES)}")
    kind = path.suffix.lower()
    if kind not in FILE_TYPES:
        raise UserError(f"cannot read `{path}`: unknown file type `{path.suffix}`", f"give one of {listed(FILE_TYPES)}")
    try:
        table = _read_parquet(path) if kind == ".parquet" else _read_text(path, kind)
    except UnicodeDecodeError as error:
        raise UserError(
            f"`{path}` is not valid UTF-8 at byte {error.start}", "save it as UTF-8, for example with `iconv`"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read `{path}`: {error.strerror or error}", "check the file") from None
    if not table.columns or not next(iter(table.columns.values())):
        raise UserError(f"`{path}` is empty", "give a file with a header and at least one row")
    return table


def _read_text(path: Path, kind: str) -> Table:
    text = path.read_bytes().decode("utf-8-sig")  # as bytes, so that no line break is translated
    return Table(str(path), _parse_csv(path, text, kind) if kind in (".csv", ".tsv") else _parse_json_lines(path, text))


def _parse_csv(path: Path, text: str, kind: str) -> dict[str, list[Any]]:
    csv.field_size_limit(sys.maxsize)  # a text may be longer than the 128 KiB that csv allows by default
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter="\t" if kind == ".tsv" else ",")
    try:
        header = next(reader, [])
        columns: dict[str, list[Any]] = {name.strip(): [] for name in header}
        if len(columns) != len(header):
            raise UserError(f"`{path}` names a column twice", "give every column a name of its own")
        for row in filter(None, reader):
            if len(row) != len(header):
                raise UserError(
                    f"`{path}` line {reader.line_num}: {len(row)} fields, the header has {len(header)}",
                    "quote fields that hold the separator or a line break",
                )
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    except csv.Error as error:
        raise UserError(f"`{path}` line {reader.line_num}: {error}", "check the quoting") from None
    return columns


def _parse_json_lines(path: Path, text: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"`{path}` line {number} is not JSON: {error}", "give one JSON object a line") from None
        if not isinstance(row, dict) or (columns and row.keys() != columns.keys()):
            raise UserError(f"`{path}` line {number} has other fields than line 1", "give every line the same fields")
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UserError(f"reading `{path}` needs pyarrow", "`pip install pyarrow`, or give a CSV file") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"`{path}` is not a Parquet file: {str(error).splitlines()[0]}", "check the file") from None
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(str(path), columns, _class_names(table.schema.metadata))


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names that the `datasets` library leaves in the Parquet files it writes."""
    written = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = written.get("info", {}).get("features", {})
    return {column: tuple(feature["names"]) for column, feature in features.items() if "names" in feature}


def find_column(table: Table, wanted: str | None, usual: tuple[str, ...], kind: str) -> str:
    """Return the column called `wanted`, or else the first that has one of the `usual` names, ignoring case.

    Raises:
        UserError: there is none; the hint lists those that there are, and the flag for this kind of column.
    """
    if wanted is not None:
        if wanted in table.columns:
            return wanted
        raise UserError(f"`{table.name}` has no column `{wanted}`", f"it has {listed(table.columns)}")
    lower = {name.lower(): name for name in table.columns}
    column = next((lower[name] for name in usual if name in lower), None)
    if column is None:
        raise UserError(
            f"cannot tell which column of `{table.name}` holds the {kind}s",
            f"name it with `--{kind}-column`; the file has {listed(table.columns)}",
        )
    return column


def listed(names: Iterable[str]) -> str:
    """Return names as a message lists them."""
    return ", ".join(f"`{name}`" for name in names)
