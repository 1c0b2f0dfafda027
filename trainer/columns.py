"""Which columns of a table hold the texts and the labels, and what their cells mean, whatever file they come from."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

from trainer.characters import is_unicode
from trainer.errors import UserError
from trainer.tables import Rows, listed

Kind = Literal["text", "label"]
USUAL: dict[Kind, tuple[str, ...]] = {
    "text": ("text", "review", "sentence", "content", "comment", "body", "message", "document", "tweet", "texts",
             "utterance", "question", "post", "description", "review_text", "comment_text"),
    "label": ("label", "labels", "sentiment", "class", "category", "target", "intent", "polarity", "rating", "stars",
              "topic", "emotion"),
}  # fmt: skip
"""The names to look for, the most usual first."""
FEWEST_ROWS = 10
"""In the beginning of a file, to tell by them what its columns hold."""
LONGEST_LABEL = 60
LONGEST_NUMBER = 100
"""Digits of a label that counts as a number; Python turns no more than some thousand into one."""
_NUMBER = re.compile(rf"[+-]?\d{{1,{LONGEST_NUMBER}}}(?:[.,]\d+)?")


def find_columns(rows: Rows, text: str | None, label: str | None) -> tuple[str, str]:
    """Return the columns of the texts and the labels; see `find_column`."""
    found = find_column(rows, "text", text)
    return found, find_column(rows, "label", label, taken=found)


def find_column(rows: Rows, kind: Kind, wanted: str | None, taken: str | None = None) -> str:
    """Return the column called `wanted`, or the first with a usual name, or the only one that looks like that kind.

    Raises:
        UserError: there is none; the hint lists those that there are, and the flag for this kind of column.
    """
    flag = f"`--{kind}-column`"
    names = [name for name in dict.fromkeys(rows.columns) if name]
    lower = {name.lower(): name for name in reversed(names)}
    found = wanted if wanted in names else None
    if wanted is None:
        found = next((lower[name] for name in USUAL[kind] if name in lower), None)
        if found is None and _begins_with_data(rows):
            hint = "write the names of the columns above it" + (", or add `--no-header`" if rows.flags else "")
            raise UserError(f"the first row of `{rows.name}` looks like data", hint)
        found = found or _only_one_alike(rows, kind, taken)
    if found is None and wanted is None:
        message = f"cannot tell which column of `{rows.name}` holds the {kind}s"
        rest = "; if these are data, add `--no-header`" if rows.flags and rows.is_headed else ""
        raise UserError(message, f"name it with {flag}; the file has {listed(names)}{rest}")
    if found is None:
        raise UserError(f"`{rows.name}` has no column `{wanted}`", f"it has {listed(names)}; name one with {flag}")
    if rows.columns.count(found) > 1:
        raise UserError(f"`{rows.name}` names a column twice: `{found}`", f"rename one, or name another with {flag}")
    return found


def _begins_with_data(rows: Rows) -> bool:
    """Return whether the names of the columns are no names: they are numbers, or values of their columns."""
    values = [{row[i] for row in rows.beginning if i < len(row)} for i in range(len(rows.columns))]
    return rows.is_headed and any(
        _NUMBER.fullmatch(name) or (name in found and len(values) > 1)
        for name, found in zip(rows.columns, values, strict=True)
        if name
    )


def _only_one_alike(rows: Rows, kind: Kind, taken: str | None) -> str | None:
    """Return the only column that looks like texts, or like labels, in the beginning of a file."""
    if len(rows.beginning) < FEWEST_ROWS:
        return None
    looks = _looks_like_texts if kind == "text" else _looks_like_labels
    found = [
        name
        for i, name in enumerate(rows.columns)
        if name and name != taken and looks([row[i] for row in rows.beginning if i < len(row) and row[i] is not None])
    ]
    return found[0] if len(found) == 1 else None


def _looks_like_texts(values: Sequence[Any]) -> bool:
    sentences = [value for value in values if isinstance(value, str) and len(value.split()) > 2]
    return len(set(sentences)) > 0.8 * len(values) > 0


def _looks_like_labels(values: Sequence[Any]) -> bool:
    if not all(isinstance(value, str | int | float) and len(str(value)) <= LONGEST_LABEL for value in values):
        return False
    return 2 <= len(set(values)) <= len(values) / 2


def as_text(value: object, number: int, where: str) -> str:
    """Return the text that a cell holds; numbers are texts, and nothing is an empty one.

    Raises:
        UserError: it holds no text, or one that is not valid Unicode; `number` is the row.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        if not is_unicode(value):
            raise UserError(f"text {number} of {where} is not valid Unicode", "fix or remove it")
        return value
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not is_finite:
        kind = type(value).__name__ if is_finite else value
        raise UserError(
            f"row {number} of {where} holds no text but `{kind}`",
            "give texts or numbers in this column, or name another with `--text-column`",
        )
    return str(value)


def as_labels(values: Sequence[object], where: str) -> list[str]:
    """Return the name of the class that each cell stands for, by its value: 1, 1.0, "1" and "1.0" are the same.

    A label that is missing is an empty name.

    Raises:
        UserError: a cell is no name of a class, such as 1.5.
    """
    names = [_as_label(value, number, where) for number, value in enumerate(values, 1)]
    present = set(names) - {""}
    if {name.lower() for name in present} <= {"true", "false"}:
        return [name.capitalize() for name in names]
    if all(_NUMBER.fullmatch(name) for name in present) and any("." in name or "," in name for name in present):
        return [_whole(name, number, where) if name else "" for number, name in enumerate(names, 1)]
    return names


def _as_label(value: object, number: int, where: str) -> str:
    if value is None or value != value:  # not a number
        return ""
    if isinstance(value, str | int):
        return str(value).strip()
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, float | Decimal):
        raise _no_class(str(value), number, where)
    raise UserError(
        f"row {number} of {where} has a label that is not a name or an integer but `{type(value).__name__}`",
        "give one label to each text, or name another column with `--label-column`",
    )


def _whole(name: str, number: int, where: str) -> str:
    whole, _, rest = name.replace(",", ".").partition(".")
    if rest.strip("0"):
        raise _no_class(name, number, where)
    return str(int(whole))


def _no_class(value: str, number: int, where: str) -> UserError:
    return UserError(
        f"row {number} of {where} has the label {value}, a number, not a class",
        "give integers or names, or name another column with `--label-column`",
    )
