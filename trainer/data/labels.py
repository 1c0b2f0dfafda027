"""What the cells of a column of labels mean, whatever file they come from and however several labels are written."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from trainer.errors import UserError

LONGEST_NUMBER = 100
"""Digits of a label that counts as a number; Python turns no more than some thousand into one."""
NUMBER = re.compile(rf"[+-]?\d{{1,{LONGEST_NUMBER}}}(?:[.,]\d+)?")
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""How a cell says whether a text has a label."""
SEPARATORS = ("|", ";", ",")
"""Of labels in one cell, in the order in which they are looked for."""
_LIST = re.compile(r"\[.*\]|\(\s*['\"].*\)|\{\s*['\"].*\}", re.DOTALL)
"""A cell that is meant to be a list, a tuple or a set."""
_ITEM = re.compile(r"""\s*(?:("(?:[^"\\]|\\.)*")|('(?:[^'\\]|\\.)*')|([^\s,'"\[\](){}]+))(?:\s*,|\s+|\Z)""", re.DOTALL)
_NOTHING = ("null", "None", "nan", "NaN")


def as_labels(values: Sequence[object], where: str, rows: Sequence[int] | None = None) -> list[str]:
    """Return the name of the class that each cell stands for, by its value: 1, 1.0, "1" and "1.0" are the same.

    A label that is missing is an empty name.

    Args:
        values: the cells.
        where: what messages call the table.
        rows: the row of each cell; None where each is in a row of its own.

    Raises:
        UserError: a cell is no name of a class, such as 1.5.
    """
    numbers = range(1, len(values) + 1) if rows is None else rows
    names = [_as_label(value, number, where) for value, number in zip(values, numbers, strict=True)]
    present = set(names) - {""}
    if {name.lower() for name in present} <= {"true", "false"}:
        return [name.capitalize() for name in names]
    if all(NUMBER.fullmatch(name) for name in present) and any("." in name or "," in name for name in present):
        return [_whole(name, number, where) if name else "" for name, number in zip(names, numbers, strict=True)]
    return names


def as_label_sets(
    columns: Sequence[str], rows: Sequence[Sequence[object]], separator: str | None, where: str
) -> tuple[list[tuple[str, ...]], str]:
    """Return the names of the labels that each text has, and how they are written.

    Args:
        columns: one with all labels of a text, or several, called like the labels, that say which of them it has.
        rows: the cells of these columns.
        separator: what is between two labels in a cell; None to find it.
        where: what messages call the table.

    Raises:
        UserError: a cell says nothing of the kind, or there is no such separator.
    """
    if len(columns) > 1:
        return [_flagged(columns, row, number, where) for number, row in enumerate(rows, 1)], "columns of 0 and 1"
    cells = [_unpacked(cell, number, where) for number, (cell,) in enumerate(rows, 1)]
    lists = [cell for cell in cells if isinstance(cell, list)]
    others = [str(cell) for cell in cells if not isinstance(cell, list) and cell != ""]
    found = separator or next((s for s in SEPARATORS if any(s in cell for cell in others)), None)
    if separator and not any(separator in cell for cell in others):
        raise UserError(f'no label of {where} has a "{separator}" in it', "leave out `--label-separator`")
    items = [cell if isinstance(cell, list) else _split(cell, found) for cell in cells]
    numbers = [number for number, row in enumerate(items, 1) for _ in row]
    names = iter(as_labels([item for row in items for item in row], where, numbers))  # by value, over all of them
    sets = [tuple(dict.fromkeys(name for _ in row if (name := next(names)))) for row in items]
    if not others:
        return sets, "lists"
    if max(map(len, sets)) < 2 and all(map(is_flag, others)):
        raise UserError(f"{where} has one column of 0 and 1", "name two or more of them, or leave out `--task`")
    if max(map(len, sets)) < 2:
        return sets, "no text has two: if something separates them, name it with `--label-separator`"
    return sets, f'separated by "{found}"' if found and not lists else "lists and single labels"


def is_flag(cell: object) -> bool:
    """Return whether a cell says that a text has a label, or that it has not."""
    return str(cell).strip().lower() in FLAGS


def _as_label(value: object, number: int, where: str) -> str:
    if value is None or value != value:  # not a number
        return ""
    if isinstance(value, str | int):
        return str(value).strip()
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, float | Decimal):
        raise _no_class(str(value), number, where)
    more = ", or add `--task multi-label`" if isinstance(value, list | tuple) else ""
    raise UserError(
        f"row {number} of {where} has a label that is not a name or an integer but `{type(value).__name__}`",
        f"give names or integers, or name another column with `--label-column`{more}",
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


def _flagged(columns: Sequence[str], row: Sequence[object], number: int, where: str) -> tuple[str, ...]:
    for column, value in zip(columns, row, strict=True):
        if not is_flag(value):
            raise UserError(
                f'row {number} of {where} has `{str(value)[:60]}` in the column "{column}", where 0 or 1 is expected',
                "fix or remove it, or name other columns with `--label-column`",
            )
    return tuple(c for c, value in zip(columns, row, strict=True) if FLAGS[str(value).strip().lower()])


def _unpacked(cell: object, number: int, where: str) -> object:
    """Return a cell as a list where it is one, or is written as one; nothing as an empty text."""
    if isinstance(cell, list | tuple):
        return [item for item in cell if item is not None and item == item]  # not a number
    if cell is None or cell != cell:
        return ""
    text = cell.strip() if isinstance(cell, str) else ""
    if not _LIST.fullmatch(text):
        return text if isinstance(cell, str) else cell
    try:
        return list(_items(text))
    except ValueError:
        raise UserError(
            f"row {number} of {where} has a list of labels that cannot be read: `{text[:60]}`",
            'write lists as in JSON: `["a", "b"]`',
        ) from None


def _items(text: str) -> Iterator[object]:
    """Yield the items of a list as JSON, Python or numpy writes it, which all differ in quotation marks and commas.

    Raises:
        ValueError: it is none of these.
    """
    position, end = 1, len(text) - 1
    while text[position:end].strip():
        found = _ITEM.match(text, position, end)
        if found is None:
            raise ValueError
        position = found.end()
        in_json, in_python, bare = found.groups()
        if bare in _NOTHING:
            continue
        if bare and not (NUMBER.fullmatch(bare.rstrip(".")) or is_flag(bare)):
            raise ValueError
        yield bare.rstrip(".") if bare else _string(in_json or in_python)


def _string(quoted: str) -> str:
    """Return what stands in quotation marks."""
    try:
        text = json.loads(quoted) if quoted.startswith('"') else ast.literal_eval(quoted)
    except SyntaxError:
        raise ValueError from None
    return str(text)


def _split(cell: object, separator: str | None) -> list[object]:
    if isinstance(cell, str) and separator:
        return [part for part in (piece.strip() for piece in cell.split(separator)) if part]
    return [cell] if cell != "" else []
