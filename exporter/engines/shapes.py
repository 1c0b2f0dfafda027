"""The sizes of batches on a GPU: few, since every new one is slow the first time.

On NVIDIA's Hopper the fastest attention in half precision is cuDNN's, which both PyTorch and onnxruntime choose there,
and which plans anew for each number of rows and each width. Making a plan took 42 ms on an H200, where the answer then
took less than one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Shape = Callable[[int, int], tuple[int, int]]
"""Returns the rows and the width of the batch in which so many texts, of so many tokens at most, are scored."""

WIDTH = 64
"""Widths are multiples of it, and of the longest text that the encoder makes."""
ROWS = 32
"""Rows are multiples of it, or powers of two below."""


def as_it_is(rows: int, width: int) -> tuple[int, int]:
    """Return the batch's own sizes."""
    return rows, width


@dataclass(frozen=True)
class FewShapes:
    """Rounds up: rows to a power of two or a multiple of 32, widths to a multiple of 64 tokens."""

    longest: int
    """The maximum number of tokens of a text, for which the model has room; a longer batch keeps its width."""

    def __call__(self, rows: int, width: int) -> tuple[int, int]:
        """Return the rows and the width of the batch."""
        few = 1 << (rows - 1).bit_length()
        return min(few, -(-rows // ROWS) * ROWS), max(width, min(-(-width // WIDTH) * WIDTH, self.longest))
