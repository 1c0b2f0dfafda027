"""Imports run one way, and what another package may import loads neither torch nor transformers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"trainer": set(), "exporter": {"trainer"}, "bench": {"trainer", "exporter"}}
LIGHT = {
    "trainer": {"adopt", "config", "data", "encoding", "errors", "flags", "records", "run", "sources"},
    "exporter": {
        "bundle.golden",
        "bundle.probabilities",
        "checksums",
        "int8.budget",
        "int8.target",
        "proof.reference",
        "proof.timing",
        "proof.worker",
        "records",
        "runtime",
    },
}
"""What another package imports at the top of a module."""
HEAVY = ("torch", "transformers", "peft", "optimum", "datasets", "sklearn", "pandas")


def imports_between_packages() -> list[tuple[str, str]]:
    """Return (importing file, imported module) for every import of one of our packages by another."""
    found = []
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                for name in names:
                    if name.partition(".")[0] in set(MAY_IMPORT) - {package}:
                        found.append((path.relative_to(ROOT).as_posix(), name))
    return found


def test_packages_import_one_another_at_all() -> None:
    assert len(imports_between_packages()) > 10


@pytest.mark.parametrize(("file", "module"), sorted(set(imports_between_packages())))
def test_import_runs_downhill_and_through_the_surface(file: str, module: str) -> None:
    importer = file.partition("/")[0]
    package, _, rest = module.partition(".")
    assert package in MAY_IMPORT[importer]
    assert rest in LIGHT[package]


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a new interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nsys.stderr.write(','.join(n for n in {HEAVY} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.split(",")) - {""}


def test_surface_loads_nothing_heavy() -> None:
    modules = [f"{package}.{name}" for package, names in LIGHT.items() for name in names]
    assert loaded_by(f"import {', '.join(modules)}") == set()


def test_the_probe_would_notice() -> None:
    assert "sklearn" in loaded_by("import sklearn")


@pytest.mark.parametrize("package", ["trainer", "trainer.pretrain", "exporter", "exporter.predict", "bench"])
def test_help_loads_nothing_heavy(package: str) -> None:
    code = f"""
import runpy, sys
sys.argv = ["{package}", "--help"]
try:
    runpy.run_module("{package}", run_name="__main__")
except SystemExit as end:
    assert end.code == 0
"""
    assert loaded_by(code) == set()
