"""Which cores an engine may use: the same for all, so that none is luckier than another."""

from __future__ import annotations

import os
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


def pin(threads: int) -> None:
    """Keep this process on as many cores as it has threads; does nothing where the system cannot.

    Left to the scheduler, a process with fewer threads than there are cores stays for long on the one where it was
    last, and no two cores of a shared machine are equally fast.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, choose_cores(os.sched_getaffinity(0), threads))


def choose_cores(usable: set[int], threads: int, topology: Path = TOPOLOGY) -> set[int]:
    """Return the first cores, those that share their circuits with one before them last."""
    return set(sorted(usable, key=lambda core: (_rank_among_siblings(core, topology), core))[:threads])


def siblings_beside(cores: set[int], topology: Path = TOPOLOGY) -> set[int]:
    """Return those logical cores that share their circuits with `cores` and are not among them."""
    return {sibling for core in cores for sibling in _siblings(core, topology)} - cores


def _rank_among_siblings(core: int, topology: Path) -> int:
    """Return 0 for the first logical core of a physical one, 1 for the second; 0 where that is not known."""
    siblings = _siblings(core, topology)
    return siblings.index(core) if core in siblings else 0


def _siblings(core: int, topology: Path) -> list[int]:
    """Return the logical cores of a physical one in ascending order; none where that is not known."""
    try:
        text = (topology / f"cpu{core}" / "topology" / "thread_siblings_list").read_text(encoding="utf-8")
        ends = [[int(end) for end in part.split("-")] for part in text.strip().split(",")]
    except (OSError, ValueError):
        return []
    return sorted(core for first, *last in ends for core in range(first, (last or [first])[0] + 1))
