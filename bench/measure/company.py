"""Who else used the cores while the bench measured, and at which clock they ran: the kernel's accounts, on Linux.

The kernel counts what was done on each core, by whomever, and what each process did. What remains of the first after
the benchmark's own processes is the company's; what the hypervisor gave to other machines, it counts as stolen. It also
counts what was done on the other hyperthreads of the cores, and for how long a quota stopped the container.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from bench.measure.cores import choose_cores, siblings_beside
from bench.measure.gpu import read_gpu_clocks
from bench.results import Company
from exporter.engines.cores import CGROUP

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
    beside_s: float = 0.0
    """Of all processes, on the other hyperthreads of these cores."""
    throttled_s: float = 0.0


class Watch:
    """Watches the cores that engines are kept on, from when it is made until it is asked.

    Args:
        threads: of each engine.
        proc: where the kernel shows its accounts.
        cpus: where it shows the clocks and which cores are siblings.
        clock: tells the time, in seconds.
        cgroup: where the kernel shows what a quota did.
        gpu_clocks: reads the clock of the card.
    """

    def __init__(
        self,
        threads: int,
        proc: Path = PROC,
        cpus: Path = CPUS,
        clock: Callable[[], float] = time.monotonic,
        cgroup: Path = CGROUP,
        gpu_clocks: Callable[[], list[float]] = read_gpu_clocks,
    ) -> None:
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        self._cores = choose_cores(usable, threads)
        self._beside = siblings_beside(self._cores, cpus)
        self._proc, self._cpus, self._clock, self._cgroup, self._gpu_clocks = proc, cpus, clock, cgroup, gpu_clocks
        self._clocks_hz: list[float] = []
        self._gpu_clocks_hz: list[float] = []
        self._start = self._account()

    def look(self) -> None:
        """Read the clocks, between two parts of a measurement."""
        self._clocks_hz += read_clock(self._cores, self._proc, self._cpus)
        self._gpu_clocks_hz += self._gpu_clocks()

    def company(self, restart: int) -> Company:
        """Return who else used the cores since the watch began."""
        self.look()
        end = self._account()
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
            beside_s=known.beside_s if known else None,
            throttled_s=known.throttled_s if known else None,
            gpu_clocks_hz=tuple(self._gpu_clocks_hz),
        )

    def _account(self) -> Account | None:
        return read_account(self._cores, self._proc, self._clock, self._beside, self._cgroup)


def difference(start: Account, end: Account) -> Account | None:
    """Return what was done between two moments, None where the kernel does not really count it.

    Inside some containers it shows zeros, or the cores under other numbers.
    """
    done = Account(*(getattr(end, field.name) - getattr(start, field.name) for field in fields(Account)))
    return done if done.wall_s > 0 and done.busy_s >= LEAST_SHARE * done.own_s else None


def read_account(
    cores: Collection[int],
    proc: Path = PROC,
    clock: Callable[[], float] = time.monotonic,
    beside: Collection[int] = (),
    cgroup: Path = CGROUP,
) -> Account | None:
    """Return what was done so far on cores and beside them, None where the kernel does not tell."""
    try:
        lines = [line.split() for line in (proc / "stat").read_text(encoding="utf-8").splitlines()]
        ticks, others = (
            [list(map(int, line[1:])) for line in lines if line and line[0] in {f"cpu{core}" for core in some}]
            for some in (cores, beside)
        )
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        own_s = tick_s * own_ticks(proc, os.getpid())
    except (OSError, ValueError, AttributeError):
        return None
    if len(ticks) != len(cores) or min(map(len, ticks), default=0) <= STEAL:
        return None
    busy, near = (tick_s * sum(row[i] for row in rows for i in BUSY) for rows in (ticks, others))
    stolen = tick_s * sum(row[STEAL] for row in ticks)
    return Account(clock(), busy, stolen, own_s, near, throttled_seconds(cgroup))


def throttled_seconds(cgroup: Path = CGROUP) -> float:
    """Return the CPU seconds for which a quota kept this container from running so far; 0 where there is none.

    Source: the kernel's documentation of `cpu.stat` (cgroup v2: microseconds) and of CFS bandwidth (v1: nanoseconds).
    """
    for path, field, unit in ((cgroup, "throttled_usec", 1e-6), (cgroup / "cpu", "throttled_time", 1e-9)):
        with suppress(OSError, ValueError):
            pairs = (line.split() for line in (path / "cpu.stat").read_text(encoding="utf-8").splitlines())
            return next((unit * int(value) for name, value in pairs if name == field), 0.0)
    return 0.0


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
