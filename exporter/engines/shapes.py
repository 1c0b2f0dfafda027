"""The sizes of batches on a GPU: few, since every new one is slow the first time.

On NVIDIA's Hopper the fastest attention in half precision is cuDNN's, which both PyTorch and onnxruntime choose there,
and which plans anew for each number of rows and each width. Making a plan took 42 ms on an H200, where the answer then
took less than one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

WIDTH = 64
"""Widths are multiples of it, and of the longest text that the encoder makes."""
ROWS = 32
"""Rows are multiples of it, or powers of two below."""


class Shape(Protocol):
    """Decides the size of the batch in which texts are scored."""

    @property
    def most_padding(self) -> float:
        """How many tokens of padding one more text may cost the others, before it begins a batch of its own."""

    def __call__(self, rows: int, width: int) -> tuple[int, int]:
        """Return the rows and the width of the batch for so many texts, of so many tokens at most."""


@dataclass(frozen=True)
class AsItIs:
    """Leaves batches their own size."""

    most_padding: float = math.inf

    def __call__(self, rows: int, width: int) -> tuple[int, int]:
        """Return the same."""
        return rows, width


@dataclass(frozen=True)
class FewShapes:
    """Rounds up: rows to a power of two or a multiple of 32, widths to a multiple of 64 tokens."""

    longest: int
    """The maximum number of tokens of a text, for which the model has room; a longer batch keeps its width."""
    most_padding: float = 2048
    """What an H200 scores in the time that it takes to start one more call of a small model."""

    def __call__(self, rows: int, width: int) -> tuple[int, int]:
        """Return the rows and the width of the batch."""
        few = 1 << (rows - 1).bit_length()
        rounded = max(width, min(-(-width // WIDTH) * WIDTH, self.longest))
        return min(few, -(-rows // ROWS) * ROWS), rounded


AS_IT_IS = AsItIs()
