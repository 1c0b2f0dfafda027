"""How much of a machine others used while it was measured, and when that forbids a verdict. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.results import Company

MOST_COMPANY = 0.1
"""Share of the cores that others may use where a verdict is given.

One process that keeps one of two cores busy for a fifth of the time, a tenth of the machine, makes the parts of a call
that run on both take at least twice as long then: 1.16 times as long for an engine that does 80 % of its work so, 1.18
times for one with 90 %. Their ratio is then wrong by 2 %, the least noise floor, and no interval shows it.
"""
MOVED = 0.05
"""Share by which clocks may move without a word on it."""
_OTHERWISE = {
    "stolen": "on other virtual machines",
    "beside": "on other hyperthreads of the same cores",
    "throttled": "while a quota stopped the benchmark",
}
"""How cores are taken but by a process that runs on them."""


@dataclass(frozen=True)
class Others:
    """What others used of the measured cores, over all restarts."""

    cores: int
    used: float | None
    """How many cores they kept busy on average, other machines of the hypervisor included; None where not known."""
    least: float
    most: float
    """Of the restarts."""
    stolen: float
    """Of `used`, by other machines."""
    beside: float
    """Of `used`, on other hyperthreads of these cores."""
    throttled: float
    """Of `used`: what a quota took."""
    load: float | None
    """The highest at the end of a restart; the benchmark's own processes count."""
    clocks_hz: tuple[float, float] | None
    """The lowest and the highest that was seen."""
    gpu_clocks_hz: tuple[float, float] | None
    """The card's at the beginning and at the end; None without a card."""

    @property
    def is_too_much(self) -> bool:
        """Whether speeds that were measured beside them say too little of this machine alone."""
        return self.used is not None and self.used > MOST_COMPANY * self.cores


def others_of(companies: Sequence[Company]) -> Others | None:
    """Put together what was seen in all restarts, None where nothing was watched."""
    if not companies:
        return None
    known = [c for c in companies if c.others_s is not None and c.wall_s > 0]
    wall_s = sum(c.wall_s for c in known) or math.inf
    taken = [{part: getattr(c, f"{part}_s") or 0.0 for part in ("others", *_OTHERWISE)} for c in known]
    used = [sum(parts.values()) / c.wall_s for parts, c in zip(taken, known, strict=True)]
    of_all = {part: sum(parts[part] for parts in taken) / wall_s for part in ("others", *_OTHERWISE)}
    loads = [c.load for c in companies if c.load is not None]
    clocks = [hz for c in companies for hz in c.clocks_hz]
    gpu_clocks = [hz for c in companies for hz in c.gpu_clocks_hz]
    return Others(
        cores=max(c.cores for c in companies),
        used=sum(of_all.values()) if known else None,
        least=min(used, default=0.0),
        most=max(used, default=0.0),
        **{part: of_all[part] for part in _OTHERWISE},
        load=max(loads, default=None),
        clocks_hz=(min(clocks), max(clocks)) if clocks else None,
        gpu_clocks_hz=(gpu_clocks[0], gpu_clocks[-1]) if gpu_clocks else None,
    )


def company_text(others: Others) -> str:
    """Say in one sentence what others used, without its full stop."""
    cores = f"{others.cores} core{'s' * (others.cores > 1)}"
    if others.used is None:
        return f"How much of the {cores} others used while it measured is not known here"
    parts = [f"Others used {_few(others.used)} of {cores} while it measured"]
    if others.most - others.least >= 0.1:
        parts.append(f"{_few(others.least)} to {_few(others.most)} by restart")
    otherwise = ((getattr(others, part), words) for part, words in _OTHERWISE.items())
    parts += [f"{_few(own)} of that {words}" for own, words in otherwise if own >= 0.05]
    if others.clocks_hz and others.clocks_hz[1] > (1 + MOVED) * others.clocks_hz[0]:
        low, high = (hz / 1e9 for hz in others.clocks_hz)
        parts.append(f"and the clock moved between {low:.1f} and {high:.1f} GHz")
    return ", ".join(parts)


def _few(cores: float) -> str:
    return f"{round(cores, 2):g}"
