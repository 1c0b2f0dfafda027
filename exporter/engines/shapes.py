"""The sizes of batches on a GPU: few, since every new one is slow the first time.

On NVIDIA's Hopper the fastest attention in half precision is cuDNN's, which both PyTorch and onnxruntime choose there,
and which plans anew for each number of rows and each width. Making a plan took 42 ms on an H200, where the answer then
took less than one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

WIDTH = 64
"""Widths are multiples of it, and of the longest text that the encoder makes."""
ROWS = (1, 8, 64, 256, 1024)
"""Rows of a batch, or multiples of the last."""
MOST_PADDING = 2048
"""Tokens of padding that are rather scored than a call more is made: what an H200 did in the time of a call."""


@dataclass(frozen=True)
class FewShapes:
    """Rounds batches up to few sizes, and cuts lists of texts to fit them."""

    longest: int
    """The maximum number of tokens of a text, for which the model has room; a longer batch keeps its width."""

    def size(self, rows: int, width: int) -> tuple[int, int]:
        """Return the rows and the width of the batch for so many texts, of so many tokens at most."""
        rounded = next((allowed for allowed in ROWS if allowed >= rows), -(-rows // ROWS[-1]) * ROWS[-1])
        return rounded, max(width, min(-(-width // WIDTH) * WIDTH, self.longest))

    def batches(self, lengths: Sequence[int], texts: int | None, tokens: int | None) -> list[list[int]]:
        """Group texts of similar length, so that little is padding.

        Args:
            lengths: tokens of each text.
            texts: in a batch at most.
            tokens: in a batch at most, padding included; a longer text is a batch of its own.

        Returns:
            The indices of each batch's texts, the shortest first; every text is in one batch.
        """
        groups: list[list[int]] = []
        width = 0
        for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            before, (_, width) = width, self.size(1, lengths[i])
            if groups and len(groups[-1]) * (width - before) <= MOST_PADDING:
                groups[-1].append(i)
            else:
                groups.append([i])
        found: list[list[int]] = []
        for group in groups:
            _, width = self.size(1, lengths[group[-1]])
            most = min(ROWS[-1] if texts is None else texts, ROWS[-1] if tokens is None else tokens // width)
            rest = iter(group)
            found += [list(islice(rest, size)) for size in _cut(len(group), width, most)]
        return found


def _cut(count: int, width: int, most: int) -> Iterator[int]:
    """Yield how many texts go into each batch: as many as there may be, and more calls rather than much padding."""
    allowed = [rows for rows in ROWS if rows <= most] or [ROWS[0]]
    while count:
        full = max(rows for rows in allowed if rows <= count)
        larger = next((rows for rows in allowed if rows > count), None)
        calls_more = -(-count // full) - 1
        pays = larger is not None and (larger - count) * width <= MOST_PADDING * calls_more
        size = count if pays else full
        yield size
        count -= size
