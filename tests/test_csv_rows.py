"""CSV is read exactly as Python's own reader does in strict mode."""

from __future__ import annotations

import csv
import io

from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.files.csv_rows import CsvError, csv_rows

PARTS = ('"', '""', ",", "\n", "\r", "\r\n", "a", "é", " ", "\t", "\x00", "\u2028", "\x0c", "long word")


@settings(max_examples=500)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=30), delimiter=st.sampled_from(",\t"))
@example(parts=['"', "a", '"', "a"], delimiter=",")
@example(parts=["a", '"', ",", "\r", "a"], delimiter=",")
def test_rows_and_errors_are_those_of_the_standard_library(parts: list[str], delimiter: str) -> None:
    text = "".join(parts)
    expected: list[list[str]] | None
    try:
        expected = list(filter(None, csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)))
    except csv.Error:
        expected = None
    try:
        found = [row for _, row in csv_rows(iter(lines(text)), delimiter)]
    except CsvError:
        found = None
    assert found == expected


def lines(text: str) -> list[str]:
    """The text in pieces that end with a line feed."""
    return [line + "\n" for line in text.split("\n")[:-1]] + [rest for rest in text.split("\n")[-1:] if rest]


def test_a_row_has_the_number_of_its_last_line() -> None:
    text = 'a,b\n"two\nlines",c\r\n\nd,e'
    assert list(csv_rows(iter(lines(text)), ",")) == [(1, ["a", "b"]), (3, ["two\nlines", "c"]), (5, ["d", "e"])]
