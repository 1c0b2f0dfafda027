"""Objects of a JSON file, one after the other: one a line, or the items of one array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from trainer.errors import UserError
from trainer.limits import MAX_TEXT_CHARACTERS

_SPACE = re.compile(r"[ \t\r\n]*")
_UNFINISHED = 16
"""Characters from the end, within which the decoder notices that a text is cut off; no literal of JSON is longer."""
HINT = "give one JSON object a line, or one array of objects"

Placed = tuple[str, int, dict[str, Any]]
"""Where an object stands, how many characters it has, and its values."""


def json_objects(name: str, pieces: Iterator[str]) -> Iterator[Placed]:
    """Yield the objects of a file.

    Args:
        name: the file's, for messages.
        pieces: its text, in pieces that end with a line feed or are a part of a longer line.

    Raises:
        UserError: something is no object; the message names the line or the item.
    """
    beginning = []
    for piece in pieces:
        beginning.append(piece)
        if piece.strip():
            break
    is_array = bool(beginning) and beginning[-1].lstrip().startswith("[")
    pieces = chain(beginning, pieces)
    return _items(name, _Text(name, pieces)) if is_array else _of_lines(name, pieces)


def _of_lines(name: str, pieces: Iterator[str]) -> Iterator[Placed]:
    for number, line in enumerate(_whole_lines(name, pieces), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _not_json(name, where, error) from None
        size = len(line)
        del line
        yield where, size, _checked(name, where, values)


def _whole_lines(name: str, pieces: Iterator[str]) -> Iterator[str]:
    parts: list[str] = []
    size = 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > MAX_TEXT_CHARACTERS:
            raise _too_long(name)
        if piece.endswith("\n"):
            line = ["".join(parts)]
            parts, size = [], 0
            del piece
            yield line.pop()
    yield "".join(parts)


def _items(name: str, text: _Text) -> Iterator[Placed]:
    text.expect("[", "item 1")
    number = 0
    while text.next_character() != "]":
        if number:
            text.expect(",", f"item {number + 1}")
        number += 1
        where = f"item {number}"
        if text.next_character() != "{":
            raise UserError(f"{name} {where} is not an object", HINT)
        size, values = text.take_value(where)
        yield where, size, _checked(name, where, values)
        del values
    text.expect("]", f"item {number + 1}")
    if text.next_character():
        raise UserError(f"{name} goes on behind the end of its array", HINT)


class _Text:
    """The text of an array, of which only the next item is in memory."""

    def __init__(self, name: str, pieces: Iterator[str]) -> None:
        self._name = name
        self._pieces = pieces
        self._text = ""
        self._position = 0

    def next_character(self) -> str:
        """Go to the next character that is no white space, and return it; empty at the end."""
        while True:
            self._position = _end_of(_SPACE.match(self._text, self._position))
            if self._position < len(self._text) or not self._grow():
                return self._text[self._position : self._position + 1]

    def expect(self, character: str, where: str) -> None:
        """Go behind a character, or raise a UserError if it is not the next one."""
        if self.next_character() != character:
            raise UserError(f"{self._name} {where} is not JSON: `{character}` is expected before it", HINT)
        self._position += 1

    def take_value(self, where: str) -> tuple[int, Any]:
        """Return the next value and its length."""
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _UNFINISHED
                if not (is_cut and self._grow()):
                    raise _not_json(self._name, where, error) from None
            except (ValueError, RecursionError) as error:
                raise _not_json(self._name, where, error) from None
            else:
                size, self._position = end - self._position, end
                return size, value

    def _grow(self) -> bool:
        """Forget what was taken, and read as much again as is left; return whether there was more."""
        self._text, self._position = self._text[self._position :], 0
        if len(self._text) > MAX_TEXT_CHARACTERS:
            raise _too_long(self._name)
        parts = [self._text]
        wanted = 2 * len(self._text) + 1
        for piece in self._pieces:
            parts.append(piece)
            wanted -= len(piece)
            if wanted <= 0:
                break
        self._text = "".join(parts)
        return len(parts) > 1


def _end_of(found: re.Match[str] | None) -> int:
    return found.end() if found else 0


def _checked(name: str, where: str, values: object) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{name} {where} is not an object", HINT)
    return values


def _not_json(name: str, where: str, error: Exception) -> UserError:
    if isinstance(error, RecursionError):
        return UserError(f"{name} {where} is nested too deep", "give flat JSON objects")
    return UserError(f"{name} {where} is not JSON: {error}", HINT)


def _too_long(name: str) -> UserError:
    return UserError(f"{name} has an object of more than {MAX_TEXT_CHARACTERS:,} characters", "cut it")
