"""The shape of the house: imports run one way, engines have one contract, reports read the summary, doors are light."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_engine
from local_worker import LocalWorker
from test_records import FINGERPRINTS

from bench.config import BenchConfig
from bench.engines.table import ENGINES
from bench.measure.instruments import Instruments
from bench.run import bench
from exporter.engines.spec import EngineSpec
from trainer.model.architectures import ARCHITECTURES
from trainer.run import RunDir

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {"trainer": set(), "exporter": {"trainer"}, "bench": {"trainer", "exporter"}}
HEAVY = ("torch", "transformers", "peft", "optimum", "datasets", "sklearn", "pandas")
DEPLOYED = {
    "exporter": ("bundle.", "cascade.", "engines.", "checksums", "runtime"),
    "trainer": ("config", "errors", "flags", "lexical.", "limits", "records", "tasks", "text."),
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


def test_nobody_but_the_engines_asks_which_engine_it_is() -> None:
    """What differs between engines stands in their specs, not in comparisons of names."""
    own = {spec.name for spec in ENGINES}
    for file in (*(ROOT / "bench").rglob("*.py"), *(ROOT / "exporter").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            assert not own & {c.value for c in compared if isinstance(c, ast.Constant)}, file


def test_a_new_engine_is_one_file_and_a_line_in_a_table(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(exported)
    config = BenchConfig(run.path, engines=("onnx-fp32-cpu", "majority"), restarts=1, calls=2, soak_calls=0)
    starts = {"total_s": 1.0, "import_s": 0.5, "load_s": 0.25, "first_s": 0.125}
    table = (*ENGINES, *toy_engine.ENGINES)
    summary = bench(config, Instruments(table, LocalWorker, lambda *_: starts, lambda *_: None))
    row = summary.row("majority")
    assert row
    assert row.accuracy
    assert row.accuracy.accuracy == pytest.approx(0.25, abs=0.1)
    assert "majority" in run.bench_report.read_text()
    assert "majority" in run.bench_report.with_suffix(".html").read_text()


def test_every_record_is_watched_for_changes_of_its_fields() -> None:
    """`test_records.py` holds each one's fields and its schema."""
    with_schema = {
        f"{file.relative_to(ROOT).as_posix()}:{node.name}"
        for package in MAY_IMPORT
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for field in node.body
        if isinstance(field, ast.AnnAssign) and field.value and ast.unparse(field.target) == "SCHEMA"
    }
    assert with_schema == {f"{kind.__module__.replace('.', '/')}.py:{kind.__name__}" for kind in FINGERPRINTS}


def test_architectures_are_named_in_their_table_alone() -> None:
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            assert path == ROOT / "trainer" / "model" / "architectures.py" or not words & ARCHITECTURES.keys(), path


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
    "package",
    [
        "trainer",
        "trainer.pretrain",
        "trainer.adopt",
        "exporter",
        "exporter.predict",
        "exporter.tune",
        "bench",
        "bench.training",
    ],
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
