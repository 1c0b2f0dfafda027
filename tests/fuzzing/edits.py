"""Edits of good files by a fuzzer's bytes: most of what is made of nothing is refused by the first check."""

from __future__ import annotations

import copy
import math
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 2**63, -(2**64), 10**400, 0.5, -0.0, 1e-308, 1e308, math.nan,
    math.inf, "", " ", "a", "\0", "\ud800", "\u202e", "\x1b[2J", "<b>", "=1+1", "../x", "/etc/passwd", "owner/repo",
    "auto", "(a|aa)+$", "a" * 5000, [], [[]], [None], ["a", "a"], [0] * 1000, {}, {"": {}}, {"type": "Sequence"},
    {"a": [{"b": None}]},
)  # fmt: skip
"""Values that somebody may have forgotten."""
EDITS = 8
"""In one input: one is enough for most faults, and more than a few are refused by the first."""


class Draw:
    """Choices that a fuzzer's bytes make; when they have run out, the first of each."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def below(self, limit: int) -> int:
        """Return a number from 0 to `limit` - 1."""
        size = 1 if limit <= 256 else 4
        taken, self._data = self._data[:size], self._data[size:]
        return int.from_bytes(taken, "little") % max(1, limit)


def edit_json(values: Any, draw: Draw) -> Any:
    """Return parsed JSON with a few values replaced, removed, added or copied from elsewhere in it."""
    values = copy.deepcopy(values)
    for _ in range(EDITS):
        if not draw:
            break
        box, key = _place(values, draw)
        kind = draw.below(4)
        if kind == 0:
            box[key] = copy.deepcopy(ODD[draw.below(len(ODD))])
        elif kind == 1:
            del box[key]
        elif kind == 2:
            other, name = _place(values, draw)
            box[key] = copy.deepcopy(other[name])
        elif isinstance(box, dict):
            box["unknown"] = ODD[draw.below(len(ODD))]
        else:
            box.append(ODD[draw.below(len(ODD))])
        if not values:
            break
    return values


def _place(values: Any, draw: Draw) -> tuple[Any, Any]:
    """Walk into some depth, and return what holds a value and its key there."""
    while True:
        keys = list(values) if isinstance(values, dict) else range(len(values))
        key = keys[draw.below(len(keys))]
        inner = values[key]
        if not (isinstance(inner, dict | list) and inner) or draw.below(4) == 3:
            return values, key
        values = inner


def edit_bytes(content: bytes, draw: Draw) -> bytes:
    """Return a file with a few bytes changed, doubled or cut off."""
    changed = bytearray(content)
    for _ in range(EDITS):
        if not (draw and changed):
            break
        at, kind = draw.below(len(changed)), draw.below(4)
        if kind == 0:
            changed[at] = draw.below(256)
        elif kind == 1:
            changed[at] ^= 1 << draw.below(8)
        elif kind == 2:
            changed[at:at] = changed[at : at + draw.below(64)]
        else:
            del changed[at : at + draw.below(256)]
    return bytes(changed)
