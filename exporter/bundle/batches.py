"""Texts of similar length in a batch, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Sequence


def token_batches(lengths: Sequence[int], batch_tokens: int | None) -> list[list[int]]:
    """Group texts of similar length, so that little of a batch is padding.

    Args:
        lengths: tokens of each text.
        batch_tokens: the most tokens of a batch, padding included; a single longer text is a batch of its own.
            None makes one batch of all, in their order.

    Returns:
        The indices of each batch's texts; every text is in one batch.
    """
    if batch_tokens is None:
        return [list(range(len(lengths)))] if lengths else []
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # In ascending order the newest text is the longest: it decides the padded size of its batch.
        if batches and (len(batches[-1]) + 1) * lengths[i] <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
