"""Texts with any number of labels: read however they are written, trained, exported, judged by micro F1, answered."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from local_worker import LocalWorker
from toys import FILLER, TOPICS, write_csv

import exporter.predict
from exporter.config import ExportConfig
from exporter.export import export
from exporter.records import load_export
from exporter.runtime import Classifier
from trainer.adopt.adopt import adopt
from trainer.adopt.config import AdoptConfig
from trainer.config import TrainConfig
from trainer.data.labels import as_label_sets
from trainer.data.load import Columns, _named, load_splits, read_examples
from trainer.errors import UserError
from trainer.run import RunDir, reload_splits
from trainer.training.train import train

MULTI = "multi-label"
NAMES = tuple(TOPICS)
Command = Callable[..., tuple[int, str, str]]


def make_rows(count: int, seed: int = 0) -> list[tuple[str, tuple[str, ...]]]:
    """Return different texts with the topics of which they have two words; some have none, some have all."""
    rng, rows = random.Random(seed), {}
    while len(rows) < count:
        own = tuple(topic for topic in NAMES if rng.random() < 0.4)
        words = rng.choices(FILLER, k=rng.randint(2, 4)) + [word for t in own for word in rng.choices(TOPICS[t], k=4)]
        rows[" ".join(rng.sample(words, len(words)))] = own
    return list(rows.items())


def columns_of_flags(path: Path, rows: list[tuple[str, tuple[str, ...]]]) -> Path:
    flagged = [(i, text, *(int(name in own) for name in NAMES)) for i, (text, own) in enumerate(rows)]
    return write_csv(path, flagged, ("id", "comment", *NAMES))


def sets_of(path: Path, **columns: object) -> list[tuple[str, ...]]:
    """Return the names of the labels of each text, by the order of the texts in the file."""
    splits = load_splits(str(path), None, columns=Columns(task=MULTI, **columns))  # type: ignore[arg-type]
    assert splits.calibration
    found = {}
    for part in (splits.train, splits.evaluation, splits.calibration):
        for text, label in zip(part.texts, part.labels, strict=True):
            assert isinstance(label, tuple)
            found[text] = tuple(sorted(splits.label_names[i] for i in label))
    assert len(found) == len(splits.train) + len(splits.evaluation) + len(splits.calibration)
    return [found[key] for key in sorted(found)]


WRITTEN = {
    "json": lambda own: json.dumps(own),
    "python": lambda own: str(list(own)),
    "bars": "|".join,
    "semicolons": "; ".join,
    "commas": ",".join,
}


@pytest.mark.parametrize("kind", [*WRITTEN, "lists", "parquet", "numbers", "flags", "flags in words"])
def test_labels_are_read_however_they_are_written(tmp_path: Path, kind: str) -> None:
    rows = sorted(make_rows(60))
    expected, columns = [own for _, own in rows], {}
    if kind in WRITTEN:
        path = write_csv(tmp_path / "a.csv", [(text, WRITTEN[kind](own)) for text, own in rows], ("text", "tags"))
        columns = {"labels": ("tags",)}
    elif kind == "lists":
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps({"text": text, "labels": own}) + "\n" for text, own in rows))
    elif kind == "flags":
        path = columns_of_flags(tmp_path / "a.csv", rows)
        columns = {"texts": ("comment",)}
    elif kind == "flags in words":
        flags = [(text, *("True" if name in own else "false" for name in NAMES[:2])) for text, own in rows]
        path = write_csv(tmp_path / "a.csv", flags, ("text", *NAMES[:2]))
        expected, columns = [tuple(n for n in own if n in NAMES[:2]) for own in expected], {"labels": NAMES[:2]}
    else:
        import pyarrow
        import pyarrow.parquet

        numbers = [[NAMES.index(name) for name in own] if kind == "numbers" else list(own) for _, own in rows]
        path = tmp_path / "a.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": [text for text, _ in rows], "labels": numbers}), path)
        columns = {"names": NAMES} if kind == "numbers" else {}
    assert sets_of(path, **columns) == [tuple(sorted(own)) for own in expected]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['joy' 'love']", ("joy", "love")),  # numpy's, as pandas writes it
        ("[ 3 10]", ("10", "3")),
        ('["joy", null]', ("joy",)),
        ("['a', nan]", ("a",)),
        ("('a', 'b')", ("a", "b")),
        ("{'a', 'b'}", ("a", "b")),
        (r'["Arts\/Crafts", "\ud83d\ude00"]', ("Arts/Crafts", "\U0001f600")),
        ("[]", ()),
        ("['it''s']", None),
        ("[joy, love]", None),
        ('["joy", ["love"]]', None),
        ("['a', 'b'", ("['a', 'b'",)),
    ],
)
def test_lists_are_read_as_tools_write_them_or_refused(cell: str, labels: tuple[str, ...] | None) -> None:
    rows = [(cell,), ('["zz"]',)]
    if labels is None:
        with pytest.raises(UserError, match="row 1 of it has a list of labels that cannot be read"):
            as_label_sets(["x"], rows, None, "it")
    else:
        found, _ = as_label_sets(["x"], rows, None, "it")
        assert tuple(sorted(found[0])) == labels or found[0] == ("['a'", "'b'")


def test_an_odd_label_is_told_with_its_row() -> None:
    with pytest.raises(UserError, match=r"row 2 of it has the label 1\.5"):
        as_label_sets(["x"], [("1|2|3",), ("1|1.5",)], None, "it")


@pytest.mark.parametrize("cells", [("0", "1"), (True, False), (1.0, 0.0)])
def test_one_column_of_0_and_1_is_no_list_of_labels(cells: tuple[object, object]) -> None:
    with pytest.raises(UserError, match="it has one column of 0 and 1"):
        as_label_sets(["toxic"], [(cell,) for cell in cells * 3], None, "it")
    _, written = as_label_sets(["x"], [("a b",), ("c",), ("",)], None, "it")
    assert written.startswith("no text has two: if something separates them")
    assert as_label_sets(["x"], [("0|1",), ("1",)], None, "it")[0] == [("0", "1"), ("1",)]  # classes called so


def test_a_gap_in_a_column_of_labels_is_told_and_hides_no_label(tmp_path: Path) -> None:
    train, held_out = (
        columns_of_flags(tmp_path / name, make_rows(40, seed)) for seed, name in enumerate(("a.csv", "b.csv"))
    )
    lines = held_out.read_text().splitlines()
    held_out.write_text("\n".join([*lines[:5], lines[5].rpartition(",")[0] + ",", *lines[6:]]))
    for texts in (None, ("comment",)):
        with pytest.raises(UserError, match=r"b\.csv` has `` in the column \"sport\""):
            load_splits(str(train), str(held_out), columns=Columns(texts, task=MULTI))
    held_out.write_text("\n".join([lines[0].replace("sport", "other"), *lines[1:]]))
    with pytest.raises(UserError, match="has no column `sport`"):
        load_splits(str(train), str(held_out), columns=Columns(task=MULTI))


def test_texts_without_any_label_cannot_be_trained_or_evaluated(tmp_path: Path) -> None:
    train = columns_of_flags(tmp_path / "a.csv", make_rows(40))
    held_out = columns_of_flags(tmp_path / "b.csv", [(f"nothing {i}", ()) for i in range(12)])
    with pytest.raises(UserError, match="no evaluation text has a label"):
        load_splits(str(train), str(held_out), columns=Columns(task=MULTI))


def test_labels_that_no_text_has_are_named(tmp_path: Path) -> None:
    path = columns_of_flags(
        tmp_path / "a.csv", [(text, own[:1]) for text, own in make_rows(60) if own[:1] != ("sport",)]
    )
    splits = load_splits(str(path), None, columns=Columns(task=MULTI))
    assert splits.label_names == NAMES[:3]
    assert "1 of 4 labels are left out, since no training text has them: `sport`" in splits.notes


def test_classes_of_a_dataset_are_indices_even_if_they_are_called_like_numbers() -> None:
    names = ("1", "2", "3")
    assert _named([("1", "2"), ("2",)], names, "it", are_indices=True) == [("2", "3"), ("3",)]
    assert _named([("1", "2"), ("2",)], names, "it", are_indices=False) == [("1", "2"), ("2",)]


def test_a_separator_can_be_named(tmp_path: Path) -> None:
    rows = [(f"text {i}", ("Arts, crafts / Food" if i % 3 else "Food")) for i in range(40)]
    path = write_csv(tmp_path / "a.csv", rows)
    assert set(sets_of(path, separator="/")) == {("Arts, crafts", "Food"), ("Food",)}


def test_what_says_neither_is_refused(tmp_path: Path) -> None:
    rows = make_rows(30)
    path = columns_of_flags(tmp_path / "a.csv", rows)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:8], lines[8].rpartition(",")[0] + ",-1", *lines[9:]]))
    with pytest.raises(UserError, match=r'row 8 of .* has `-1` in the column "sport", where 0 or 1 is expected'):
        load_splits(str(path), None, columns=Columns(("comment",), NAMES, task=MULTI))
    path = columns_of_flags(tmp_path / "b.csv", rows)
    with pytest.raises(UserError) as raised:
        load_splits(str(path), None, columns=Columns(("comment",)))
    assert raised.value.hint.endswith("or add `--task multi-label`")
    with pytest.raises(UserError, match="several columns of labels are for `--task multi-label`"):
        load_splits(str(path), None, columns=Columns(("comment",), NAMES))


@pytest.fixture(scope="module")
def run(toy_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A trained and exported run of texts with several labels."""
    folder = tmp_path_factory.mktemp("several")
    data = columns_of_flags(folder / "a.csv", make_rows(400))
    config = replace(toy_config, task=MULTI, dataset=str(data), text_column=("comment",), run_dir=folder / "run")
    config = replace(config, epochs=10, lora_r=16, lora_alpha=32, lora_dropout=0.0)
    train(config)
    asked = ExportConfig(run_dir=config.run_dir, quantize="dynamic", accept_undecided=True, verify_samples=16)
    export(asked, LocalWorker)
    return RunDir(config.run_dir)


def test_a_run_learns_several_labels_and_keeps_texts_for_thresholds(run: RunDir) -> None:
    record = run.load()
    assert (record.task, record.label_names) == (MULTI, NAMES)
    assert record.training
    best = record.training.best
    assert best.f1_micro is not None
    assert best.f1_micro > 0.65  # all labels for all texts: 0.57
    assert best.average_precision is not None
    splits = reload_splits(record)
    kept = read_examples(run.calibration, NAMES)
    assert splits.calibration == kept
    parts = [set(part.texts) for part in (splits.train, splits.evaluation, kept)]
    assert [len(part) for part in parts] == [288, 80, 32]
    assert len(set.union(*parts)) == 400


def test_the_export_is_judged_by_micro_f1_and_answers_as_it_was_measured(run: RunDir) -> None:
    record, examples = load_export(run), read_examples(run.evaluation, NAMES)
    assert record.metric == "micro F1"
    assert all(candidate.change.metric == "micro F1" for candidate in record.candidates)
    classifier = Classifier.load(run.export / "onnx-fp32")
    task = classifier.artifact.meaning()
    answers = classifier.predict(examples.texts)
    right = sum(len({NAMES[i] for i in label} & {*a.labels}) for a, label in zip(answers, examples.labels, strict=True))
    given = sum(len(a.labels) for a in answers) + sum(map(len, examples.labels))
    assert record.score == pytest.approx(2 * right / given)
    for answer in answers:
        shares = answer.probabilities
        own = [n for n, t in zip(NAMES, classifier.artifact.thresholds, strict=True) if shares[n] >= np.float32(t)]
        assert set(own) == set(answer.labels)
        assert list(answer.labels) == sorted(own, key=lambda name: -shares[name])
        assert answer.label == max(shares, key=lambda name: shares[name])
    assert {len(a.labels) for a in answers} >= {0, 1, 2}
    assert task.metric == "micro F1"
    saved = json.loads((run.export / "pytorch-fp32" / "config.json").read_text())
    assert saved["problem_type"] == "multi_label_classification"


def test_answers_are_written_with_their_labels_and_read_again(run: RunDir, command: Command, tmp_path: Path) -> None:
    examples = read_examples(run.evaluation, NAMES)
    expected = Classifier.load(run.export / load_export(run).chosen).predict(examples.texts)
    for name in ("out.csv", "out.jsonl"):
        output = tmp_path / name
        flags = ("--run-dir", run.path, "--file", run.evaluation, "--output", output)
        assert command(exporter.predict.main, *flags)[0] == 0
        if name == "out.csv":
            with output.open(encoding="utf-8", newline="") as file:
                found = [tuple(json.loads(row["labels"])) for row in csv.DictReader(file)]
        else:
            found = [tuple(json.loads(line)["labels"]) for line in output.read_text(encoding="utf-8").splitlines()]
        assert found == [answer.labels for answer in expected]
        by_text = dict(zip(examples.texts, expected, strict=True))
        assert sets_of(output) == [tuple(sorted(by_text[text].labels)) for text in sorted(by_text, key=str)]
    status, out, _ = command(exporter.predict.main, "--run-dir", run.path, "the of a")
    assert (status, out.startswith("no label  (")) == (0, True)


def test_a_checkpoint_says_itself_that_it_gives_several_labels(run: RunDir, tmp_path: Path) -> None:
    data = columns_of_flags(tmp_path / "a.csv", make_rows(120, seed=9))
    merged, folder = run.export / "pytorch-fp32", tmp_path / "r"
    record = adopt(AdoptConfig(merged, dataset=str(data), text_column=("comment",), run_dir=folder))
    assert (record.task, record.label_names) == (MULTI, NAMES)
    assert len(read_examples(RunDir(folder).calibration, NAMES)) == 24  # a fifth
    assert export(ExportConfig(run_dir=folder, verify_samples=8), LocalWorker).metric == "micro F1"


def test_thresholds_are_chosen_on_evaluation_texts_where_the_others_may_have_been_trained_on(
    run: RunDir, tmp_path: Path
) -> None:
    first, second = make_rows(60, seed=3), sorted(make_rows(200, seed=4), key=lambda row: row[1])
    paths = [columns_of_flags(tmp_path / name, rows) for name, rows in (("a.csv", first), ("b.csv", second))]
    config = AdoptConfig(
        run.export / "pytorch-fp32", dataset=str(paths[0]), eval_dataset=str(paths[1]), run_dir=tmp_path / "r"
    )
    adopt(config)
    kept, evaluated = (
        read_examples(path, NAMES) for path in (RunDir(tmp_path / "r").calibration, RunDir(tmp_path / "r").evaluation)
    )
    assert (len(kept), len(evaluated)) == (20, 180)
    assert {*kept.texts} | {*evaluated.texts} == {text for text, _ in second}
    assert {i for label in kept.labels for i in label} == {0, 1, 2, 3}
