"""Splits: which texts are trained on and which are evaluated on, so that none is both and rare labels stop nothing."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from trainer.errors import UserError
from trainer.tasks import Label, as_set
from trainer.text.texts import Text, parts_of

HELD_OUT_SHARE = 0.2
"""The share of the texts kept for evaluation where no evaluation set is named."""


def without(texts: Sequence[Text], reserved: Iterable[Text]) -> list[int]:
    """Return the indices of the texts that are not among those that are `reserved`."""
    others = set(map(_normalise, reserved))
    return [i for i, text in enumerate(texts) if _normalise(text) not in others]


def distinct(texts: Sequence[Text]) -> list[int]:
    """Return the indices of the texts that are the first of their kind."""
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        first.setdefault(_normalise(text), i)
    return [*first.values()]


def hold_out(
    texts: Sequence[Text], labels: Sequence[int], first: int | None, seed: int, *, share: float = HELD_OUT_SHARE
) -> tuple[list[int], list[int]]:
    """Split labelled texts in two: to train or calibrate on the first part, and to evaluate or calibrate on the second.

    A text that stands in several rows is in one part, with all its rows in the first and with one in the second.

    Args:
        texts: the texts.
        labels: of each text; see `strata`.
        first: how many texts are needed in the first part, which gets no more; None for all but a share of them.
        seed: decides which.
        share: of the texts for the second part, or the largest for the first part where its size is given.

    Returns:
        The indices of both.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        same[_normalise(text)].append(i)
    groups = list(same.values())
    if len(groups) < 2:
        raise UserError("there is only one text, and none to evaluate on", "add examples, or `--eval-dataset`")
    part = max(1, round(share * len(groups)))
    kept = len(groups) - part if first is None else max(1, min(max(first, len(set(labels))), part))
    one, two = _by_label([labels[group[0]] for group in groups], kept, seed)
    return [i for g in one for i in groups[g]], [groups[g][0] for g in two]


def strata(labels: Sequence[Label]) -> list[int]:
    """Return the label by which each text is drawn: of several its rarest, and a number of its own for none."""
    counts = Counter(label for text in labels for label in as_set(text))
    return [min(as_set(text), key=lambda label: (counts[label], label), default=-1) for text in labels]


def _normalise(text: Text) -> str:
    """Return what two texts have in common that differ only in case and white space."""
    return "\n".join(" ".join(part.casefold().split()) for part in parts_of(text))


def draw(labels: Sequence[int], size: int, seed: int) -> Sequence[int]:
    """Draw `size` indices, each label by its share; all of them where `size` is 0 or not below their number."""
    return draw_apart(labels, size, seed)[0]


def draw_apart(labels: Sequence[int], size: int, seed: int) -> tuple[Sequence[int], Sequence[int]]:
    """Draw as `draw` does, and return the indices that are left over, too, in random order."""
    return _by_label(labels, size, seed) if 0 < size < len(labels) else (range(len(labels)), ())


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
