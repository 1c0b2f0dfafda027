"""Who else used the cores while the bench measured, and at which clock they ran: the kernel's accounts, on Linux.

The kernel counts what was done on each core, by whomever, and what each process did. What remains of the first after
the benchmark's own processes is the company's; what the hypervisor gave to other machines, it counts as stolen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.measure.cores import choose_cores
from bench.results import Company

PROC, CPUS = Path("/proc"), Path("/sys/devices/system/cpu")
BUSY = (0, 1, 2, 5, 6)
"""Columns of `/proc/stat` in which a core worked: user, nice, system, irq, softirq. Guests are counted in the first."""
STEAL = 7
LEAST_SHARE = 0.5
"""Of its own time that a core must have been busy by the kernel's count: one that counts less does not count at all."""


@dataclass(frozen=True)
class Account:
    """CPU seconds since some moment in the past."""

    wall_s: float
    busy_s: float
    """Of all processes, on the cores that are watched."""
    stolen_s: float
    own_s: float
    """Of this process and all that it started, on any core."""


class Watch:
    """Watches the cores that engines are kept on, from when it is made until it is asked.

    Args:
        threads: of each engine.
        proc: where the kernel shows its accounts.
        cpus: where it shows the clocks.
        clock: tells the time, in seconds.
    """

    def __init__(
        self, threads: int, proc: Path = PROC, cpus: Path = CPUS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        self._cores = choose_cores(usable, threads)
        self._proc, self._cpus, self._clock = proc, cpus, clock
        self._clocks_hz: list[float] = []
        self._start = read_account(self._cores, proc, clock)

    def look(self) -> None:
        """Read the clocks, between two parts of a measurement."""
        self._clocks_hz += read_clock(self._cores, self._proc, self._cpus)

    def company(self, restart: int) -> Company:
        """Return who else used the cores since the watch began."""
        self.look()
        end = read_account(self._cores, self._proc, self._clock)
        known = difference(self._start, end) if self._start and end else None
        return Company(
            restart=restart,
            cores=len(self._cores),
            wall_s=known.wall_s if known else 0.0,
            own_s=known.own_s if known else None,
            others_s=max(0.0, known.busy_s - known.own_s) if known else None,
            stolen_s=known.stolen_s if known else None,
            load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            clocks_hz=tuple(self._clocks_hz),
        )


def difference(start: Account, end: Account) -> Account | None:
    """Return what was done between two moments, None where the kernel does not really count it.

    Inside some containers it shows zeros, or the cores under other numbers.
    """
    done = Account(*(getattr(end, name) - getattr(start, name) for name in ("wall_s", "busy_s", "stolen_s", "own_s")))
    return done if done.wall_s > 0 and done.busy_s >= LEAST_SHARE * done.own_s else None


def read_account(
    cores: Collection[int], proc: Path = PROC, clock: Callable[[], float] = time.monotonic
) -> Account | None:
    """Return what was done so far, None where the kernel does not tell."""
    try:
        lines = (line.split() for line in (proc / "stat").read_text(encoding="utf-8").splitlines())
        ticks = [list(map(int, line[1:])) for line in lines if line and line[0] in {f"cpu{core}" for core in cores}]
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        own_s = tick_s * own_ticks(proc, os.getpid())
    except (OSError, ValueError, AttributeError):
        return None
    if len(ticks) != len(cores) or min(map(len, ticks), default=0) <= STEAL:
        return None
    busy, stolen = sum(row[i] for row in ticks for i in BUSY), sum(row[STEAL] for row in ticks)
    return Account(clock(), tick_s * busy, tick_s * stolen, own_s)


def own_ticks(proc: Path, process: int) -> int:
    """Return the CPU time of a process, its descendants and those of them that have ended, in the kernel's ticks."""
    times, children = {}, dict[int, list[int]]()
    for pid, parent, ticks in _processes(proc):
        times[pid] = ticks
        children.setdefault(parent, []).append(pid)
    found, waiting = 0, [process]
    while waiting:
        pid = waiting.pop()
        found += times.get(pid, 0)
        waiting += children.get(pid, [])
    return found


def _processes(proc: Path) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each process, its parent's, and its time with that of its children that were waited for."""
    for path in proc.glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has just ended
            values = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()  # after its name
            yield int(path.parent.name), int(values[1]), sum(map(int, values[11:15]))


def read_clock(cores: Collection[int], proc: Path = PROC, cpus: Path = CPUS) -> list[float]:
    """Return at which clock the cores run now, in Hz on average; nothing where that is not known."""
    with suppress(OSError, ValueError):
        files = [cpus / f"cpu{core}" / "cpufreq" / "scaling_cur_freq" for core in sorted(cores)]
        return [1e3 * sum(int(file.read_text(encoding="utf-8")) for file in files) / len(files)]
    with suppress(OSError, ValueError):
        entries = (proc / "cpuinfo").read_text(encoding="utf-8").split("\n\n")
        fields = [dict(_field(line) for line in entry.splitlines()) for entry in entries]
        found = [1e6 * float(f["cpu MHz"]) for f in fields if "cpu MHz" in f and int(f["processor"]) in cores]
        return [sum(found) / len(found)] if found else []
    return []


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()
