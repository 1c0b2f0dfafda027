"""In which order engines start, and which texts they get: seeded draws that are alike in length."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence


def start_order(names: Iterable[str], restart: int, seed: int) -> list[str]:
    """Return in which order to start the engines in a restart.

    Every second order is the one before it backwards: a process that is started earlier than another is slower for as
    long as it lives, by up to a tenth, and so each is as often before as behind any other.
    """
    # A number of each name's own: so the order of the others stays where one is dropped between two restarts.
    order = sorted(names, key=lambda name: random.Random(f"{seed} {restart // 2} {name}").random())
    return order[::-1] if restart % 2 else order


def deal(sizes: Sequence[int], hands: int, rng: random.Random) -> list[list[int]]:
    """Deal what has these sizes into hands that are alike in them, as cards that lie in order.

    Returns:
        The indices of each hand, in random order; hands differ in number by one at most.
    """
    cards = sorted(rng.sample(range(len(sizes)), len(sizes)), key=lambda i: sizes[i])
    dealt: list[list[int]] = [[] for _ in range(hands)]
    for start in range(0, len(cards), hands):
        for hand, card in zip(rng.sample(range(hands), hands), cards[start : start + hands], strict=False):
            dealt[hand].append(card)
    return [rng.sample(hand, len(hand)) for hand in dealt]


def in_spread_order(sizes: Sequence[int], rng: random.Random) -> list[int]:
    """Return all indices in an order of which every beginning is spread evenly over what has these sizes.

    Source: van der Corput 1935, "Verteilungsfunktionen", Proc. Akad. Amsterdam 38: numbers by their digits backwards.
    """
    ranked = sorted(rng.sample(range(len(sizes)), len(sizes)), key=lambda i: sizes[i])
    offset, digits = rng.randrange(len(sizes)), len(sizes).bit_length()
    order = sorted(range(len(sizes)), key=lambda i: f"{i:0{digits}b}"[::-1])
    return [ranked[(i + offset) % len(ranked)] for i in order]


def spread_out(sizes: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """Draw so many indices, in random order, evenly spaced over what has these sizes when it lies in order.

    A plain random draw has the same sizes on average; this one has them each time, so that draws can be compared.
    """
    ranked = sorted(rng.sample(range(len(sizes)), len(sizes)), key=lambda i: sizes[i])
    offset = rng.random()
    return rng.sample([ranked[int((k + offset) * len(ranked) / count)] for k in range(count)], count)
