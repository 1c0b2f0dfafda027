"""Which columns of a table hold the texts and the labels, and what their cells mean, whatever file they come from."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

from trainer.characters import is_unicode
from trainer.config import TaskName
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
PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_1", "sentence_2"),
         ("sentence_a", "sentence_b"), ("text1", "text2"), ("text_1", "text_2"), ("text_a", "text_b"),
         ("text", "text_pair"), ("question1", "question2"), ("question", "passage"), ("question", "context"),
         ("question", "sentence"), ("question", "answer"), ("query", "passage"), ("query", "document"))  # fmt: skip
"""The names of columns that hold pairs of texts."""
FEWEST_ROWS = 10
"""In the beginning of a file, to tell by them what its columns hold."""
LONGEST_LABEL = 60
LONGEST_NUMBER = 100
"""Digits of a label that counts as a number; Python turns no more than some thousand into one."""
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""How a cell says whether a text has a label."""
SEPARATORS = ("|", ";", ",")
"""Of labels in one cell."""
LONGEST_LIST = 100_000
"""Characters of a cell that may be a list of labels."""
_NUMBER = re.compile(rf"[+-]?\d{{1,{LONGEST_NUMBER}}}(?:[.,]\d+)?")


def find_texts(rows: Rows, wanted: tuple[str, ...] | None, *, pairs: bool | None) -> tuple[str, ...]:
    """Return the column of the texts, or the two of pairs of texts.

    Args:
        rows: the table.
        wanted: what the user calls them; None for those with usual names.
        pairs: whether the reader needs pairs; None where the user decides that.

    Raises:
        UserError: there are no such columns, or it is not clear which.
    """
    named = _usual_pair(rows)
    if pairs is not None and wanted and len(wanted) != 1 + pairs:
        needs = "pairs of texts, from two columns" if pairs else "texts, from one column"
        raise UserError(f"this classifier reads {needs}", f"name {'both' if pairs else 'one'} with `--text-column`")
    if wanted:
        return tuple(find_column(rows, "text", name) for name in wanted)
    if pairs and named is None:
        names = listed(dict.fromkeys(filter(None, rows.columns)))
        message = f"cannot tell which columns of `{rows.name}` hold the pairs"
        raise UserError(message, f"{NAME_BOTH}; the file has {names}")
    if pairs and named:
        return tuple(find_column(rows, "text", name) for name in named)
    if named and pairs is None:
        found = next((name for name in rows.columns if name.lower() in USUAL["text"]), named[0])
        if found in named:
            raise UserError(
                f"`{rows.name}` may hold pairs of texts, in {listed(named)}",
                f"{NAME_BOTH}, or only one of them",
            )
    return (find_column(rows, "text", None),)


NAME_BOTH = "name both with `--text-column`, one after the other"


def _usual_pair(rows: Rows) -> tuple[str, str] | None:
    """Return the columns that usually hold pairs of texts, where there are such."""
    lower = {name.lower(): name for name in reversed(rows.columns)}
    return next(((lower[a], lower[b]) for a, b in PAIRS if a in lower and b in lower), None)


def find_labels(rows: Rows, wanted: tuple[str, ...] | None, taken: tuple[str, ...], task: TaskName) -> tuple[str, ...]:
    """Return the column of the labels, or several that say with 0 and 1 which labels a text has.

    Args:
        rows: the table.
        wanted: what the user calls them; None for a usual name, or for all that hold only 0 and 1.
        taken: columns that hold something else.
        task: whether several are possible.

    Raises:
        UserError: there are no such columns, or it is not clear which.
    """
    if wanted and len(wanted) > 1 and task == "single-label":
        raise UserError("several columns of labels are for `--task multi-label`", "add it, or name one column")
    if wanted:
        return tuple(find_column(rows, "label", name) for name in wanted)
    usual = any(name.lower() in USUAL["label"] for name in rows.columns)
    if task == "multi-label" and not usual and len(binary := _binary_columns(rows, taken)) > 1:
        return binary
    try:
        return (find_column(rows, "label", None, taken=taken),)
    except UserError as error:
        if task == "single-label" and len(_binary_columns(rows, taken)) > 1:
            raise UserError(error.message, f"{error.hint}, or add `--task multi-label`") from None
        raise


def _binary_columns(rows: Rows, taken: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that hold nothing but 0 and 1 in the beginning of a file, one of them both."""
    if len(rows.beginning) < FEWEST_ROWS:
        return ()
    found = {}
    for i, name in enumerate(rows.columns):
        values = {str(row[i]).lower() for row in rows.beginning if i < len(row)}
        if name and name not in taken and values <= FLAGS.keys():
            found[name] = values
    return tuple(found) if any(len(values) > 1 for values in found.values()) else ()


def find_column(rows: Rows, kind: Kind, wanted: str | None, taken: tuple[str, ...] = ()) -> str:
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


def _only_one_alike(rows: Rows, kind: Kind, taken: tuple[str, ...]) -> str | None:
    """Return the only column that looks like texts, or like labels, in the beginning of a file."""
    if len(rows.beginning) < FEWEST_ROWS:
        return None
    looks = _looks_like_texts if kind == "text" else _looks_like_labels
    found = [
        name
        for i, name in enumerate(rows.columns)
        if name
        and name not in taken
        and looks([row[i] for row in rows.beginning if i < len(row) and row[i] is not None])
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
        "give one label to each text, name another column with `--label-column`, or add `--task multi-label`",
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
        UserError: a cell says nothing of the kind.
    """
    if len(columns) > 1:
        return [_flagged(columns, row, number, where) for number, row in enumerate(rows, 1)], "columns of 0 and 1"
    cells = [_unpacked(cell) for (cell,) in rows]
    if all(isinstance(cell, list) for cell in cells if cell != ""):
        items, written = [cell if isinstance(cell, list) else [] for cell in cells], "lists"
    else:
        separator = separator or next((s for s in SEPARATORS if any(s in str(cell) for cell in cells)), None)
        items = [cell if isinstance(cell, list) else _split(cell, separator) for cell in cells]
        written = f'separated by "{separator}"' if separator else "one at most"
    flat = as_labels([item for row in items for item in row], where)  # by value, over all of them
    names = iter(flat)
    return [tuple(dict.fromkeys(name for _ in row if (name := next(names)))) for row in items], written


def _flagged(columns: Sequence[str], row: Sequence[object], number: int, where: str) -> tuple[str, ...]:
    for column, value in zip(columns, row, strict=True):
        if str(value).strip().lower() not in FLAGS:
            raise UserError(
                f'row {number} of {where} has `{str(value)[:60]}` in the column "{column}", where 0 or 1 is expected',
                "fix or remove it, or name other columns with `--label-column`",
            )
    return tuple(c for c, value in zip(columns, row, strict=True) if FLAGS[str(value).strip().lower()])


def _unpacked(cell: object) -> object:
    """Return a cell as a list where it is one, or is written as one in JSON or Python; nothing as an empty text."""
    if cell is None or cell != cell:  # not a number
        return ""
    if isinstance(cell, list | tuple):
        return list(cell)
    text = cell.strip() if isinstance(cell, str) else ""
    if text.startswith("[") and text.endswith("]") and len(text) <= LONGEST_LIST:
        try:
            return list(ast.literal_eval(text))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
    return text if isinstance(cell, str) else cell


def _split(cell: object, separator: str | None) -> list[object]:
    if isinstance(cell, str) and separator:
        return [part for part in (piece.strip() for piece in cell.split(separator)) if part]
    return [cell] if cell != "" else []
