"""The instruction sets that decide what int8 is worth are read from what the kernel says."""

from __future__ import annotations

import platform

import pytest

from exporter.int8 import target

XEON = "flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8 amx_tile"
CASES = [
    ("x86_64", XEON, ("AVX2", "AVX-512", "AVX-512-VNNI", "AMX"), True),
    ("x86_64", "flags : sse2 avx2 avx_vnni", ("AVX2", "AVX-VNNI"), True),
    ("x86_64", "flags : sse2 avx2 avx512f", ("AVX2", "AVX-512"), False),
    ("x86_64", "nothing of use", (), False),
    ("aarch64", "Features : fp asimd asimddp i8mm", ("NEON", "DOTPROD", "I8MM"), True),
    ("arm64", "nothing of use", ("NEON",), True),
]


@pytest.mark.parametrize(("machine", "said", "expected", "is_safe"), CASES)
def test_instruction_sets(
    machine: str, said: str, expected: tuple[str, ...], is_safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(target.Path, "read_text", lambda *_, **__: f"processor : 0\n{said}\nbugs : none\n")
    found = target.instruction_sets()
    assert found == expected
    assert target.sums_bytes_exactly(found) is is_safe
