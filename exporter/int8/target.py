"""What the CPU of this machine can do that decides how fast int8 is, and how right."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def grants_amx() -> bool:
    """Ask Linux for AMX's tiles, as engines do: a container may be refused what its CPU has.

    The request and its numbers: https://docs.kernel.org/arch/x86/xstate.html
    """
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0)


def instruction_sets(
    machine: str = platform.machine(), cpuinfo: Path = CPUINFO, grants_amx: Callable[[], bool] = grants_amx
) -> tuple[str, ...]:
    """Return those instruction sets of this CPU that decide how fast int8 is, empty where they cannot be read.

    Args:
        machine: its kind, as Python names it.
        cpuinfo: where Linux describes it.
        grants_amx: tells whether a CPU with AMX lets this process use it.
    """
    if machine.lower() in ("arm64", "aarch64"):
        known = {"asimd": "NEON", "asimddp": "DOTPROD", "i8mm": "I8MM", "sve": "SVE"}
        return _named(_cpu_flags(cpuinfo) or {"asimd"}, known)  # every 64-bit ARM has NEON
    known = {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx_vnni": "AVX-VNNI",
        "avx512_vnni": "AVX-512-VNNI",
        "amx_int8": "AMX",
    }
    sets = _named(_cpu_flags(cpuinfo), known)
    return sets if "AMX" not in sets or grants_amx() else sets[:-1]


def sums_bytes_exactly(sets: tuple[str, ...]) -> bool:
    """Tell whether products of bytes are added without overflow: with VNNI on x86, always on ARM."""
    return any(name.endswith("VNNI") or name in ("AMX", "NEON") for name in sets)


def _named(flags: set[str], known: dict[str, str]) -> tuple[str, ...]:
    return tuple(name for flag, name in known.items() if flag in flags)


def _cpu_flags(cpuinfo: Path) -> set[str]:
    """Return what the kernel says of the CPU: `cpuinfo` on Linux, `sysctl` on macOS."""
    try:
        if platform.system() == "Darwin":
            names = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
            done = subprocess.run(  # noqa: S603
                ["/usr/sbin/sysctl", "-n", *names], capture_output=True, text=True, check=False
            )
            return set(done.stdout.lower().split())
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.lower().startswith(("flags", "features"))), set())
