"""Texts and labels: read from files, the Hub or the built-in sample, checked, named and split."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from trainer.characters import is_unicode, visible
from trainer.columns import LONGEST_NUMBER, as_labels, as_text, find_column, find_columns
from trainer.errors import UserError
from trainer.records import write_text
from trainer.sources import (
    DEFAULT_DATASET,
    SAMPLE,
    SAMPLE_REVIEWS,
    HubUnreachableError,
    Source,
    dataset_splits,
    find_files,
    is_saved_dataset,
    saved_splits,
    source_of_files,
)
from trainer.splitting import draw, hold_out, without
from trainer.tables import Reading, Rows, listed, not_empty, open_rows, read_table

EVALUATION_SPLITS = ("validation", "valid", "dev", "test")
NAMES_SHOWN = 10

Tables = dict[str, list[Rows]]
"""By split."""


@dataclass(frozen=True)
class Examples:
    """Texts with the index of each one's label."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> Examples:
        """Return the examples at `indices`, in that order."""
        return Examples([self.texts[i] for i in indices], [self.labels[i] for i in indices])


@dataclass(frozen=True)
class Splits:
    """The data of one run: no text is in both `train` and `evaluation`."""

    train: Examples
    evaluation: Examples
    label_names: tuple[str, ...]
    source: Source
    eval_source: Source | None
    """Of a separate evaluation dataset; None where the evaluation texts are from `source`, too."""
    duplicates_dropped: int
    available: tuple[int, int]
    """How many training and evaluation examples there were before the sample limits."""
    labels_in_order: bool
    """Whether the data or the caller gave the labels an order; otherwise it is alphabetical."""
    notes: tuple[str, ...] = ()
    """What was found in the files, and which labels cannot be trained or evaluated, for a person."""

    def sha256(self) -> str:
        """Return one hash over all texts and labels."""
        parts = [[part.texts, part.labels] for part in (self.train, self.evaluation)]
        return hashlib.sha256(json.dumps([self.label_names, *parts]).encode()).hexdigest()


@dataclass(frozen=True)
class Labelled:
    """Texts with the name of each one's label, and the order of the names where the data or the user gives one."""

    texts: list[str]
    labels: list[str]
    order: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def load_splits(
    dataset: str | Source | None,
    eval_dataset: str | Source | None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    label_names: tuple[str, ...] | None = None,
    reading: Reading | None = None,
    max_train_samples: int = 0,
    max_eval_samples: int = 0,
    seed: int = 0,
    calibration: int | None = None,
) -> Splits:
    """Load a dataset and make the training and evaluation examples of a run.

    Args:
        dataset: a file or several, a folder that the `datasets` library saved, a Hub id, `sample`, or the source in an
            earlier result; None for IMDB, or the sample where the Hub cannot be reached.
        eval_dataset: the same, or the name of a split of `dataset`. None uses the split that the dataset has for
            evaluation, or else holds out a stratified fifth.
        text_column: None for the first with a usual name.
        label_column: the same for the labels.
        label_names: names for labels that are the integers 0, 1, …
        reading: what the user says about text files.
        max_train_samples: 0 for all; a part is stratified by label.
        max_eval_samples: the same for evaluation.
        seed: decides which examples are held out and sampled.
        calibration: where nothing is to be trained, how many training examples are needed for calibration. If
            evaluation examples have to be held out, all but these are, and four fifths at least.

    Raises:
        UserError: the data cannot be used; the message says what is wrong and where.
    """
    tables, source = _tables(dataset, reading)
    train_tables, eval_tables, eval_source = _choose(tables, source.name, eval_dataset, reading)
    named = _labelled(train_tables, text_column, label_column, label_names)
    eval_named = _labelled(eval_tables, text_column, label_column, label_names)
    names = _order(named, eval_named, train_tables[0].name)
    check_label_names(names)
    rows, evaluation = _number(named, names), _number(eval_named, names)
    if eval_tables:
        train = rows.take(without(rows.texts, evaluation.texts))
    else:
        train, evaluation = map(rows.take, hold_out(rows.texts, rows.labels, calibration, seed))
    if not len(train):
        raise UserError("every training text is in the evaluation data, too", "give other texts with `--eval-dataset`")
    kept = evaluation.take(draw(evaluation.labels, max_eval_samples, seed))
    return Splits(
        train=train.take(draw(train.labels, max_train_samples, seed)),
        evaluation=_shuffled(kept, seed),
        label_names=names,
        source=source,
        eval_source=eval_source,
        duplicates_dropped=len(rows) - len(train) - (0 if eval_tables else len(evaluation)),
        available=(len(train), len(evaluation)),
        labels_in_order=named.order is not None or all(_is_integer(name) for name in names),
        notes=(*named.notes, *eval_named.notes, *_missing(names, train, kept)),
    )


def read_texts(path: Path, text_column: str | None = None, reading: Reading | None = None) -> list[str]:
    """Read the texts of a file, in order; see `stream_texts`."""
    return list(stream_texts(path, text_column, reading))


def stream_texts(
    path: Path,
    text_column: str | None = None,
    reading: Reading | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> Iterator[str]:
    """Open a file and return its texts, in order, which are read one after the other.

    Empty ones are allowed, and numbers are texts. `note` is told what was found.

    Raises:
        UserError: see `open_rows` and `find_column`; or a value is no text, or not valid Unicode. What is wrong with a
            row is raised when its turn comes.
    """
    rows = open_rows(path, reading)
    column = find_column(rows, "text", text_column)
    note(_found(rows, None, (f'text in "{column}"',)))
    cells = not_empty(path, rows.read((column,)))
    return (as_text(cell, number, f"`{path}`") for number, (cell,) in zip(count(1), cells))


def _found(rows: Rows, number: int | None, columns: Sequence[str]) -> str:
    size = [] if number is None else [f"{number:,} rows"]
    return visible(f"reads {rows.name}: {', '.join([*size, *rows.written, *columns])}")


def write_examples(path: Path, examples: Examples, label_names: tuple[str, ...]) -> None:
    """Write examples as JSON Lines with the columns `text` and `label`, the label by name."""
    rows = (
        json.dumps({"text": text, "label": label_names[label]}, ensure_ascii=False)
        for text, label in zip(examples.texts, examples.labels, strict=True)
    )
    write_text(path, "".join(row + "\n" for row in rows))


def read_examples(path: Path, label_names: tuple[str, ...]) -> Examples:
    """Read what `write_examples` wrote."""
    columns = read_table(path)
    return Examples(columns["text"], [label_names.index(label) for label in columns["label"]])


def check_unicode(texts: Iterable[str], where: str, *, first: int = 1) -> None:
    """Raise a UserError for a text that is not Unicode; `first` is the number of the first text."""
    for number, text in enumerate(texts, first):
        if not is_unicode(text):
            raise UserError(f"text {number} of {where} is not valid Unicode", "fix or remove it")


def check_label_names(names: Sequence[str]) -> None:
    """Raise a UserError for a label name of several lines: it stands in tables, records and the model card."""
    for name in names:
        if name.splitlines() != [name]:
            raise UserError(f"the label {name!r} has a line break", "rename the label")


def _tables(dataset: str | Source | None, reading: Reading | None) -> tuple[Tables, Source]:
    """Return a dataset's splits by name, and where it came from."""
    if dataset is None:
        try:
            return _hub_tables(DEFAULT_DATASET)
        except HubUnreachableError:
            tables, _ = _tables(SAMPLE, None)
            return tables, Source(SAMPLE, None, stands_in_for=DEFAULT_DATASET)
    name, revision = (dataset.name, dataset.revision) if isinstance(dataset, Source) else (dataset, None)
    if name == SAMPLE:
        return {split: [_of_split(split)] for split in ("train", "test")}, Source(SAMPLE, None, None)
    if revision is not None:
        return _hub_tables(name, revision)
    if is_saved_dataset(Path(name)):
        return _of_datasets(name, saved_splits(Path(name))), Source(str(Path(name).resolve()), None, None)
    if files := find_files(name):
        return {"train": [open_rows(file, reading) for file in files]}, source_of_files(files)
    return _hub_tables(name)


def _of_split(split: str) -> Rows:
    """Return the rows of a split of the built-in reviews."""
    rows = open_rows(SAMPLE_REVIEWS)

    def read(wanted: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return (row[1:] for row in rows.read(("split", *wanted)) if row[0] == split)

    return Rows(f"{SAMPLE} ({split})", rows.columns, read)


def _hub_tables(name: str, revision: str | None = None) -> tuple[Tables, Source]:
    splits, commit = dataset_splits(name, revision)
    return _of_datasets(name, splits), Source(name, commit, None)


def _of_datasets(name: str, splits: Any) -> Tables:
    return {split: [_of_dataset(f"{name} ({split})", data)] for split, data in splits.items()}


def _of_dataset(name: str, data: Any) -> Rows:
    classes = {column: tuple(f.names) for column, f in data.features.items() if hasattr(f, "names")}

    def read(wanted: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return zip(*(data.with_format(None)[column][:] for column in wanted), strict=True)

    return Rows(name, tuple(data.column_names), read, classes)


def _choose(
    tables: Tables, name: str, eval_dataset: str | Source | None, reading: Reading | None
) -> tuple[list[Rows], list[Rows], Source | None]:
    """Return the tables to train and to evaluate on, none where examples are to be held out, and a separate source."""
    if "train" not in tables:
        raise UserError(f"`{name}` has no split `train`", f"it has {listed(tables)}; give a file instead")
    train = tables["train"]
    if eval_dataset is None:
        return train, next((tables[split] for split in EVALUATION_SPLITS if split in tables), []), None
    if isinstance(eval_dataset, str) and eval_dataset in tables:
        return train, tables[eval_dataset], None
    others, source = _tables(eval_dataset, reading)
    for split in (*EVALUATION_SPLITS, "train"):
        if split in others:
            return train, others[split], source
    raise UserError(f"`{source.name}` has no split to evaluate on", f"it has {listed(others)}; give a file instead")


def _labelled(
    tables: Sequence[Rows], text_column: str | None, label_column: str | None, label_names: tuple[str, ...] | None
) -> Labelled:
    """Read all tables of one part."""
    parts = [_rows(table, text_column, label_column, label_names) for table in tables]
    orders = {part.order for part in parts}
    return Labelled(
        [text for part in parts for text in part.texts],
        [label for part in parts for label in part.labels],
        orders.pop() if len(orders) == 1 else None,
        tuple(note for part in parts for note in part.notes),
    )


def _rows(
    table: Rows, text_column: str | None, label_column: str | None, label_names: tuple[str, ...] | None
) -> Labelled:
    text_column, label_column = find_columns(table, text_column, label_column)
    where = f"`{table.name}`"
    texts: list[str] = []
    cells: list[Any] = []
    for text, label in not_empty(table.name, table.read((text_column, label_column))):
        texts.append(as_text(text, len(texts) + 1, where))
        cells.append(label)
    labels = as_labels(cells, where)
    _check_filled(where, texts, "text")
    _check_filled(where, labels, "label")
    note = _found(table, len(texts), (f'text in "{text_column}"', f'label in "{label_column}"'))
    order = label_names or table.class_names.get(label_column)
    return Labelled(texts, _named(labels, order, where), order, (note,))


def _check_filled(where: str, values: Sequence[str], kind: str) -> None:
    if empty := [i for i, value in enumerate(values, 1) if not value.strip()]:
        raise UserError(
            f"{where} has {len(empty)} of {len(values)} rows with a {kind} that is empty, the first is row {empty[0]}",
            f"fix or remove these rows, or name another column with `--{kind}-column`",
        )


def _named(labels: list[str], names: tuple[str, ...] | None, where: str) -> list[str]:
    """Return the labels by their names, where `names` gives one to each integer."""
    if names is None or set(labels) <= set(names):
        return labels
    if set(labels) <= {"False", "True"}:
        labels = [str(int(label == "True")) for label in labels]
    if unnamed := sorted(set(labels) - {str(i) for i in range(len(names))}):
        raise UserError(
            f"{where} has the label `{unnamed[0]}`, which is not among the names {listed(names)}",
            f"for labels that are the integers 0 to {len(names) - 1}, `--label-names` gives one name each",
        )
    return [names[int(label)] for label in labels]


def _order(train: Labelled, evaluation: Labelled, where: str) -> tuple[str, ...]:
    """Return the label names in the order of their indices: as given, or integers by value, or alphabetically."""
    present = set(train.labels)
    if unseen := sorted(set(evaluation.labels) - present):
        raise UserError(
            f"the evaluation data has the label `{unseen[0]}`, which `{where}` does not have",
            "give training data for every label, or remove these rows",
        )
    if len(present) < 2:
        raise UserError(
            f"`{where}` has only one label: {listed(present)}",
            "a classifier needs two or more; name the column of the labels with `--label-column`",
        )
    if train.order:
        return tuple(name for name in train.order if name in present)
    return tuple(sorted(present, key=int if all(_is_integer(name) for name in present) else None))


def _shuffled(examples: Examples, seed: int) -> Examples:
    """Mix the order, so that the first of a file sorted by label do not all have one label."""
    return examples.take(random.Random(seed).sample(range(len(examples)), len(examples)))


def _number(rows: Labelled, names: tuple[str, ...]) -> Examples:
    numbers = {name: i for i, name in enumerate(names)}
    return Examples(rows.texts, [numbers[label] for label in rows.labels])


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and len(name) < LONGEST_NUMBER


def _missing(names: tuple[str, ...], train: Examples, evaluation: Examples) -> Iterator[str]:
    """Say which labels have no text in one of the parts."""
    for part, what in (
        (train, "without a training text, since all of theirs are in the evaluation data"),
        (evaluation, "not in the evaluation, whose scores say nothing about them"),
    ):
        present = set(part.labels)
        if missing := [name for i, name in enumerate(names) if i not in present]:
            yield visible(f"{len(missing)} of {len(names)} labels are {what}: {abridged(missing)}")


def abridged(names: Sequence[str]) -> str:
    """Return the first names as a message lists them, and how many there are beside."""
    rest = len(names) - NAMES_SHOWN
    return listed(names[:NAMES_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
