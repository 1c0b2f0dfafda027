"""The instruction sets that decide what int8 is worth are read from what the kernel says."""

from __future__ import annotations

import ast
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.int8.target import instruction_sets, sums_bytes_exactly

XEON = "flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8 amx_tile"
CASES = [
    ("x86_64", XEON, ("AVX2", "AVX-512", "AVX-512-VNNI", "AMX"), True),
    ("x86_64", "flags : sse2 avx2 avx_vnni", ("AVX2", "AVX-VNNI"), True),
    ("x86_64", "flags : sse2 avx2 avx512f", ("AVX2", "AVX-512"), False),
    ("x86_64", "nothing of use", (), False),
    ("aarch64", "Features : fp asimd asimddp i8mm", ("NEON", "DOTPROD", "I8MM"), True),
    ("arm64", "nothing of use", ("NEON",), True),
]


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux describes its CPU in a file")
@pytest.mark.parametrize(("machine", "line", "expected", "is_safe"), CASES)
def test_instruction_sets(machine: str, line: str, expected: tuple[str, ...], is_safe: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\n{line}\nbugs : none\n")
    found = instruction_sets(machine, cpuinfo, grants_amx=lambda: True)
    assert found == expected
    assert sums_bytes_exactly(found) is is_safe


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux describes its CPU in a file")
def test_what_the_kernel_refuses_does_not_count(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(XEON)
    assert instruction_sets("x86_64", cpuinfo, grants_amx=lambda: False) == ("AVX2", "AVX-512", "AVX-512-VNNI")


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="AMX is of x86, asked of Linux"
)
def test_amx_can_be_refused_to_whatever_a_command_starts() -> None:
    code = "from exporter.int8.target import instruction_sets; print(instruction_sets())"
    refused = [sys.executable, "tests/without_amx.py", sys.executable, "-c", code]
    printed = subprocess.run(refused, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout
    assert ast.literal_eval(printed) == tuple(name for name in instruction_sets() if name != "AMX")
