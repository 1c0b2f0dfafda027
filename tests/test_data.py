"""Texts and labels come out of every kind of file as they stand in it, and bad ones are refused by name and line."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import write_csv

from trainer.data.load import Columns, Examples, load_splits, read_examples, read_texts, write_examples
from trainer.data.sources import HubUnreachableError, Source
from trainer.errors import UserError
from trainer.files.tables import read_table

ROWS = [(f"text {i}, with a comma\nand a line", ["bad", "good"][i % 2]) for i in range(20)]


def write(folder: Path, kind: str, rows: list[tuple[Any, Any]], header: tuple[str, str] = ("text", "label")) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "csv":
        return write_csv(path, rows, header)
    if kind == "tsv":
        body = "".join(f'"{text}"\t{label}\n' for text, label in rows)
        path.write_text("\t".join(header) + "\n" + body, encoding="utf-8")
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        path.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "ndjson", "parquet"])
def test_every_file_type_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    columns = read_table(write(tmp_path, kind, ROWS))
    assert list(zip(columns["text"], columns["label"], strict=True)) == ROWS


def test_words_that_other_readers_take_for_missing_stay_words(tmp_path: Path) -> None:
    texts = ["NA", "null", "NaN", "", "None"]
    assert read_texts(write_csv(tmp_path / "a.csv", [(text, "x") for text in texts])) == texts


def test_only_real_line_breaks_end_a_csv_row(tmp_path: Path) -> None:
    texts = ["form\x0cfeed", "line\u2028separator", "next\x85line", "two\r\nlines", "two\nlines"]
    assert read_texts(write_csv(tmp_path / "a.csv", [(text, "x") for text in texts])) == texts


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\na,b\n")
    assert list(read_table(tmp_path / "a.csv")) == ["text", "label"]


def test_a_text_longer_than_the_csv_default_limit_is_read(tmp_path: Path) -> None:
    long = "word " * 50_000
    assert read_texts(write_csv(tmp_path / "a.csv", [(long, "x")])) == [long]


@pytest.mark.parametrize("header", [("Text", "Sentiment"), ("review", "class"), ("content", "category")])
def test_usual_column_names_are_found(tmp_path: Path, header: tuple[str, str]) -> None:
    assert load_splits(str(write(tmp_path, "csv", ROWS, header)), None).label_names == ("bad", "good")


def test_named_columns_win_over_usual_ones(tmp_path: Path) -> None:
    rows = [("x", f"text {i}", "u", "ab"[i % 2]) for i in range(20)]
    path = write_csv(tmp_path / "a.csv", rows, ("text", "mine", "label", "theirs"))
    splits = load_splits(str(path), None, columns=Columns(("mine",), ("theirs",)))
    assert splits.label_names == ("a", "b")
    assert all(text.startswith("text ") for text in splits.train.texts)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        ([2, 0, 1], ("0", "1", "2")),
        (["b", "a", "10"], ("10", "a", "b")),
        ([True, False, True], ("False", "True")),
    ],
)
def test_labels_are_ordered_by_value_or_by_alphabet(tmp_path: Path, labels: list[Any], names: tuple[str, ...]) -> None:
    rows = [(f"text {i}", labels[i % 3]) for i in range(30)]
    assert load_splits(str(write(tmp_path, "parquet", rows)), None).label_names == names


def test_integers_take_the_names_given(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", [(f"{'good' if i % 2 else 'bad'} {i}", i % 2) for i in range(40)])
    splits = load_splits(str(path), None, columns=Columns(names=("negative", "positive")))
    assert splits.label_names == ("negative", "positive")
    assert all(("good" in t) == (label == 1) for t, label in zip(splits.train.texts, splits.train.labels, strict=True))


def test_a_parquet_file_of_the_datasets_library_brings_its_class_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = {"text": [f"text {i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    assert load_splits(str(tmp_path / "a.parquet"), None).label_names == ("neg", "pos")


@settings(deadline=None, max_examples=30)
@given(numbers=st.lists(st.integers(0, 30), min_size=20, max_size=80), seed=st.integers(0, 5), separate=st.booleans())
def test_no_text_is_in_both_parts(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], seed: int, *, separate: bool
) -> None:
    folder = tmp_path_factory.mktemp("straddle")
    rows = [(f" Text  {n}" if i % 3 else f"text {n}", "ab"[n % 2]) for i, n in enumerate(numbers)]
    rows += [(f"{label} {i}", label) for label in "ab" for i in range(4)]
    train = write_csv(folder / "train.csv", rows)
    held_out = write_csv(folder / "eval.csv", rows[:5] + rows[-8:-6]) if separate else None
    splits = load_splits(str(train), str(held_out) if held_out else None, seed=seed)
    parts = [{" ".join(text.lower().split()) for text in part.texts} for part in (splits.train, splits.evaluation)]
    assert not parts[0] & parts[1]
    in_evaluation = sum(" ".join(text.lower().split()) in parts[1] for text, _ in rows)
    assert len(splits.train) == len(rows) - in_evaluation
    assert separate or len(parts[1]) == len(splits.evaluation)
    assert splits.duplicates_dropped == in_evaluation - (0 if separate else len(splits.evaluation))


def test_class_names_are_those_of_the_label_column(tmp_path: Path) -> None:
    import datasets

    names = {"category": ["ham", "spam"], "label": ["neg", "pos"], "other": ["buy", "sell"]}
    features = {"text": datasets.Value("string"), "topic": datasets.Value("string")}
    features |= {column: datasets.ClassLabel(names=classes) for column, classes in names.items()}
    rows = {column: [i % 2 for i in range(20)] for column in names}
    rows |= {"text": [f"text {i}" for i in range(20)], "topic": [f"t{i % 2}" for i in range(20)]}
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(tmp_path / "a.parquet")
    expected = {None: ("neg", "pos"), "other": ("buy", "sell"), "category": ("ham", "spam"), "topic": ("t0", "t1")}
    for column, classes in expected.items():
        assert load_splits(str(tmp_path / "a.parquet"), None, columns=Columns(labels=(column,))).label_names == classes


def test_the_first_evaluation_texts_are_not_all_of_one_class(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i // 50]) for i in range(100)]
    held_out = write_csv(tmp_path / "b.csv", [(f"other {text}", label) for text, label in rows])
    splits = load_splits(str(write_csv(tmp_path / "a.csv", rows)), str(held_out))
    assert set(splits.evaluation.labels[:20]) == {0, 1}


def test_samples_keep_the_shares_of_the_classes(tmp_path: Path) -> None:
    rows = [(f"text {i}", "rare" if i % 10 == 0 else "common") for i in range(1000)]
    splits = load_splits(str(write_csv(tmp_path / "a.csv", rows)), None, max_train_samples=100, max_eval_samples=50)
    assert [sorted(Counter(part.labels).values()) for part in (splits.train, splits.evaluation)] == [[10, 90], [5, 45]]
    assert splits.available == (800, 200)


def test_the_seed_decides_the_hold_out(tmp_path: Path) -> None:
    path = str(write_csv(tmp_path / "a.csv", ROWS))
    texts = [load_splits(path, None, seed=seed).evaluation.texts for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_examples_round_trip(tmp_path: Path) -> None:
    examples = Examples(["a\r\nb", "é \u2028 \x85", '"'], [1, 0, 1])
    write_examples(tmp_path / "e.jsonl", examples, ("x", "y"))
    assert read_examples(tmp_path / "e.jsonl", ("x", "y")) == examples


def bad_file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "is empty"),
        ("a.jsonl", b"\n", "is empty"),
        ("a.csv", b"text,label\n\xff\xfe,b\n", "not valid UTF-8 at byte 11"),
        ("a.jsonl", b'{"text": "\xff"}\n', "not valid UTF-8"),
        ("a.csv", b"text,label\na,b,c\n", "line 2: 3 fields"),
        ("a.csv", b"text,text,label\na,b,c\n", "names a column twice: `text`"),
        ("a.csv", b'label,text\nx,"never closed\ny,b\n', "line 2: .* is never closed"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"other": "b"}\n', "line 2 has no `text`"),
        ("a.jsonl", b"1\n", "line 1 is not an object"),
        ("a.json", b"[1]\n", "item 1 is not an object"),
        ("a.json", b'[{"text": "a", "label": 1}, {"text"', "item 2 is not JSON"),
        ("a.json", b'[{"text": "a", "label": 1} {"text": "b"}]', "item 2 is not JSON: `,` is expected"),
        ("a.json", b'[{"text": "a", "label": 1}] 5', "goes on behind the end of its array"),
        ("a.csv.gz", b"text,label\na,b\n", "cannot read"),
        ("a.jsonl.zst", b"nothing", "cannot read"),
        ("a.parquet.gz", b"x", "unknown file type"),
        ("a.csv", "text,label\na,b\n".encode("utf-16"), "UTF-16, and not valid UTF-8"),
        ("a.parquet", b"PAR1 not really", "not a Parquet file"),
        ("a.parquet", b"", "not a Parquet file"),
        ("a.xlsx", b"x", "unknown file type `.xlsx`"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_splits(str(bad_file(tmp_path, name, content)), None)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file `.*nowhere.csv`"):
        load_splits(str(tmp_path / "nowhere.csv"), None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), (" ", "y"), ("", "x")], "2 of 3 rows with a text that is empty, the first is row 2"),
        ([("a", "x"), ("b", "")], "1 of 2 rows with a label that is empty"),
        ([(f"t{i}", "x") for i in range(9)], "only one label: `x`"),
        ([("a", 1.5), ("b", 2)], "row 1 .* the label 1.5, a number, not a class"),
        ([("a", "1"), ("b", "2.5")], "row 2 .* the label 2.5, a number, not a class"),
        ([("a", "x"), ("b", ["y"])], "row 2 .* is not a name or an integer but `list`"),
        ([("a", "x"), (True, "y")], "row 2 .* holds no text but `bool`"),
        ([("\ud800", "x"), ("b", "y")], "text 1 of .* is not valid Unicode"),
        ([("same", "xy"[i % 2]) for i in range(9)], "only one text, and none to evaluate on"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, rows: list[tuple[object, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_splits(str(write(tmp_path, "jsonl", rows)), None)


def test_unknown_columns_are_refused_with_those_there_are(tmp_path: Path) -> None:
    path = str(write_csv(tmp_path / "a.csv", [("a", "b")], ("one", "two")))
    with pytest.raises(UserError, match="holds the texts") as error:
        load_splits(path, None)
    assert "`one`, `two`" in error.value.hint
    with pytest.raises(UserError, match="no column `three`") as error:
        load_splits(path, None, columns=Columns(("three",)))
    assert "`one`, `two`" in error.value.hint


def test_an_evaluation_label_that_training_lacks_is_refused(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "a.csv", ROWS)
    with pytest.raises(UserError, match="label `ugly`"):
        load_splits(str(train), str(write_csv(tmp_path / "b.csv", [("new", "ugly")])))


def test_names_that_do_not_fit_the_integers_are_refused(tmp_path: Path) -> None:
    path = str(write(tmp_path, "parquet", [(f"t{i}", i % 3) for i in range(30)]))
    with pytest.raises(UserError, match="label `2`"):
        load_splits(path, None, columns=Columns(names=("no", "yes")))


def test_parquet_without_pyarrow_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="needs pyarrow"):
        read_texts(path)


def put_on_the_hub(monkeypatch: pytest.MonkeyPatch, splits: Any) -> None:
    """Let the libraries answer as if the Hub had these splits, at the newest commit or the one asked for."""
    import datasets
    import huggingface_hub

    def info(*_: object, revision: str | None = None, **__: object) -> SimpleNamespace:
        return SimpleNamespace(sha=revision or "abc123")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: splits)


@pytest.fixture
def on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a dataset with class names on a Hub that answers."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})

    def split(word: str, count: int) -> datasets.Dataset:
        rows = {"text": [f"{word} {i}" for i in range(count)], "label": [i % 2 for i in range(count)]}
        return datasets.Dataset.from_dict(rows, features=features)

    splits = datasets.DatasetDict(train=split("a", 30), test=split("b", 10), unsupervised=split("c", 5))
    put_on_the_hub(monkeypatch, splits)


@pytest.mark.usefixtures("on_the_hub")
def test_a_hub_dataset_brings_its_split_its_class_names_and_its_commit() -> None:
    splits = load_splits("acme/texts", None)
    assert splits.label_names == ("neg", "pos")
    assert (len(splits.train), len(splits.evaluation)) == (30, 10)
    assert splits.source == Source("acme/texts", "abc123", None)
    assert len(load_splits("acme/texts", "unsupervised").evaluation) == 5


@pytest.mark.usefixtures("on_the_hub")
def test_a_source_is_loaded_again_at_its_own_commit(tmp_path: Path) -> None:
    old = Source("acme/texts", "older", None)
    assert load_splits(old, None).source == old
    path = write_csv(tmp_path / "held_out.csv", [(f"t{i}", ["neg", "pos"][i % 2]) for i in range(9)])
    splits = load_splits(old, Source(str(path), None, None))
    assert splits.eval_source == Source(str(path), None, None)
    assert len(splits.evaluation) == 9


def test_an_evaluation_set_that_was_named_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["a"], "label": ["x"]})
    put_on_the_hub(monkeypatch, datasets.DatasetDict(evaluation=rows))
    with pytest.raises(UserError, match="`acme/other` has no split to evaluate on"):
        load_splits("sample", "acme/other")


def test_without_the_hub_the_default_is_replaced_and_a_name_is_not() -> None:
    splits = load_splits(None, None)
    assert (splits.source.name, splits.source.stands_in_for) == ("sample", "stanfordnlp/imdb")
    with pytest.raises(HubUnreachableError):
        load_splits("stanfordnlp/imdb", None)


def test_the_built_in_texts_are_balanced_and_distinct() -> None:
    splits = load_splits("sample", None)
    assert splits.duplicates_dropped == 0
    assert splits.label_names == ("negative", "positive")
    for part, size in ((splits.train, 1_078), (splits.evaluation, 356)):
        assert len(part) == size
        assert part.labels.count(0) == part.labels.count(1)
    assert all(20 <= len(text.split()) <= 700 for text in splits.train.texts + splits.evaluation.texts)


def shingles(text: str, width: int = 5) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)}


def test_no_built_in_text_resembles_another() -> None:
    """Of the runs of five words of a text, at most a fifth stand in any other one."""
    splits = load_splits("sample", None)
    texts = [shingles(text) for text in splits.train.texts + splits.evaluation.texts]
    where = defaultdict(list)
    for number, text in enumerate(texts):
        for shingle in text:
            where[shingle].append(number)
    shared = Counter(pair for numbers in where.values() for pair in combinations(numbers, 2))
    assert shared, "no five words stand in two texts: is anything compared?"
    assert max(count / min(len(texts[a]), len(texts[b])) for (a, b), count in shared.items()) <= 0.2
