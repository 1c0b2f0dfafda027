"""Files as people's tools write them are read as they are meant: no row is lost or made, and what is found is said."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.predict import main as predict
from trainer.data.load import Columns, load_splits, read_texts, stream_texts
from trainer.errors import UserError
from trainer.files.csv_rows import CsvError, Lines
from trainer.files.dialect import separated_rows
from trainer.files.tables import Reading, read_table
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


# --- quotation marks


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        # In a tab-separated file a mark is a part of the text...
        ("a.tsv", 'text\tlabel\n"So long\tx\nscreen of 5"\ty\nplain\tx\n', ['"So long', 'screen of 5"', "plain"]),
        ("a.tsv", 'label\ttext\nx\t"Never\ny\tok\nx\tat 9"\n', ['"Never', "ok", 'at 9"']),
        ("a.tsv", 'text\tlabel\n"Fine" they said\tx\nplain\ty\n', ['"Fine" they said', "plain"]),
        ("a.tsv", 'text\tlabel\n"Fine!"\tx\nplain\ty\n', ['"Fine!"', "plain"]),
        ("a.tsv", 'text\n"Fine" they said\nplain\n', ['"Fine" they said', "plain"]),
        ("a.tsv", 'text\tlabel\nplain\ty\n"never closed\tx\n', ["plain", '"never closed']),
        # ... unless the file shows that it encloses a field.
        ("a.tsv", 'text\tlabel\n"two\nlines"\tx\nplain\ty\n', ["two\nlines", "plain"]),
        ("a.tsv", 'text\tlabel\n"a ""b"" c"\tx\nplain\ty\n', ['a "b" c', "plain"]),
        ("a.tsv", 'text\tlabel\n"with\ttab"\tx\nplain\ty\n', ["with\ttab", "plain"]),
        ("a.tsv", '"text"\t"label"\n"a\tb\nc"\t"x"\n', ["a\tb\nc"]),
        ("a.tsv", 'text\tlabel\n"one"\tx\n"two"\ty\n', ["one", "two"]),
        # In the others it encloses a field.
        ("a.csv", 'text,label\n"Fine!",x\nplain,y\n', ["Fine!", "plain"]),
        ("a.csv", '"text","label"\n"a,b\nc","x"\n', ["a,b\nc"]),
        ("a.csv", 'text,label\n"one, two",y\n"a,b\nc",x\n', ["one, two", "a,b\nc"]),
        ("a.csv", 'text,label\n"a,b\nc",x\n"one, two",y\n', ["a,b\nc", "one, two"]),
        ("a.csv", 'text,label\n"one, two\nthree",y\n', ["one, two\nthree"]),
        ("a.csv", 'text\n"one\n\nthree"\nfour\n', ["one\n\nthree", "four"]),
    ],
)
def test_quotation_marks_mean_what_the_file_shows(tmp_path: Path, name: str, content: str, texts: list[str]) -> None:
    assert read_texts(put(tmp_path, name, content)) == texts


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", 'text,label\n"So long,x\nscreen of 5",y\nplain,x\n', 2),
        ("a.csv", 'text\nplain\n"So long\nscreen of 5"\n', 3),
        ("a.tsv", 'text\n"So long\nscreen of 5"\nplain\n', 2),
        ("a.tsv", 'text\tlabel\n"a ""b"" c"\tx\n"So long\tx\nscreen of 5"\ty\n', 3),
        ("a.tsv", 'text\tlabel\n"Fine" they said\tx\n"two\nlines"\ty\n', 3),
        ("a.csv", "text,label\nhello\nworld,x\n", 2),
        ("a.csv", "label,text,date\nx,hello\nworld,2020\ny,ok,2021\n", 3),
        ("a.csv", "label,text\nx,hello\nworld\n", 3),
        ("a.csv", "text\none\n\ntwo\n", 3),
        ("a.csv", "text\none\rtwo\nthree\n", 2),
    ],
)
def test_rows_that_can_be_counted_in_two_ways_are_refused(tmp_path: Path, name: str, content: str, line: int) -> None:
    with pytest.raises(UserError, match=f"line {line}[: ]") as error:
        read_texts(put(tmp_path, name, content))
    assert "quot" in error.value.hint


def test_a_mark_that_is_closed_far_away_encloses_nothing_where_each_line_is_a_row(tmp_path: Path) -> None:
    rows = ['"opens\tx', *["word " * 20 + "\ty"] * 2000, 'closes"\tx']
    texts = read_texts(put(tmp_path, "a.tsv", "text\tlabel\n" + "\n".join(rows) + "\n"))
    assert len(texts) == 2002


CELLS = st.lists(
    st.sampled_from(['"', '""', "\t", "\n", "\r\n", ",", ";", "|", "é", "\u2028", " ", "a", "word", "5", ""]),
    max_size=6,
).map("".join)


def written(kind: str, rows: list[list[str]], quoting: int, folder: Path) -> Path:
    """Write rows as Python's own libraries do."""
    names = ["text", "label", "note"]
    path = folder / f"rows.{kind}"
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    if kind.startswith(("csv", "tsv", "semicolon")):
        path = folder / f"rows.{kind.replace('semicolon', 'csv')}"
        delimiter = {"tsv": "\t", "csv": ",", "semicolon": ";"}[kind.partition(".")[0]]
        opener: Any = gzip.open if kind.endswith("gz") else open
        with opener(path, "wt", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter, quoting=quoting).writerows([names, *rows])  # type: ignore[arg-type]
    elif kind == "json":
        path.write_text(json.dumps(objects, indent=len(rows) % 3 or None))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in objects))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), path)
    return path


REFUSED = r"line \d+: (a quotation mark opens|quotation marks enclose|\d fields|a carriage return)"
KINDS = ("csv", "semicolon", "tsv", "csv.gz", "json", "jsonl", "parquet")


@settings(deadline=None, max_examples=150)
@given(
    cells=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=8),
    kind=st.sampled_from(KINDS),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_rows_in_are_rows_out(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], kind: str, quoting: int
) -> None:
    path = written(kind, cells, quoting, tmp_path_factory.mktemp("kinds"))
    found: object
    try:
        found = read_texts(path)
    except UserError as error:
        found = error.message
    is_small = quoting == csv.QUOTE_MINIMAL  # and its rows can be counted in two ways
    assert found == [row[0] for row in cells] or (is_small and re.search(REFUSED, str(found)))


LITERAL = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(st.tuples(LITERAL, st.sampled_from(["x", "y"])), min_size=1, max_size=8))
@example(rows=[('"a', "x"), ('b"', "y")])
def test_each_line_of_a_file_without_quoting_is_a_row(rows: list[tuple[str, str]]) -> None:
    lines = ["text\tlabel\n", *(f"{text}\t{label}\n" for text, label in rows)]
    found: object
    try:
        found = len(list(separated_rows(Lines(iter(lines)), "\t")))
    except CsvError as error:
        found = error.reason
    is_odd = any('""' in text for text, _ in rows)  # as if marks were doubled within a field
    assert found == len(rows) + 1 or (is_odd and "a quotation mark opens" in str(found))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", ["csv", "jsonl"])
def test_every_answer_stands_in_the_row_of_its_text(
    exported: RunDir, command: Command, tmp_path: Path, kind: str, output: str
) -> None:
    texts = ["goal, race", "", 'the "drum"\tsong', "two\nlines; of soup", "é \u2028 |", '"bank"', "'=tax", "5.5", " "]
    source = written(kind, [[text, "x", ""] for text in texts], csv.QUOTE_MINIMAL, tmp_path)
    flags = ("--artifact", exported.export / "onnx-fp32", "--file", source, "--no-csv-safe")
    status, _, err = command(predict, *flags, "--output", tmp_path / f"out.{output}")
    assert (status, f"{len(texts)} answers in" in err, 'text in "text"' in err) == (0, True, True)
    assert read_table(tmp_path / f"out.{output}")["text"] == texts


# --- what separates, what names


@pytest.mark.parametrize("separator", [";", "|", "\t", ","])
def test_the_separator_is_found_and_said(tmp_path: Path, separator: str) -> None:
    rows = [f"it cost {i},50, all in all{separator}{'good' if i % 2 else 'bad'}" for i in range(20)]
    if separator == ",":
        rows = [f'"it cost {i},50; all in all",{"good" if i % 2 else "bad"}' for i in range(20)]
    path = put(tmp_path, "a.csv", "\ufefftext" + separator + "label\r\n" + "\r\n".join(rows))
    splits = load_splits(str(path), None)
    assert splits.label_names == ("bad", "good")
    assert all("," in text for text in splits.train.texts)
    word = {";": "semicolons", "|": "vertical bars", "\t": "tabs", ",": "commas"}[separator]
    assert splits.notes == (f'reads {path}: 20 rows, separated by {word}, text in "text", label in "label"',)


def test_the_separator_that_a_first_line_for_excel_tells_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\r\ntext;label\r\nsoup, bread, salt;food\r\na goal, a race;sport\r\n")
    assert read_texts(tmp_path / "a.csv") == ["soup, bread, salt", "a goal, a race"]
    (tmp_path / "a.csv").write_text("sep=|\ntext|note,kind\nsoup|a,b\n")  # either would fit
    assert read_texts(tmp_path / "a.csv") == ["soup"]
    (tmp_path / "b.csv").write_text("sep=;\n")
    with pytest.raises(UserError, match="is empty"):
        read_texts(tmp_path / "b.csv")


def test_commas_of_sentences_and_numbers_separate_nothing(tmp_path: Path) -> None:
    path = put(tmp_path, "b.csv", "text, of a guest|label\n" + "".join(f"well, {i}|{'xy'[i % 2]}\n" for i in range(9)))
    assert read_texts(path, ("text, of a guest",))[0] == "well, 0"
    path = put(tmp_path, "a.csv", "".join(f"es kostet viel Geld Nummer {i};{i % 2},0\n" for i in range(20)))
    splits = load_splits(str(path), None, reading=Reading(no_header=True))
    assert splits.label_names == ("0", "1")
    assert "separated by semicolons, no header" in splits.notes[0]


def test_two_separators_that_fit_alike_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "text;a,label\n" + "one;two,three\n" * 3)
    with pytest.raises(UserError, match="cannot tell whether commas or semicolons separate"):
        read_texts(path)


def test_columns_in_another_language_are_found_by_what_they_hold(tmp_path: Path) -> None:
    rows = [f"das Essen war Nummer {i};{i % 3};{i}" for i in range(30)]
    path = put(tmp_path, "a.csv", "Bewertung;Note;Nummer\n" + "\n".join(rows))
    splits = load_splits(str(path), None)
    assert 'text in "Bewertung", label in "Note"' in splits.notes[0]
    both = put(tmp_path, "b.csv", "Bewertung;Note;Ort\n" + "\n".join(f"{row};{i % 2}" for i, row in enumerate(
        f"das Essen war Nummer {i};{i % 3}" for i in range(30))))  # fmt: skip
    with pytest.raises(UserError, match="holds the labels") as error:
        load_splits(str(both), None)
    assert error.value.hint == "name it with `--label-column`; the file has `Bewertung`, `Note`, `Ort`"


def test_a_file_without_a_header_is_told_and_read(tmp_path: Path) -> None:
    path = put(
        tmp_path, "a.tsv", "".join(f"the dish was number {i}\t{'good' if i % 2 else 'bad'}\n" for i in range(20))
    )
    with pytest.raises(UserError, match=r"the first row of .* looks like data") as error:
        load_splits(str(path), None, reading=Reading())
    assert "`--no-header`" in error.value.hint
    with pytest.raises(UserError, match="looks like data") as error:
        read_texts(path)
    assert "--no-header" not in error.value.hint
    splits = load_splits(str(path), None, reading=Reading(no_header=True))
    assert len(splits.train) + len(splits.evaluation) == 20
    assert read_texts(path, ("1",), Reading(no_header=True))[0] == "the dish was number 0"
    with pytest.raises(UserError, match="names its columns itself"):
        read_texts(put(tmp_path, "a.jsonl", "{}"), None, Reading(no_header=True))


@pytest.mark.parametrize(
    ("encoding", "flag"), [("utf-16", "--encoding utf-16"), ("cp1252", "--encoding windows-1252"), ("utf-8-sig", "")]
)
def test_encodings_are_read_when_named_and_hinted_at(tmp_path: Path, encoding: str, flag: str) -> None:
    path = put(tmp_path, "a.csv", "text,label\nüber,x\nné,y\n".encode(encoding))
    if flag:
        with pytest.raises(UserError, match="not valid UTF-8") as error:
            read_texts(path, None, Reading())
        assert flag in error.value.hint
        with pytest.raises(UserError, match="not valid UTF-8") as error:
            read_texts(path)
        assert "--" not in error.value.hint.replace("--from-code", "")
    assert read_texts(path, None, Reading(encoding)) == ["über", "né"]
    for unknown in ("nonsense", "rot13"):
        with pytest.raises(UserError, match=f"`--encoding {unknown}` is not known"):
            Reading(unknown)


# --- what nobody asked for


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ",text,label,,note,note\n0,one,x,,1,2\n1,two,y,,3,4\n"),
        ("a.csv", "text,label,,\none,x,,\ntwo,y,,\n"),
        ("a.csv", "text,label\none,x,,\ntwo,y\n"),
        ("a.csv", "text,label,a,b,c\none,x,1\ntwo,y\n"),
        ("a.jsonl", '{"text": "one", "label": "x"}\n{"label": "y", "more": 5, "text": "two"}\n'),
        ("a.json", '[{"text": "one", "label": "x", "old": null},\n {"label": "y", "text": "two"}]\n'),
        ("a.json", '\n\n{"text": "one"}\n{"text": "two"}\n'),
    ],
)
def test_other_columns_count_for_nothing(tmp_path: Path, name: str, content: str) -> None:
    assert read_texts(put(tmp_path, name, content)) == ["one", "two"]


def test_arrays_are_read_item_by_item(tmp_path: Path) -> None:
    items = [{"text": f'"{i}" \\ \n' * (i % 40), "n": [i, {"a": None}]} for i in range(3000)]
    for indent in (None, 2):
        path = put(tmp_path, "a.json", json.dumps(items, indent=indent))
        assert read_texts(path) == [item["text"] for item in items]
        assert next(stream_texts(path)) == ""


def test_packed_files_are_read(tmp_path: Path) -> None:
    import pyarrow

    content = "".join(json.dumps({"text": f"text {i} " * 50}) + "\n" for i in range(500)).encode()
    put(tmp_path, "a.jsonl.gz", gzip.compress(content))
    put(tmp_path, "a.jsonl.zst", pyarrow.compress(content, "zstd", asbytes=True))
    for kind in ("gz", "zst"):
        assert read_texts(tmp_path / f"a.jsonl.{kind}") == [f"text {i} " * 50 for i in range(500)]
    with pytest.raises(UserError, match="cannot read"):
        read_texts(put(tmp_path, "cut.csv.gz", gzip.compress(b"text\n" + content)[:-900]))


def test_several_files_are_one_dataset(tmp_path: Path) -> None:
    for name in ("part 1.csv", "part 2.csv"):
        put(tmp_path, name, "text,label\n" + "".join(f"{name} {i},{'xy'[i % 2]}\n" for i in range(10)))
    put(tmp_path, "more.jsonl", "".join(json.dumps({"label": "z", "review": f"r{i}"}) + "\n" for i in range(5)))
    one = load_splits(f"{tmp_path}/part*.csv", None)
    assert len(one.train) + len(one.evaluation) == 20
    both = load_splits(f"'{tmp_path}/part 1.csv' {tmp_path}/more.jsonl", None)
    assert both.label_names == ("x", "y", "z")
    assert both.source.short_name == "part 1.csv, more.jsonl"
    assert load_splits(both.source, None).sha256() == both.sha256()
    with pytest.raises(UserError, match="no file fits"):
        load_splits(f"{tmp_path}/none*.csv", None)
    with pytest.raises(UserError, match="is a folder, and not one") as error:
        load_splits(str(tmp_path), None)
    assert f"--dataset '{tmp_path}/*.csv'" in error.value.hint


def test_a_folder_that_the_datasets_library_saved_is_read(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": [f"text {i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=data, test=data.select(range(4))).save_to_disk(tmp_path / "two")
    one, two = (load_splits(str(tmp_path / name), None) for name in ("one", "two"))
    assert one.label_names == two.label_names == ("no", "yes")
    assert (len(one.evaluation), len(two.evaluation), len(two.train)) == (4, 4, 16)
    state = tmp_path / "one" / "state.json"
    state.write_text(state.read_text().replace('"data-', '"../two/train/data-'))
    with pytest.raises(UserError, match="names a file outside of it"):
        load_splits(str(tmp_path / "one"), None)
    state.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_splits(str(tmp_path / "one"), None)


# --- labels


def labelled(folder: Path, kind: str, labels: list[Any]) -> str:
    rows = [{"text": f"some text number {i}", "label": label} for i, label in enumerate(labels)]
    if kind == "parquet":
        import pandas

        pandas.DataFrame(rows).astype({"label": "category"}).to_parquet(folder / "a.parquet")
    elif kind == "jsonl":
        put(folder, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    else:
        put(folder, "a.csv", "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    return str(folder / f"a.{kind}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("labels", [[0, 1], [0.0, 1.0], ["0", "1"], ["0.0", "1.0"]])
def test_labels_are_the_same_by_value_in_every_file(tmp_path: Path, kind: str, labels: list[Any]) -> None:
    path = labelled(tmp_path, kind, labels * 10)
    assert load_splits(path, None).label_names == ("0", "1")
    named = load_splits(path, None, columns=Columns(names=("no", "yes")))
    assert named.label_names == ("no", "yes")
    assert all(
        int(text.split()[-1]) % 2 == label for text, label in zip(named.train.texts, named.train.labels, strict=True)
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("labels", [[False, True], ["false", "true"], ["FALSE", "TRUE"]])
def test_truth_values_are_the_same_in_every_file(tmp_path: Path, kind: str, labels: list[Any]) -> None:
    path = labelled(tmp_path, kind, labels * 10)
    assert load_splits(path, None).label_names == ("False", "True")
    assert load_splits(path, None, columns=Columns(names=("no", "yes"))).label_names == ("no", "yes")


def test_a_gap_among_numbers_is_named_by_its_row(tmp_path: Path) -> None:
    for kind in ("csv", "jsonl", "parquet"):
        labels = [0.0, 1.0, None, 1.0] if kind != "csv" else ["0.0", "1.0", "", "1.0"]
        with pytest.raises(UserError, match="1 of 4 rows with a label that is empty, the first is row 3") as error:
            load_splits(labelled(tmp_path, kind, labels), None)
        assert "`--label-column`" in error.value.hint


def test_numbers_are_texts_in_training_too(tmp_path: Path) -> None:
    rows = [{"text": i if i % 2 else f"t{i}", "label": "xy"[i % 2]} for i in range(20)]
    splits = load_splits(str(put(tmp_path, "a.json", json.dumps(rows))), None)
    assert {"1", "t0"} <= {*splits.train.texts, *splits.evaluation.texts}


# --- rare labels


def test_many_labels_with_few_texts_each_stop_nothing(tmp_path: Path) -> None:
    rows = "".join(f"text {label} {i},intent {label}\n" for label in range(150) for i in range(4))
    splits = load_splits(str(put(tmp_path, "a.csv", "text,label\n" + rows)), None)
    assert (len(splits.train), len(splits.evaluation), len(splits.label_names)) == (480, 120, 150)
    assert set(splits.train.labels) == set(range(150))
    missing = 150 - len(set(splits.evaluation.labels))
    assert any(note.startswith(f"{missing} of 150 labels are not in the evaluation") for note in splits.notes)
    assert f"and {missing - 10} more" in splits.notes[-1]


@pytest.mark.parametrize("limits", [(0, 0), (400, 90), (7, 3)])
def test_a_label_with_one_text_stops_nothing(tmp_path: Path, limits: tuple[int, int]) -> None:
    rows = "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(1000)) + "the only one,rare\n"
    path = str(put(tmp_path, "a.csv", "text,label\n" + rows))
    splits = load_splits(path, None, max_train_samples=limits[0], max_eval_samples=limits[1])
    assert splits.label_names == ("rare", "x", "y")
    assert "the only one" in splits.train.texts
    assert "1 of 3 labels are not in the evaluation, whose scores say nothing about them: `rare`" in splits.notes


def test_rows_that_are_repeated_for_training_stay(tmp_path: Path) -> None:
    rows = "".join(f"text {i},x\n" for i in range(40)) + "".join(f"rare {i},y\n" * 5 for i in range(5))
    train = str(put(tmp_path, "a.csv", "text,label\n" + rows))
    held_out = str(put(tmp_path, "b.csv", "text,label\nother,x\nRare  0,y\n"))
    separate = load_splits(train, held_out)
    assert (len(separate.train), separate.duplicates_dropped) == (60, 5)
    split = load_splits(train, None)
    assert split.train.labels.count(1) == 5 * (5 - split.evaluation.labels.count(1))
    assert len(set(split.evaluation.texts)) == len(split.evaluation)
    with pytest.raises(UserError, match="every training text is in the evaluation data"):
        load_splits(train, train)
