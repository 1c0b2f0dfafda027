"""Answers are written whole, can be read back, do no harm in a spreadsheet or a terminal, and are not lost."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import tee
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import write_csv

from exporter.answers import AnswerFile, answer_file, csv_header, csv_row, json_line, open_new
from exporter.predict import describe, main
from exporter.runtime import WINDOW_TEXTS, Classifier, Prediction, windows
from trainer.data.load import read_texts, stream_texts
from trainer.errors import UserError
from trainer.progress import say, show
from trainer.run import RunDir
from trainer.text.characters import visible

Command = Callable[..., tuple[int, str, str]]
ANSWER = Prediction("=good", {"=good": 0.75, '"bad"': 0.25}, truncated=True, labels=("=good",))
AWKWARD = st.text(st.sampled_from("=+-@'\"\t\r\n ,;a|\ufeff\u200b\uff1d\x00é") | st.characters(codec="utf-8"))


# --- what is written


@given(text=AWKWARD)
def test_csv_is_read_back_whole_and_the_mark_can_be_taken_off(text: str) -> None:
    for safe in (True, False):
        header = csv_header(tuple(ANSWER.probabilities), task="single-label", pairs=False)
        sheet = "".join([*header, *csv_row(text, ANSWER, task="single-label", safe=safe)])
        header, row = csv.reader(io.StringIO(sheet, newline=""), strict=True)
        assert header == ["text", "label", "probability_=good", 'probability_"bad"', "truncated"]
        if safe:
            assert not row[0].lstrip()[:1] or row[0].lstrip()[0] not in "=+-@\uff1d\uff0b\uff0d\uff20"
            assert row[0][:1] not in ("\t", "\r", "\n")
            row[:2] = [cell.removeprefix("'") for cell in row[:2]]
        assert row == [text, "=good", "0.750000", "0.250000", "true"]


@given(text=AWKWARD)
def test_json_lines_are_read_back(text: str) -> None:
    line = "".join(json_line(text, ANSWER, task="single-label"))
    assert line.endswith("\n")
    assert json.loads(line) == {
        "text": text, "label": ANSWER.label, "probabilities": ANSWER.probabilities, "truncated": True
    }  # fmt: skip


@given(text=st.text())
def test_nothing_that_a_terminal_obeys_is_printed(text: str) -> None:
    line = describe(text, Prediction(text, {text: 1.0}, truncated=False, labels=(text,)))
    assert len(line.splitlines()) == 1
    assert all(c.isprintable() or c in "\u3000\xa0\u200c\u200d" or not c.isascii() for c in line)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2066\u2028" for c in line)


def test_what_is_readable_stays_as_it_is() -> None:
    for text in ("naïve café", "我很喜欢", "👩‍👩‍👧 family", "שלום"):
        assert visible(text) == text


def test_progress_and_results_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    say("merging into `\x1b]0;owned\x07`")
    show("first\n\x9b2Jsecond")
    out, err = capsys.readouterr()
    assert (out, err) == ("first\n\\x9b2Jsecond\n", "merging into `\\x1b]0;owned\\x07`\n")


def test_formulas_reach_a_csv_only_on_request(exported: RunDir, command: Command, tmp_path: Path) -> None:
    texts = ["=1+1", "@SUM(A1)", " -2", "\t=x", "'quoted", "soup"]
    source = write_csv(tmp_path / "in.csv", [(text, 1) for text in texts])
    found = {}
    for flag, name in (("--csv-safe", "a.csv"), ("--no-csv-safe", "b.csv"), ("--csv-safe", "c.jsonl")):
        flags = ("--run-dir", exported.path, "--file", source, flag, "--output", tmp_path / name)
        assert command(main, *flags)[0] == 0
        found[name] = read_texts(tmp_path / name)
    assert found["a.csv"] == ["'=1+1", "'@SUM(A1)", "' -2", "'\t=x", "''quoted", "soup"]
    assert found["b.csv"] == found["c.jsonl"] == texts


# --- where it is written


def refused(status: int, err: str) -> str:
    assert status == 2
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "name", ["folder.csv", "pipe.jsonl", "no/folder.csv", "bad\udcff.csv", f"{'x' * 300}.csv", "a.txt"]
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    before = sorted(tmp_path.rglob("*"))
    # There is no artifact: that would be told next.
    status, _, err = command(main, "--artifact", tmp_path / "none", "--output", tmp_path / name, "soup")
    assert "cannot write" in refused(status, err) or "no folder" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_takes_no_files_is_refused_before_any_work() -> None:
    with pytest.raises(UserError, match="cannot write"), answer_file(Path("/proc/self/out.csv")):
        pytest.fail("it is not to come to this")


def test_the_file_that_is_read_is_not_written_under_another_name(
    exported: RunDir, command: Command, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "in.csv", [("goal", 1)])
    before = source.read_bytes()
    (tmp_path / "hard.csv").hardlink_to(source)
    (tmp_path / "soft.csv").symlink_to(source)
    for name in ("hard.csv", "soft.csv"):
        flags = ("--file", source, "--output", tmp_path / name)
        assert "is the file that is read" in refused(*command(main, "--run-dir", exported.path, *flags)[::2])
    assert source.read_bytes() == before


def rescued(path: Path, work: Callable[[AnswerFile], object], opener: Callable[[Path], IO[bytes]] = open_new) -> str:
    """Do work that is bound to fail, and return what the file that the message names holds."""
    with pytest.raises(UserError, match="the answers are in") as error, answer_file(path, opener) as answers:
        work(answers)
    found = Path(error.value.message.rsplit("`", 2)[1])
    content = found.read_text()
    found.unlink()
    return content


def test_answers_whose_folder_vanishes_are_in_a_temporary_file(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def work(answers: AnswerFile) -> None:
        answers.write("x" * 2**20 + "first\n")
        shutil.rmtree(folder)
        answers.write("second\n")

    assert rescued(folder / "a.csv", work) == "x" * 2**20 + "first\nsecond\n"


def test_answers_whose_name_becomes_a_folder_are_in_a_temporary_file(tmp_path: Path) -> None:
    def work(answers: AnswerFile) -> None:
        answers.write("answers\n")
        answers.path.mkdir()

    assert rescued(tmp_path / "a.csv", work) == "answers\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("fits", [0, 1, 2**20, 3 * 2**20 + 5])
def test_answers_for_which_there_is_no_room_are_in_a_temporary_file(tmp_path: Path, fits: int) -> None:
    class Full(io.FileIO):
        """A file on a disk that is full after `fits` bytes."""

        def write(self, data: Any) -> int:
            if (room := fits - self.tell()) <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(memoryview(data)[:room])

    numbers = [f"{i}\n" for i in range(600_000)]
    found = rescued(
        tmp_path / "a.csv",
        lambda answers: [answers.write("".join(numbers[i : i + 99])) for i in range(0, len(numbers), 99)],
        lambda path: Full(path, "wb+"),
    )
    assert found == "".join(numbers)
    assert list(tmp_path.iterdir()) == []


def test_answers_before_a_bad_row_are_kept_and_named(exported: RunDir, command: Command, tmp_path: Path) -> None:
    count = WINDOW_TEXTS + 10
    rows = "".join(json.dumps({"text": f"soup {i}"}) + "\n" for i in range(count)) + '{"text": ["bread"]}\n'
    (tmp_path / "in.jsonl").write_text(rows)
    flags = ("--file", tmp_path / "in.jsonl", "--output", tmp_path / "out.csv")
    err = refused(*command(main, "--run-dir", exported.path, *flags)[::2])
    assert f"row {count + 1} of" in err
    assert "holds no text but `list`" in err
    assert "the answers before are in" in err
    assert read_texts(tmp_path / "out.partial.csv")[:2] == ["soup 0", "soup 1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.partial.csv"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_answers_before_an_interruption_are_kept_and_named(
    tmp_path: Path, failure: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with answer_file(tmp_path / "out.csv") as answers:
            answers.write("first\n")
            raise failure

    with pytest.raises(failure):
        work()
    assert (tmp_path / "out.partial.csv").read_text() == "first\n"
    assert f"the answers before are in `{tmp_path / 'out.partial.csv'}`" in capsys.readouterr().err


def test_only_files_that_nobody_writes_are_leftovers(tmp_path: Path) -> None:
    (tmp_path / ".predict-1.csv").write_text("left by a command that was killed")
    os.mkfifo(tmp_path / ".predict-2.csv")
    (tmp_path / ".predict-3.jsonl").write_text("of another kind")
    held = (tmp_path / ".predict-4.csv").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    with held, answer_file(tmp_path / "out.csv") as answers:
        answers.write("answers")
    left = {".predict-2.csv", ".predict-3.jsonl", ".predict-4.csv", "out.csv"}
    assert {path.name for path in tmp_path.iterdir()} == left


# --- what is read


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (10**400, str(10**400)),
        (2.5, "2.5"),
        (-(10**30), str(-(10**30))),
        (None, ""),
        ("NaN", "NaN"),
        ("", ""),
    ],
)
def test_numbers_and_absent_values_are_texts(tmp_path: Path, kind: str, value: object, text: str) -> None:
    if kind == "parquet" and isinstance(value, int) and abs(value) > 2**63:
        pytest.skip("Parquet has no such integers")
    assert read_texts(one_value(tmp_path, kind, value)) == [text]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("value", [["a"], {"a": 1}, float("nan"), float("inf"), -float("inf"), True])
def test_values_that_are_no_texts_are_refused_by_row(tmp_path: Path, kind: str, value: object) -> None:
    with pytest.raises(UserError, match=r"row 1 of .* holds no text"):
        read_texts(one_value(tmp_path, kind, value))


def one_value(folder: Path, kind: str, value: object) -> Path:
    path = folder / f"a.{kind}"
    if kind == "jsonl":
        path.write_text(json.dumps({"text": value}) + "\n")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": [value]}), path)
    return path


def test_bytes_and_times_in_parquet_are_no_texts(tmp_path: Path) -> None:
    import datetime

    for value in (b"caf\xe9", datetime.datetime(2020, 1, 1)):
        with pytest.raises(UserError, match=r"row 1 of .* holds no text"):
            read_texts(one_value(tmp_path, "parquet", value))


@pytest.mark.parametrize(
    "metadata",
    ["{", "[]", "5", "null", "\xff", "[" * 100_000, '{"info": 1}', '{"info": {"features": []}}',
     '{"info": {"features": {"text": null}}}', '{"info": {"features": {"text": {"names": {"a": 1}}}}}',
     '{"info": {"features": {"text": {"names": [1, 2]}}}}'],
)  # fmt: skip
def test_foreign_metadata_of_a_parquet_file_is_ignored(tmp_path: Path, metadata: str) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["x"]}).replace_schema_metadata({"huggingface": metadata.encode("latin-1")})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet") == ["x"]


@pytest.mark.parametrize("name", ["pipe.csv", "pipe.parquet", "pipe.jsonl"])
def test_a_pipe_is_told_to_be_no_regular_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="it is not a regular file") as error:
        stream_texts(tmp_path / name)
    assert "standard input" in error.value.hint


def test_a_device_is_told_to_be_no_regular_file() -> None:
    with pytest.raises(UserError, match="it is not a regular file"):
        stream_texts(Path("/dev/null"))


def test_json_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ' + "[" * 100_000 + "\n")
    with pytest.raises(UserError, match="line 1 is nested too deep"):
        read_texts(tmp_path / "a.jsonl")


# --- the library


@pytest.mark.parametrize(
    ("texts", "advice"),
    [
        ("one text", r"not str; for one text pass `\[text\]`"),
        (b"bytes", "not bytes; decode it"),
        (None, "not NoneType; "),
        (5, "not int; "),
        (np.array("one text"), r"not ndarray; for one text pass `\[text\]`"),
        ({"text": ["a", "b"]}, r"not dict; pass one of its columns, such as `table\['text'\]`"),
        (pandas.DataFrame({"text": ["a", "b"]}), "not DataFrame; pass one of its columns"),
        ({"a", "b"}, "not set; it has no order"),
        ([("a", "b")], "item 0 is of type tuple; this classifier reads single texts$"),
        (["a", ["b", "c"]], "item 1 is of type list; this classifier reads single texts$"),
        (["a", None], "item 1 is of type NoneType; for a missing text pass `''`$"),
        (pandas.Series(["a", float("nan"), "b"], dtype=object), "item 1 is of type float; for a missing text"),
        ([b"a"], "item 0 is of type bytes$"),
        ((text for text in ("a", "b", 1)), "item 2 is of type int$"),
        (np.array([["a"], ["b"]]), "item 0 is of type ndarray$"),
    ],
    ids=range(15),
)
def test_what_is_no_list_of_texts_is_a_type_error_that_says_what_to_pass(
    exported: RunDir, texts: Any, advice: str
) -> None:
    classifier = Classifier.load(exported.export / "onnx-fp32")
    texts, again = tee(texts) if isinstance(texts, Iterator) else (texts, texts)
    with pytest.raises(TypeError, match=f"^texts must be a list of str, (and )?{advice}"):
        classifier.predict(texts)
    with pytest.raises(TypeError, match=r"^texts must be a list of str, "):
        list(classifier.stream(again))


def test_any_iterable_of_texts_will_do(exported: RunDir) -> None:
    classifier = Classifier.load(exported.export / "onnx-fp32")
    texts = ["goal race team", "soup bread"]
    expected = classifier.predict(texts)
    for given_ in (tuple(texts), iter(texts), (text for text in texts), np.array(texts), pandas.Series(texts)):
        assert classifier.predict(given_) == expected
    assert [answer for _, answer in classifier.stream(iter(texts))] == expected


def test_a_text_that_is_no_unicode_is_named(exported: RunDir) -> None:
    with pytest.raises(UserError, match="text 2 of the input is not valid Unicode"):
        Classifier.load(exported.export / "onnx-fp32").predict(["a", "\ud800"])


@given(lengths=st.lists(st.integers(0, 400_000), max_size=30))
def test_windows_hold_every_text_in_order(lengths: list[int]) -> None:
    texts = ["x" * n for n in lengths]
    assert [text for window in windows(texts) for text in window] == texts
    assert all(sum(map(len, window[:-1])) < 2**20 for window in windows(texts))


# --- memory

MEASURED = """
import resource, sys
from exporter import predict
sys.argv[1:] = {flags!r}
predict.main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mb(exported: RunDir, path: Path) -> int:
    """Return the peak memory of a command that classifies the texts of a file."""
    flags = ["--artifact", str(exported.export / "onnx-int8"), "--file", str(path), "--output", f"{path}.out.csv"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(flags=flags)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.fixture(scope="module")
def baseline_mb(exported: RunDir, tmp_path_factory: pytest.TempPathFactory) -> int:
    path = tmp_path_factory.mktemp("one") / "one.csv"
    path.write_text("text\nsoup\n")
    return peak_mb(exported, path)


LARGE = {
    "long.csv": lambda: 'text\n"' + 'soup, ""bread""\n' * 1_500_000 + '"\n',
    "long.jsonl": lambda: json.dumps({"text": "soup\nbread " * 2_000_000}) + "\n",
    "word.csv": lambda: "text\n" + "x" * 25_000_000 + "\n",
    "many.csv": lambda: "text\n" + "soup\n" * 60_000,
}


@pytest.mark.parametrize("kind", LARGE)
def test_memory_does_not_grow_with_the_input(exported: RunDir, tmp_path: Path, kind: str, baseline_mb: int) -> None:
    path = tmp_path / kind
    path.write_text(LARGE[kind]())
    assert peak_mb(exported, path) - baseline_mb < 110
