"""How a file of separated values is written: what separates its fields, and what a quotation mark means in it.

Both are found, not assumed. In a tab-separated file quotation marks are usually part of the texts, in the others they
enclose a field; a file of either kind can be the other way round. Where they only change a text, the usual meaning is
taken. Where they decide how many rows there are, there has to be evidence in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trainer.files.csv_rows import CsvError, Lines, parse_row

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
WINDOW = 2**16
"""Characters that are looked at to find how a file is written."""


def find_separator(beginning: Sequence[str]) -> str:
    """Return what separates the fields of a `.csv`: the character by which most rows have as many as the first.

    Raises:
        CsvError: two of them do so equally well.
    """
    shares = {separator: _share_alike(beginning, separator) for separator in SEPARATORS}
    best = max(shares.values())
    if best == 0:
        return ","
    found = [separator for separator, share in shares.items() if share == best]
    found = [separator for separator in found if not _is_of_texts(separator, beginning)] or found
    if len(found) > 1:
        names = " or ".join(SEPARATORS[separator] for separator in found)
        raise CsvError(1, f"cannot tell whether {names} separate the fields")
    return found[0]


def _is_of_texts(separator: str, lines: Sequence[str]) -> bool:
    """Return whether a character is always followed by a space, as in a sentence, or is the comma of a number."""
    alone = r",(?! )(?:(?<!\d,)|(?!\d))" if separator == "," else f"{re.escape(separator)}(?! )"
    return not any(re.search(alone, line) for line in lines)


def _share_alike(beginning: Sequence[str], separator: str) -> float:
    """Return the share of rows that have as many fields as the first, 0 where that is one."""
    rows = whole_rows(beginning, separator)
    first = next(rows, [])
    if len(first) < 2:
        return 0
    widths = [len(first), *map(len, rows)]
    return widths.count(widths[0]) / len(widths)


def whole_rows(beginning: Sequence[str], separator: str) -> Iterator[list[str]]:
    """Yield the rows that a beginning holds, up to the first that is cut off or wrongly quoted."""
    lines = Lines(iter(beginning))
    try:
        while lines.advance():
            if not lines.is_blank:
                yield parse_row(lines, separator)[0]
    except CsvError:
        return


def separated_rows(lines: Lines, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a file, each with the number of its last line; a blank line is none.

    Raises:
        CsvError: the quoting is wrong, or how many rows there are depends on what a quotation mark means.
    """
    quoting = Quoting(separator)
    blank = 0
    while lines.advance():
        if lines.is_blank:
            blank = blank or lines.number
            continue
        row = quoting.row(lines)
        if blank and quoting.width == 1:
            raise CsvError(blank, 'the line is blank: an empty text is written as `""`')
        blank = 0
        yield lines.number, row
        del row


@dataclass
class Quoting:
    """What quotation marks mean in a file, as far as it has been read."""

    separator: str
    width: int = 0
    """Fields in the first row."""
    prose: str = ""
    """A separator with a space behind it, where the first row has none: within a row, it is part of a text."""
    encloses: bool | None = None
    """Whether a quotation mark at the beginning of a field encloses it; None while the file has not shown it."""
    _line_end: str = field(default="", init=False)

    def row(self, lines: Lines) -> list[str]:
        """Return the fields of the row that begins with this line."""
        if not self.width and self.separator != "\t" and f"{self.separator} " not in lines.line:
            self.prose = f"{self.separator} "
        has_mark = self._has_mark(lines.line)
        if has_mark and self.encloses is None:
            self.encloses = self._judge(lines)
        is_literal = not has_mark or self.encloses is False
        row = self._literal(lines) if is_literal else parse_row(lines, self.separator)[0]
        self.width = self.width or len(row)
        return row

    def _has_mark(self, line: str) -> bool:
        return line.startswith('"') or f'{self.separator}"' in line

    def _literal(self, lines: Lines) -> list[str]:
        line = lines.line.rstrip("\r\n")
        row = line.split(self.separator)
        if self.width > len(row) and self._has_mark(line):
            raise CsvError(lines.number, "quotation marks enclose a field here, and are part of a text before")
        if not self._line_end:
            self._line_end = lines.line[len(line) :]
        elif self.width == 1 and lines.line.endswith("\r") and self._line_end.endswith("\n"):
            raise CsvError(lines.number, "a carriage return stands within the line")
        return row

    def _judge(self, lines: Lines) -> bool | None:
        """Return whether marks enclose fields; None where they usually do, and make no other rows."""
        if self.separator == "\t":
            return self._decide(lines)
        alone = Lines(iter([lines.line]))
        alone.advance()
        try:
            row, quoted = parse_row(alone, self.separator)
        except CsvError as error:
            return self._decide(lines) if error.is_open else None  # what else is wrong is raised where it is read
        signs = _Signs(self.width or len(row), self.separator, self.prose)
        signs.look_at([lines.line], row, quoted, is_header=not self.width)
        return signs.is_needed or signs.is_likely or None

    def _decide(self, lines: Lines) -> bool:
        """Return whether quotation marks enclose fields, by what follows."""
        ahead, is_all = lines.peek(WINDOW)
        window = [lines.line, *ahead]
        first = next(whole_rows(window, self.separator), None) or lines.line.split(self.separator)
        signs = _Signs(self.width or len(first), self.separator, self.prose)
        signs.collect(window, is_all=is_all, has_header=not self.width)
        is_tabs = self.separator == "\t"
        if is_tabs and signs.is_broken and not signs.is_needed:
            return False
        if signs.doubtful and not signs.is_needed:
            is_by_line = is_tabs and signs.width > 1  # each line has just as many tabs as it should
            if is_by_line == signs.is_likely:
                number = lines.number + signs.doubtful - 1
                raise CsvError(number, "a quotation mark opens here, and without it each line would be a row")
            return not is_by_line
        return signs.is_needed or signs.is_likely or not is_tabs


@dataclass
class _Signs:
    """What some lines of a file tell about its quotation marks."""

    width: int
    separator: str
    prose: str
    is_needed: bool = False
    """Some rows are whole only if quotation marks enclose fields, or those of the header do."""
    is_likely: bool = False
    """Marks are doubled within fields, or a column has all its fields within marks."""
    is_broken: bool = False
    """A field that begins with a mark does not end with one."""
    doubtful: int = 0
    """The first line of those that are one row, or a row each."""

    def collect(self, lines: Sequence[str], *, is_all: bool, has_header: bool) -> None:
        """Look at the next lines; `is_all` where nothing follows them, `has_header` where they begin the file."""
        rows = Lines(iter(lines))
        columns: list[set[int]] = []
        while rows.advance():
            start = rows.number
            if rows.is_blank:
                continue
            try:
                row, quoted = parse_row(rows, self.separator)
            except CsvError as error:
                self._stop(start, lines[start - 1 :], is_cut=error.is_open and not is_all)
                return
            of_row = lines[start - 1 : rows.number]
            self.look_at(of_row, row, quoted, is_header=has_header and not columns)
            self.doubtful = self.doubtful or start * (len(of_row) > 1 and self._fit(of_row))
            columns.append({i for i, is_quoted in enumerate(quoted) if is_quoted})
        self.is_likely |= len(columns) > 1 and bool(set.intersection(*columns))

    def look_at(self, lines: Sequence[str], row: list[str], quoted: list[bool], *, is_header: bool) -> None:
        """Look at one row, which stands on these lines if marks enclose fields."""
        is_only_so = any(quoted) and len(row) == self.width and not self._fit(lines)
        self.is_needed |= is_only_so or (is_header and all(quoted))
        self.is_likely |= any('"' in field for field, is_quoted in zip(row, quoted, strict=True) if is_quoted)

    def _stop(self, start: int, lines: Sequence[str], *, is_cut: bool) -> None:
        """Judge a row that is wrongly quoted, or that is longer than what was looked at."""
        if not is_cut:
            self.is_broken = True
        elif self._fit(lines):
            self.doubtful = self.doubtful or start
        else:
            self.is_needed = True

    def _fit(self, lines: Sequence[str]) -> bool:
        """Return whether each line is a whole row if its marks mean nothing."""
        return all(
            line.count(self.separator) + 1 == self.width
            and line.strip("\r\n")
            and not (self.prose and self.prose in line)
            for line in lines
        )
