"""CSV as Python's `csv.reader` reads it in strict mode, in a fourth of the memory.

`csv` keeps a field in four bytes a character and doubles its room whenever it is full: 50 MB of text took 600 MB.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator
from functools import cache

from trainer.limits import MAX_TEXT_CHARACTERS


class CsvError(Exception):
    """A line cannot be read, or can be read in two ways."""

    def __init__(self, line: int, reason: str, *, is_open: bool = False) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason
        self.is_open = is_open
        """Whether the text has ended within quotation marks."""


def csv_rows(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the number of its last line.

    Args:
        lines: the text in pieces that end with a line feed.
        delimiter: between two fields.

    Raises:
        CsvError: the quoting is wrong.
    """
    physical = Lines(lines)
    while physical.advance():
        if not physical.is_blank:
            row, _ = parse_row(physical, delimiter)
            yield physical.number, row
            del row


class Lines:
    """Lines that end with a line feed, a carriage return, or both."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = (part for line in lines for part in _split(line))
        self._ahead: deque[str] = deque()
        self.line = ""
        self.number = 0

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing in this line."""
        return self.line[0] in "\r\n"

    def advance(self) -> bool:
        """Go to the next line; return whether there is one."""
        self.line = ""
        self.line = self._ahead.popleft() if self._ahead else next(self._lines, "")
        self.number += bool(self.line)
        return bool(self.line)

    def peek(self, characters: int) -> tuple[list[str], bool]:
        """Return the next lines, of so many characters together, and whether there is nothing behind them."""
        size = sum(map(len, self._ahead))
        while size < characters:
            line = next(self._lines, "")
            if not line:
                return list(self._ahead), True
            self._ahead.append(line)
            size += len(line)
        return list(self._ahead), False


def _split(line: str) -> list[str]:
    if "\r" not in line:
        return [line]
    return re.findall(r"[^\r\n]*+(?:\r\n|\r|\n)|[^\r\n]++\Z", line)


@cache
def _unquoted(delimiter: str) -> re.Pattern[str]:
    return re.compile(f"[^{re.escape(delimiter)}\\r\\n]*")


def parse_row(physical: Lines, delimiter: str) -> tuple[list[str], list[bool]]:
    """Return the fields of the row that begins with this line, and which of them were in quotation marks."""
    row: list[str] = []
    quoted: list[bool] = []
    position = 0
    while True:
        quoted.append(physical.line.startswith('"', position))
        if quoted[-1]:
            field, position = _quoted(physical, position + 1)
        else:
            found = _unquoted(delimiter).match(physical.line, position)
            field, position = (found[0], found.end()) if found else ("", position)
        row.append(field)
        del field
        if not physical.line.startswith(delimiter, position):
            break
        position += 1
    if position < len(physical.line) and physical.line[position] not in "\r\n":
        raise CsvError(physical.number, f"'{delimiter}' expected after '\"'")
    return row, quoted


def _quoted(physical: Lines, position: int) -> tuple[str, int]:
    """Return a field from behind its opening quote on, and the position behind the closing one."""
    end = physical.line.find('"', position)
    if end >= 0 and not physical.line.startswith('""', end):
        return physical.line[position:end], end + 1
    first = physical.number
    content = io.StringIO(newline="")
    while content.tell() <= MAX_TEXT_CHARACTERS:
        end = physical.line.find('"', position)
        if end < 0:
            content.write(physical.line[position:] if position else physical.line)
            if not physical.advance():
                raise CsvError(first, "unexpected end of data: the quotation mark is never closed", is_open=True)
            position = 0
        elif physical.line.startswith('""', end):
            content.write(physical.line[position : end + 1])
            position = end + 2
        else:
            content.write(physical.line[position:end])
            return content.getvalue(), end + 1
    raise CsvError(first, f"a field has more than {MAX_TEXT_CHARACTERS:,} characters")
