"""The targets. Each takes any bytes, and returns where the product answered, or refused them in words."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from cascades import put_into
from huggingface_hub.constants import HF_HOME
from toys import make_texts

from bench.config import BenchConfig
from bench.judge.against import compare, load_earlier
from bench.report.tables import comparison
from bench.results import BenchRecord
from exporter.bundle.artifact import GOLDEN, MANIFEST
from exporter.bundle.onnx_file import check_onnx_file
from exporter.cascade.stage import LEXICAL
from exporter.checksums import CHECKSUMS, write_checksums
from exporter.records import ExportRecord
from exporter.runtime import Classifier
from fuzzing.edits import Draw, edit_bytes, edit_json
from trainer.adopt.checks import check_complete, locate_model
from trainer.data import load_splits, read_texts
from trainer.errors import UserError
from trainer.limits import read_regular
from trainer.model.adapters import attach_adapter
from trainer.model.load import load_classifier, load_tokenizer
from trainer.pretrain.config import PretrainRecord
from trainer.records import read_record
from trainer.run import RunDir, TrainRecord

Target = Callable[[bytes], None]
NAMES = ("food", "money", "music", "sport")
RECORDS = Path(__file__).parents[1] / "data" / "records"
"""A real one of each kind and schema."""
TARGETS = ("csv", "tsv", "json-lines", "json-array", "gzip", "parquet", "records", "baseline", "bundle", "first-stage",
           "checksums", "onnx", "checkpoint", "adapter")  # fmt: skip


def make_fuzz_targets(run: RunDir, checkpoint: Path, scratch: Path) -> dict[str, Target]:
    """Return all targets by their names.

    Args:
        run: a trained and exported run.
        checkpoint: the one that it was trained from.
        scratch: an empty folder for what they write.
    """
    bundle = Path(shutil.copytree(run.export / "onnx-fp32", scratch / "bundle"))
    put_into(bundle)
    base = Path(shutil.copytree(checkpoint, scratch / "checkpoint"))
    adapter = Path(shutil.copytree(run.adapter, scratch / "adapter"))
    parquet = scratch / "texts.parquet"
    rows = [{"text": text, "label": name} for text, name in make_texts(40)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    array, packed = scratch / "texts.json", scratch / "texts.jsonl.gz"
    array.write_text(json.dumps(rows, indent=1))
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    targets: dict[str, Target] = {
        "csv": partial(_table, scratch / "texts.csv"),
        "tsv": partial(_table, scratch / "texts.tsv"),
        "json-lines": partial(_table, scratch / "texts.jsonl"),
        "json-array": _raw(array, _read_table),
        "gzip": _raw(packed, _read_table),
        "parquet": _raw(parquet, _read_table),
        "records": _edited(RECORDS.glob("*.json"), scratch / "record.json", _record),
        "baseline": _edited(RECORDS.glob("BenchRecord*.json"), scratch / "bench.json", _baseline),
        "bundle": _among([bundle / name for name in (MANIFEST, GOLDEN, "tokenizer.json")], _bundle),
        "first-stage": _raw(bundle / LEXICAL, _bundle),
        "checksums": _raw(bundle / CHECKSUMS, lambda path: Classifier.load(path.parent)),
        "onnx": _raw(bundle / "model.onnx", check_onnx_file),
        "checkpoint": _among(sorted(base.glob("*.json")), _checkpoint),
        "adapter": _among([adapter / "adapter_config.json"], _adapter),
    }
    return {name: partial(_watched, [scratch, checkpoint], target) for name, target in targets.items()}


_opened: list[str] | None = None
"""The paths that were opened to be read, while somebody wants to know."""


def _watch(event: str, values: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(values[0], str | bytes | os.PathLike):
        _opened.append(os.path.realpath(os.fsdecode(values[0])))


sys.addaudithook(_watch)
HERE = [os.path.realpath(path) for path in (Path(__file__).parents[2], *sysconfig.get_paths().values())]
SYSTEM = ["/proc", "/sys", "/dev", "/usr", "/lib", "/etc/ld.so.cache", sys.prefix, sys.base_prefix, HF_HOME]
"""A base model that is named by its Hub id is looked for in the Hub's cache, with the user's token."""


def _watched(given: list[Path], target: Target, data: bytes) -> None:
    """Call a target, which may open files of the installation, and in the folders `given`, and no others."""
    global _opened
    _opened = []
    try:
        target(data)
        outside = [p for p in _opened if not p.startswith((*map(os.path.realpath, given), *HERE, *SYSTEM))]
    finally:
        _opened = None
    assert not outside, f"opened {outside}"


def _among(paths: list[Path], call: Callable[[Path], object]) -> Target:
    """Edit one of these JSON files in its place, then call."""
    seeds = [(path, json.loads(path.read_text())) for path in paths]

    def target(data: bytes) -> None:
        draw = Draw(data)
        path, values = seeds[draw.below(len(seeds))]
        path.write_text(json.dumps(edit_json(values, draw)))
        try:
            with contextlib.suppress(UserError):
                call(path)
        finally:
            path.write_text(json.dumps(values))

    return target


def _edited(paths: Iterable[Path], place: Path, call: Callable[[Path], object]) -> Target:
    """Edit one of these JSON files, put it in `place`, then call."""
    seeds = [json.loads(path.read_text()) for path in sorted(paths)]

    def target(data: bytes) -> None:
        draw = Draw(data)
        place.write_text(json.dumps(edit_json(seeds[draw.below(len(seeds))], draw)))
        with contextlib.suppress(UserError):
            call(place)

    return target


def _raw(path: Path, call: Callable[[Path], object]) -> Target:
    """Edit the bytes of this file in its place, then call."""
    seed = path.read_bytes()

    def target(data: bytes) -> None:
        path.write_bytes(edit_bytes(seed, Draw(data)))
        try:
            with contextlib.suppress(UserError):
                call(path)
        finally:
            path.write_bytes(seed)

    return target


def _table(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        _read_table(path)


def _read_table(path: Path) -> None:
    texts = read_texts(path)
    splits = load_splits(str(path), None)
    assert len(splits.train) + len(splits.evaluation) + splits.duplicates_dropped == len(texts)


KINDS: dict[str, Any] = {k.__name__: k for k in (TrainRecord, PretrainRecord, ExportRecord, BenchRecord)}


def _record(path: Path) -> None:
    values = json.loads(read_regular(path, 2**28))
    kind = values.get("kind") if isinstance(values, dict) else None
    read_record(path, KINDS.get(kind if isinstance(kind, str) else "", TrainRecord))


def _baseline(path: Path) -> None:
    here = read_record(path, BenchRecord).environment
    earlier = load_earlier(path, BenchConfig(any_machine=True, against=path), here)
    assert comparison(compare(earlier, earlier))


def _bundle(path: Path) -> None:
    write_checksums(path.parent)
    Classifier.load(path.parent).predict(["soup"])


def _checkpoint(path: Path) -> None:
    base = locate_model(path.parent, None)
    load_tokenizer(base.folder)
    load_classifier(base, NAMES)


def _adapter(path: Path) -> None:
    base = locate_model(path.parent, None)
    check_complete(path.parent, base, load_tokenizer(base.folder), NAMES)
    attach_adapter(load_classifier(base, NAMES)[0], path.parent)
