"""A record comes back as it was written, and anything else on disk is refused with the command that mends it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.errors import UserError
from trainer.records import read_record, write_record, write_text


@dataclass(frozen=True)
class Inner:
    name: str
    weight: float


@dataclass(frozen=True)
class Toy:
    SCHEMA: ClassVar[int] = 3
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
    on: bool


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
        ({"schema": 2}, "schema 2"),
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


def test_an_absent_record_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_record(tmp_path / "toy.json", Toy)
    assert "make toy" in error.value.hint
