"""Which columns of a table hold the texts and the labels, and what their cells mean, whatever file they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

from trainer.config import TaskName
from trainer.data.labels import NUMBER, is_flag
from trainer.errors import UserError
from trainer.files.tables import Rows, listed
from trainer.text.characters import is_unicode

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
FLAGS_SHARE = 0.9
"""Of the cells of a column, for it to be one that says which texts have a label."""
FEWEST_ROWS = 10
"""In the beginning of a file, to tell by them what its columns hold."""
LONGEST_LABEL = 60


def find_texts(
    rows: Rows, wanted: tuple[str, ...] | None, *, pairs: bool | None, trained: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the column of the texts, or the two of pairs of texts.

    Args:
        rows: the table.
        wanted: what the user calls them; None for those with usual names.
        pairs: whether the reader needs pairs; None where the user decides that.
        trained: what they were called in training; where they are, no others are looked for.

    Raises:
        UserError: there are no such columns, or it is not clear which.
    """
    if pairs is not None and wanted and len(wanted) != 1 + pairs:
        needs = "pairs of texts, from two columns" if pairs else "texts, from one column"
        raise UserError(f"this classifier reads {needs}", f"name {'both' if pairs else 'one'} with `--text-column`")
    if wanted or (trained and {*trained} <= {*rows.columns}):
        return tuple(find_column(rows, "text", name) for name in wanted or trained)
    usual = _usual_pair(rows)
    if pairs and usual:
        return tuple(find_column(rows, "text", name) for name in usual)
    if pairs:
        names = listed(dict.fromkeys(filter(None, rows.columns)))
        message = f"cannot tell which columns of `{rows.name}` hold the pairs"
        raise UserError(message, f"{NAME_BOTH}; the file has {names}")
    if usual and pairs is None:
        lower = {name.lower() for name in rows.columns}
        found = next((name for name in USUAL["text"] if name in lower), usual[0])
        if found in map(str.lower, usual):
            message = f"`{rows.name}` may hold pairs of texts, in {listed(usual)}"
            raise UserError(message, f"{NAME_BOTH}, or only one of them")
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
    """Return the columns that hold 0 and 1 in the beginning of a file; an odd cell is found when its row is read."""
    if len(rows.beginning) < FEWEST_ROWS:
        return ()
    found = {}
    for i, name in enumerate(rows.columns):
        values = [row[i] for row in rows.beginning if i < len(row)]
        flags = [str(value).strip().lower() for value in values if is_flag(value)]
        if name and name not in taken and len(flags) >= FLAGS_SHARE * len(values):
            found[name] = set(flags)
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
        NUMBER.fullmatch(name) or (name in found and len(values) > 1)
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
