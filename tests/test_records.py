"""A record comes back as it was written, of this or any earlier schema; anything else on disk is refused with a hint.

`python tests/test_records.py` prints the fingerprints of all records as they are now.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.results import BenchRecord
from bench.training.record import TrainingSpeed
from exporter.bundle.artifact import Artifact
from exporter.bundle.golden import Golden
from exporter.engines.plan import Plan
from exporter.records import ExportRecord
from trainer.errors import UserError
from trainer.pretrain.config import PretrainRecord, UnfinishedPretraining
from trainer.records import Upgrade, read_record, renamed, without, write_record, write_text
from trainer.run import TrainRecord, UnfinishedRun

OLD_RECORDS = Path(__file__).parent / "data" / "records"
"""Real files of every schema so far, each called by its kind, its schema and what else tells it apart."""

FINGERPRINTS: dict[type[Any], tuple[int, str]] = {
    TrainRecord: (7, "d2a9afe34209a5565e17a10b5b1f557035713ff7ecc4297bdcf1af5928946919"),
    UnfinishedRun: (4, "2da16281f258921bdc0f58682b36d34b4983d0998196100f28661741e2993cf7"),
    PretrainRecord: (2, "2338422bcb33119d94874c828de192286db40fff8bd880a7f869bded62b8714d"),
    UnfinishedPretraining: (2, "d400e44e3a58c0280d8dd297bfa05ac8326ae59a490e733f96d6a59cc8c66e8d"),
    ExportRecord: (8, "cd8d90e169e4b00578efaa46397a14f77136cdfdc61b7acf13fedee81b50afb7"),
    Artifact: (6, "a973c93e3d8d1fbb41d75db43d1da3b8f4a04eec456a97fdce9c75527d5f6c6f"),
    Plan: (1, "c7bde7e3e1b3b4998ae48ce2b226e44d1a0b1af2389281a5a41476254f18dca6"),
    Golden: (4, "3c0b6e1f37b4b80a1439d0c342f7275e58ddefab18e9a8f9120ecd93184ec6ea"),
    BenchRecord: (8, "c1afad656f6f837afb0aea0007e285dca037d6bd1fb60bdeb7d67ae0b05a29e1"),
    TrainingSpeed: (1, "3ba68cf38978c6c9207e028bf25bf8f21b893ce58991dbd6cb6e68240f08768e"),
}
"""The schema of each record, and the SHA-256 of its field tree."""


def field_tree(hint: Any) -> Any:
    """The names and types of a record's fields, those of nested records included."""
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return [[field.name, field_tree(hints[field.name])] for field in fields(hint)]
    if arguments := typing.get_args(hint):
        origin = typing.get_origin(hint)
        return ["union" if origin in (typing.Union, types.UnionType) else str(origin), *map(field_tree, arguments)]
    return hint.__name__ if isinstance(hint, type) else repr(hint)


def fingerprint(kind: type[Any]) -> tuple[int, str]:
    return kind.SCHEMA, hashlib.sha256(json.dumps(field_tree(kind)).encode()).hexdigest()


def line_of(kind: type[Any]) -> str:
    schema, sha256 = fingerprint(kind)
    return f'    {kind.__name__}: ({schema}, "{sha256}"),\n'


@pytest.mark.parametrize("kind", FINGERPRINTS, ids=lambda kind: kind.__name__)
def test_a_record_that_changes_raises_its_schema(kind: type[Any]) -> None:
    assert fingerprint(kind) == FINGERPRINTS[kind], (
        f"the fields of {kind.__name__} have changed. Keep a file as it was until now in {OLD_RECORDS}, raise SCHEMA, "
        "add a function to UPGRADES unless all that is new has a default, and put into FINGERPRINTS:\n" + line_of(kind)
    )


@pytest.mark.parametrize("path", sorted(OLD_RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_records_of_every_schema_can_be_read(path: Path) -> None:
    kind = next(kind for kind in FINGERPRINTS if kind.__name__ == path.name.partition("-")[0])
    assert isinstance(read_record(path, kind), kind)


def test_what_old_records_say_is_still_said() -> None:
    def old(kind: type[Any], name: str) -> Any:
        return read_record(OLD_RECORDS / f"{kind.__name__}-{name}.json", kind)

    first, last = old(TrainRecord, "1-ce7de68"), old(TrainRecord, "3-1218b36")
    assert (first.training.train_texts, first.evaluation_texts, first.training.best.epoch) == (128, 32, 4)
    assert (first.calibration_sha256, first.training.data_sha256, first.training.eval_dataset) == ("", "", None)
    assert (last.training.train_texts, last.evaluation_texts, last.adopted) == (128, 32, None)
    export = old(ExportRecord, "1-ce7de68")
    assert (export.chosen, export.config.quantize, export.comparisons, export.score) == (
        "onnx-int8",
        "auto",
        (),
        None,
    )
    export = old(ExportRecord, "3-1218b36")
    assert {c.texts + c.pieces for c in export.comparisons} == {c.texts + c.pieces for c in export.comparisons[:1]}
    assert all(c.pieces > c.texts > 0 and c.sure <= c.texts for c in export.comparisons)
    assert {c.change.texts for c in export.candidates} == {export.texts}
    assert old(BenchRecord, "1-ce7de68").engines == ()
    assert old(BenchRecord, "2-7ba8e9c").config.soak_calls == 0
    last = old(BenchRecord, "5-57eb630")
    assert ({single.every for single in last.singles}, last.environment.card) == ({1}, None)
    assert {c.beside_s for c in last.companies} == {None}
    bench = old(BenchRecord, "3-1218b36")
    assert {single.restart for single in bench.singles} == {0, 1}
    assert {e.name for e in bench.engines if e.can_ship} == {"pytorch-fp32-cpu", "onnx-fp32-cpu", "onnx-int8-cpu"}
    assert bench.second_process == "pytorch-fp32-cpu (again)"


@pytest.mark.parametrize("kind", FINGERPRINTS, ids=lambda kind: kind.__name__)
def test_a_file_of_every_earlier_schema_is_kept(kind: type[Any]) -> None:
    kept = {int(path.name.split("-")[1]) for path in OLD_RECORDS.glob(f"{kind.__name__}-*.json")}
    assert set(range(1, kind.SCHEMA)) <= kept


@dataclass(frozen=True)
class Inner:
    name: str
    weight: float


def _call_name_title(values: dict[str, Any]) -> dict[str, Any]:
    return {**without(values, "name", "outdated"), "title": values["name"].upper()}


@dataclass(frozen=True)
class Toy:
    SCHEMA: ClassVar[int] = 4
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {
        1: _call_name_title,
        2: lambda values: renamed(values, {"mass": "weight"}),
    }
    MADE_BY: ClassVar[str] = "make toy"

    title: str
    count: int
    ratio: float
    maybe: str | None
    mode: Literal["a", "b"]
    place: Path
    inner: Inner
    many: tuple[Inner, ...]
    sizes: dict[str, int]
    on: bool = True


TOY = Toy("é\n", 2, 0.1, None, "b", Path("a/b"), Inner("x", 1.5), (Inner("y", 2.0), Inner("z", 0.0)), {"k": 1}, True)


@given(
    toy=st.builds(
        Toy,
        title=st.text(),
        count=st.integers(),
        ratio=st.floats(allow_nan=False, allow_infinity=False),
        maybe=st.none() | st.text(),
        mode=st.sampled_from(["a", "b"]),
        place=st.just(Path("a/b")),
        inner=st.builds(Inner, st.text(), st.floats(-1e9, 1e9)),
        many=st.lists(st.builds(Inner, st.text(), st.floats(-1, 1))).map(tuple),
        sizes=st.dictionaries(st.text(), st.integers()),
        on=st.booleans(),
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip(tmp_path: Path, toy: Toy) -> None:
    write_record(tmp_path / "toy.json", toy)
    assert read_record(tmp_path / "toy.json", Toy) == toy


def test_a_number_that_json_cannot_hold_is_refused_and_leaves_the_old_record(tmp_path: Path) -> None:
    write_record(tmp_path / "toy.json", TOY)
    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path / "toy.json", replace(TOY, ratio=float("nan")))
    assert read_record(tmp_path / "toy.json", Toy) == TOY
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999", "1" + "0" * 400])
def test_a_number_that_is_none_is_not_believed(tmp_path: Path, number: str) -> None:
    path = tmp_path / "toy.json"
    write_record(path, replace(TOY, ratio=0.125))
    path.write_text(path.read_text().replace("0.125", number))
    with pytest.raises(UserError, match="is damaged: `ratio` holds"):
        read_record(path, Toy)


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    write_record(path, TOY)
    whole = path.read_bytes().rstrip()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cut short"):
            read_record(path, Toy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 0}, "`schema`"),
        ({"schema": True}, "`schema`"),
        ({"schema": None}, "`schema`"),
        ({"schema": 1}, "not of schema 1"),
        ({"kind": "Other"}, "not a Toy"),
        ({"count": "2"}, "`count`"),
        ({"count": True}, "`count`"),
        ({"ratio": None}, "`ratio`"),
        ({"mode": "c"}, "`mode`"),
        ({"inner": {"name": "x"}}, "`inner.weight`"),
        ({"many": [{"name": "x", "weight": "heavy"}]}, r"`many\[0\].weight`"),
        ({"unheard_of": 1}, "`unheard_of`"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "toy.json"
    write_record(path, TOY)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as error:
        read_record(path, Toy)
    assert "make toy" in error.value.hint


def older(values: dict[str, Any]) -> dict[str, Any]:
    """TOY as schema 1 had it."""
    values = {**without(values, "title", "on"), "schema": 1, "name": "abc", "outdated": 1}
    return typing.cast(dict[str, Any], renamed(values, {"weight": "mass"}))


def test_an_older_record_is_brought_up_to_date_step_by_step(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    write_record(path, TOY)
    path.write_text(json.dumps(older(json.loads(path.read_text()))))
    before = path.read_bytes()
    assert read_record(path, Toy) == replace(TOY, title="ABC")
    assert path.read_bytes() == before, "reading leaves the file alone: later stages know it by its hash"


def test_a_newer_record_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    write_record(path, TOY)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 5, "new": 1}))
    with pytest.raises(UserError, match="has schema 5, and this version of lora2onnx reads up to 4") as error:
        read_record(path, Toy)
    assert error.value.hint == "update lora2onnx"


def test_the_oldest_run_says_what_later_ones_do(tmp_path: Path) -> None:
    """A run of schema 1 with all of its fields at the top, one hash and its texts called reviews."""
    config = {"model": "base", "epochs": 2}
    scores = [{"epoch": i, "accuracy": 0.5, "f1_weighted": 0.5, "loss": 1.0} for i in (1, 2)]
    source = {"name": "x", "revision": None, "stands_in_for": None}
    values = {
        "kind": "TrainRecord", "schema": 1, "config": config, "base": source, "base_sha256": "a", "dataset": source,
        "label_names": ["n", "p"], "max_length": 9, "truncation": "tail", "pad_token_id": 0, "train_reviews": 7,
        "evaluation_reviews": 3, "duplicates_dropped": 1, "trainable_parameters": 2, "total_parameters": 4,
        "epochs": scores, "best_epoch": 2, "device": "cpu", "precision": "fp32", "duration_s": 1, "finished_at": "now",
        "versions": {}, "adapter_sha256": "b", "evaluation_sha256": "c",
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(values))
    record = read_record(tmp_path / "run.json", TrainRecord)
    assert record.training is not None
    assert (record.training.train_texts, record.evaluation_texts) == (7, 3)
    assert (record.training.config.epochs, record.training.best.epoch, record.training.data_sha256) == (2, 2, "")
    assert (record.adapter_sha256, record.calibration_sha256) == ({"adapter_model.safetensors": "b"}, "")


def test_a_fingerprint_shows_every_change_of_a_field() -> None:
    def tree(x: str = "x", kind: type = int, inner: type = Inner) -> Any:
        return field_tree(make_dataclass("Some", [(x, kind), ("inner", inner)]))

    assert tree() == tree()
    assert tree() != tree(x="y")
    assert tree() != tree(kind=float)
    assert tree() != tree(inner=make_dataclass("Inner", [("name", str)]))


def test_an_absent_record_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_record(tmp_path / "toy.json", Toy)
    assert "make toy" in error.value.hint


if __name__ == "__main__":
    sys.stdout.writelines(map(line_of, FINGERPRINTS))
