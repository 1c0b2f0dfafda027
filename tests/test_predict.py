"""The predict command: every way in, every way out, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import write_csv

from exporter.predict import main
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_texts_as_arguments(exported: RunDir, command: Command) -> None:
    status, out, _ = command(main, "--run-dir", exported.path, "goal race team ball", "soup salt " * 30)
    assert status == 0
    first, second = out.splitlines()
    assert first.startswith("sport  (sport ")
    assert first.endswith("%)  goal race team ball")
    assert second.startswith("food  (")
    assert "[truncated]" in second


def test_lines_of_standard_input(exported: RunDir, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, "goal race team\r\nsoup bread\u2028salt\n".encode())
    status, out, _ = command(main, "--run-dir", exported.path)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["sport", "food"]


@pytest.mark.parametrize(("content", "message"), [(b"", "no text"), (b"\n", "no text"), (b"\xff", "not valid UTF-8")])
def test_standard_input_without_text_is_refused(
    exported: RunDir, command: Command, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    feed(monkeypatch, content)
    status, _, err = command(main, "--run-dir", exported.path)
    assert status == 2
    assert message in err


def test_a_file_becomes_a_csv_with_a_row_for_each_of_its_rows(
    exported: RunDir, command: Command, tmp_path: Path
) -> None:
    texts = ["goal, race\nteam", "soup bread cheese", ""]
    source = write_csv(tmp_path / "in.csv", [(text, i) for i, text in enumerate(texts)], ("text", "id"))
    flags = ("--run-dir", exported.path, "--file", source, "--output")
    status, out, err = command(main, *flags, tmp_path / "out.csv")
    assert (status, out) == (0, "")
    assert "3 answers" in err
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows][:2] == ["sport", "food"]
    assert all(row["truncated"] == "false" for row in rows)
    shares = [float(rows[0][f"probability_{name}"]) for name in ("food", "money", "music", "sport")]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert max(shares) == shares[3]

    command(main, *flags, tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == [row["label"] for row in rows]


def test_an_artifact_alone_is_enough(exported: RunDir, command: Command) -> None:
    text = "drum song choir tune harp drum"
    status, out, _ = command(main, "--artifact", exported.export / "onnx-fp32", text)
    assert status == 0
    assert out.startswith("music")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--file", "nowhere.csv"], "no file `nowhere.csv`"),
        (["a text", "--file", "nowhere.csv"], "both a text and `--file`"),
        (["a text", "--text-column", "x"], "`--text-column` needs `--file`"),
        (["a text", "--artifact", "a", "--run-dir", "b"], "both `--artifact` and `--run-dir`"),
        (["\udcff"], "not valid Unicode"),
        (["a text", "--output", "a.xml"], "unknown file type `.xml`"),
        (["a text", "--output", "nowhere/a.csv"], "no folder `nowhere`"),
        (["a text", "--artifact", "nowhere"], "not an artifact"),
        (["a text", "--run-dir", "nowhere"], "no export in `nowhere`"),
    ],
)
def test_what_cannot_work_is_refused(
    command: Command, flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = command(main, *flags)
    assert (status, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_the_input_is_never_the_output(exported: RunDir, command: Command, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [("goal", 1)])
    before = source.read_bytes()
    status, _, err = command(main, "--run-dir", exported.path, "--file", source, "--output", source)
    assert status == 2
    assert "`--output` is the file that is read" in err
    assert source.read_bytes() == before


def test_a_reader_that_leaves_is_no_error(exported: RunDir) -> None:
    code = f"{sys.executable} -m exporter.predict --run-dir {exported.path} | head -n 1; exit ${{PIPESTATUS[0]}}"
    lines = "goal race\n" * 20_000
    done = subprocess.run(["bash", "-c", code], input=lines, capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("sport")
