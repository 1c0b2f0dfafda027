"""The shape of the house: imports run one way, engines have one contract, reports read the summary, doors are light."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from bench.engines.table import ENGINES
from exporter.engines.spec import EngineSpec

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {"trainer": set(), "exporter": {"trainer"}, "bench": {"trainer", "exporter"}}
HEAVY = ("torch", "transformers", "peft", "optimum", "datasets", "sklearn", "pandas")
DEPLOYED = {
    "exporter": ("bundle.", "engines.", "checksums", "runtime"),
    "trainer": ("config", "encoding", "errors", "flags", "records"),
}
"""What a deployed classifier may load of ours."""


def imports(folder: str) -> set[tuple[str, str, bool]]:
    """Return (importing file, imported module, whether at its top) for every import of one of our modules."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                found.add((path.relative_to(ROOT).as_posix(), name, node in tree.body))
    return found


def test_packages_import_one_another_one_way() -> None:
    between = {
        (package, name.partition(".")[0])
        for package in MAY_IMPORT
        for _, name, _ in imports(package)
        if name.partition(".")[0] in set(MAY_IMPORT) - {package}
    }
    assert between == {(package, other) for package, others in MAY_IMPORT.items() for other in others}


def test_no_two_modules_need_each_other_to_be_imported() -> None:
    modules = {p.relative_to(ROOT).as_posix(): ".".join(p.relative_to(ROOT).with_suffix("").parts) for k in MAY_IMPORT
               for p in (ROOT / k).rglob("*.py")}  # fmt: skip
    needs: dict[str, set[str]] = {module: set() for module in modules.values()}
    for package in MAY_IMPORT:
        for file, name, is_top in imports(package):
            if is_top and name in needs:
                needs[modules[file]].add(name)
    while free := {module for module, others in needs.items() if not others & needs.keys()}:
        needs = {module: others for module, others in needs.items() if module not in free}
    assert needs == {}


def test_a_deployed_classifier_loads_nothing_of_ours_that_it_does_not_need() -> None:
    code = "import sys, exporter.runtime; print(*(name for name in sys.modules if name.partition('.')[2]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = {name.partition(".")[::2] for name in done.stdout.split() if name.partition(".")[0] in MAY_IMPORT}
    assert ("exporter", "runtime") in ours
    assert {(p, rest) for p, rest in ours if not f"{rest}.".startswith(tuple(f"{a}" for a in DEPLOYED[p]))} == set()


def test_reports_are_functions_of_the_summary_alone() -> None:
    """Nothing that renders computes: it sees neither records nor statistics. `write.py` puts both on disk."""
    forbidden = {"bench.results.BenchRecord", "bench.judge.stats", "bench.judge.summarise", "numpy", "statistics"}
    found = {(file, name) for file, name, _ in imports("bench/report") if name in forbidden}
    assert {(file, name) for file, name in found if file != "bench/report/write.py"} == set()
    assert ("bench/report/write.py", "bench.results.BenchRecord") in found


def test_every_engine_is_a_spec_of_a_file_that_the_table_names() -> None:
    files = [*(ROOT / "bench" / "engines").glob("*.py"), *(ROOT / "exporter" / "engines").glob("*.py")]
    modules = [importlib.import_module(".".join(f.relative_to(ROOT).with_suffix("").parts)) for f in files]
    listed = [spec for m in modules if m.__name__ != "bench.engines.table" for spec in getattr(m, "ENGINES", ())]
    assert all(isinstance(spec, EngineSpec) for spec in listed)
    assert {spec.name for spec in listed} == {spec.name for spec in ENGINES}
    assert len({spec.name for spec in ENGINES}) == len(ENGINES)


def test_nobody_but_the_engines_asks_what_an_engine_is() -> None:
    """What differs between engines stands in their specs, not in comparisons of names."""
    own = {spec.name for spec in ENGINES}
    for file in (ROOT / "bench").rglob("*.py"):
        if file.parent.name != "engines":
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
                assert not own & {c.value for c in compared if isinstance(c, ast.Constant)}, file


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a new interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nsys.stderr.write(','.join(n for n in {HEAVY} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.split(",")) - {""}


def test_what_another_package_imports_loads_nothing_heavy() -> None:
    between = {
        name
        for package in MAY_IMPORT
        for _, name, is_top in imports(package)
        if is_top and name.partition(".")[0] in set(MAY_IMPORT) - {package} and is_module(name)
    }
    assert len(between) > 20
    assert loaded_by(f"import {', '.join(sorted(between))}") == set()


def is_module(name: str) -> bool:
    return (ROOT / f"{name.replace('.', '/')}.py").is_file()


def test_the_probe_would_notice() -> None:
    assert "sklearn" in loaded_by("import sklearn")


@pytest.mark.parametrize(
    "package", ["trainer", "trainer.pretrain", "trainer.adopt", "exporter", "exporter.predict", "bench"]
)
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
