"""Splits: which texts are trained on and which are evaluated on, so that none is both and rare labels stop nothing."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from trainer.errors import UserError

HELD_OUT_SHARE = 0.2
"""The share of the texts kept for evaluation where no evaluation set is named."""


def without(texts: Sequence[str], reserved: Iterable[str]) -> list[int]:
    """Return the indices of the texts that are not among those that are `reserved`."""
    others = set(map(_normalise, reserved))
    return [i for i, text in enumerate(texts) if _normalise(text) not in others]


def hold_out(
    texts: Sequence[str], labels: Sequence[int], calibration: int | None, seed: int
) -> tuple[list[int], list[int]]:
    """Return the indices of those to train on, or to calibrate on, and of those to evaluate on.

    A text that stands in several rows is in one part, with all its rows in the first and with one in the second.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        same[_normalise(text)].append(i)
    groups = list(same.values())
    if len(groups) < 2:
        raise UserError("there is only one text, and none to evaluate on", "add examples, or `--eval-dataset`")
    fifth = max(1, round(HELD_OUT_SHARE * len(groups)))
    kept = len(groups) - fifth if calibration is None else max(1, min(max(calibration, len(set(labels))), fifth))
    first, second = _by_label([labels[group[0]] for group in groups], kept, seed)
    return [i for g in first for i in groups[g]], [groups[g][0] for g in second]


def _normalise(text: str) -> str:
    """Return what two texts have in common that differ only in case and white space."""
    return " ".join(text.casefold().split())


def draw(labels: Sequence[int], size: int, seed: int) -> Sequence[int]:
    """Draw `size` indices, each label by its share; all of them where `size` is 0 or not below their number."""
    return _by_label(labels, size, seed)[0] if 0 < size < len(labels) else range(len(labels))


def _by_label(labels: Sequence[int], size: int, seed: int) -> tuple[list[int], list[int]]:
    """Split off `size` indices, each label by its share, and one of each where that can be; return the others, too."""
    from sklearn.model_selection import train_test_split

    try:
        first, second = train_test_split(range(len(labels)), train_size=size, random_state=seed, stratify=labels)
    except ValueError:  # a label is too rare to be in both parts
        return _by_share(labels, size, seed)
    is_complete = len({labels[i] for i in first}) == min(size, len(set(labels)))
    return (first, second) if is_complete else _by_share(labels, size, seed)


def _by_share(labels: Sequence[int], size: int, seed: int) -> tuple[list[int], list[int]]:
    """Split as `_by_label` does, however rare a label is: what remains after whole shares falls to some at random."""
    rng = random.Random(seed)
    order = rng.sample(range(len(labels)), len(labels))
    counts = Counter(labels[i] for i in order)
    sure = int(size >= len(counts))
    left, seats = size - sure * len(counts), len(labels) - sure * len(counts)
    shares = {label: left * (count - sure) / max(seats, 1) for label, count in counts.items()}
    quotas = Counter({label: sure + int(share) for label, share in shares.items()})
    by_remainder = sorted(shares, key=lambda label: int(shares[label]) - shares[label])
    quotas.update(by_remainder[: size - quotas.total()])
    parts: tuple[list[int], list[int]] = ([], [])
    for i in order:
        parts[quotas[labels[i]] <= 0].append(i)
        quotas[labels[i]] -= 1
    return parts
