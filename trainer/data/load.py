"""Texts and labels: read from files, the Hub or the built-in sample, checked, named and split."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from trainer.config import TaskName
from trainer.data.columns import as_text, find_labels, find_texts
from trainer.data.labels import LONGEST_NUMBER, as_label_sets, as_labels
from trainer.data.sources import (
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
from trainer.data.splitting import draw, draw_apart, hold_out, strata, without
from trainer.errors import UserError
from trainer.files.tables import Reading, Rows, listed, not_empty, open_rows, read_table
from trainer.records import write_text
from trainer.tasks import Label, as_set
from trainer.text.characters import is_unicode, visible
from trainer.text.texts import Text, is_valid, parts_of

EVALUATION_SPLITS = ("validation", "valid", "dev", "test")
NAMES_SHOWN = 10
CALIBRATION_SHARE, MOST_CALIBRATION_TEXTS = 0.1, 1000
"""Of the training texts, and at most so many, that are kept from training where thresholds are to be chosen on them."""
FEWEST_LEFT_OVER, MOST_LEFT_OVER = 64, 2000
"""Of the labelled texts that nothing is trained on: fewer are no better to calibrate on than training texts."""

TEXT_COLUMNS = ("text", "text_pair")
"""What the columns of texts are called in the files that are written here."""

T = TypeVar("T")
Tables = dict[str, list[Rows]]
"""By split."""


@dataclass(frozen=True)
class Columns:
    """What the user says about the columns of labelled texts; None for what is found."""

    texts: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    """Names for labels that are the integers 0, 1, …"""
    separator: str | None = None
    """What is between the labels of a text."""
    task: TaskName = "single-label"


@dataclass(frozen=True)
class Examples:
    """Texts with the index of each one's label, or the indices of all its labels."""

    texts: list[Text]
    labels: list[Label]

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
    text_columns: tuple[str, ...] = ()
    """What the texts are called in the data."""
    calibration: Examples | None = None
    """Texts to choose thresholds on, neither trained nor evaluated on; None where there are none to choose."""
    left_over: Examples | None = None
    """Texts beyond the limit of training texts, none of them trained or evaluated on; None where there are too few."""

    @property
    def pairs(self) -> bool:
        """Whether the texts are pairs of texts."""
        return isinstance(self.evaluation.texts[0], tuple)

    def sha256(self) -> str:
        """Return one hash over all texts and labels."""
        kept = (self.train, self.evaluation, *((self.calibration,) if self.calibration else ()))
        parts = [[part.texts, part.labels] for part in kept]
        return hashlib.sha256(json.dumps([self.label_names, *parts]).encode()).hexdigest()


@dataclass(frozen=True)
class Labelled:
    """Texts with the names of each one's labels."""

    texts: list[Text]
    labels: list[tuple[str, ...]]
    order: tuple[str, ...] | None
    """Of the names, where there is one."""
    is_given: bool
    """Whether the data or the user gives it, rather than the order of some columns."""
    text_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_splits(
    dataset: str | Source | None,
    eval_dataset: str | Source | None,
    *,
    columns: Columns | None = None,
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
        columns: what the user says about the columns; None for nothing.
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
    columns = _settled(columns or Columns(), train_tables[0])
    if columns.separator and (columns.task == "single-label" or len(columns.labels or ()) > 1):
        raise UserError("`--label-separator` is for one column of several labels", "leave it out")
    named = _labelled(train_tables, columns)
    eval_named = _labelled(eval_tables, columns)
    names = _order(named, eval_named, train_tables[0].name)
    check_label_names(names)
    rows, evaluation = (_number(part, names, columns.task) for part in (named, eval_named))
    if eval_tables:
        train = rows.take(without(rows.texts, evaluation.texts))
    else:
        train, evaluation = map(rows.take, hold_out(rows.texts, strata(rows.labels), calibration, seed))
    if not len(train):
        raise UserError("every training text is in the evaluation data, too", "give other texts with `--eval-dataset`")
    kept = evaluation.take(draw(strata(evaluation.labels), max_eval_samples, seed))
    taken, rest = draw_apart(strata(train.labels), max_train_samples, seed)
    drawn = train.take(taken)
    used, apart, left_over = (len(drawn), len(kept)), None, None
    if columns.task == "multi-label":
        is_trained = calibration is None
        drawn, kept, apart = _with_calibration(drawn, kept, seed, is_trained=is_trained, is_held_out=not eval_tables)
    elif calibration is None:
        left_over = _left_over(train.take(rest), drawn, seed)
    return Splits(
        train=drawn,
        calibration=apart,
        left_over=left_over,
        text_columns=named.text_columns,
        evaluation=_shuffled(kept, seed),
        label_names=names,
        source=source,
        eval_source=eval_source,
        duplicates_dropped=len(rows) - len(train) - (0 if eval_tables else len(evaluation)),
        available=(len(train) - (used[0] - len(drawn)), len(evaluation) - (used[1] - len(kept))),
        labels_in_order=named.is_given or all(_is_integer(name) for name in names),
        notes=(*named.notes, *eval_named.notes, *_unused(named.order or (), names), *_missing(names, drawn, kept)),
    )


def _with_calibration(
    train: Examples, evaluation: Examples, seed: int, *, is_trained: bool, is_held_out: bool
) -> tuple[Examples, Examples, Examples]:
    """Return both parts without those to choose thresholds on, which nobody trains or evaluates on, and these.

    Args:
        train: what is trained on; or where nothing is, what is called training texts.
        evaluation: what is evaluated on.
        seed: decides which are taken.
        is_trained: whether anything is trained.
        is_held_out: whether the evaluation texts come from the same data as the others.

    Raises:
        UserError: no text of a part has a label.
    """
    if is_trained:
        train, apart = _set_apart(train, seed)
    elif is_held_out:
        apart = train
    else:  # what is called training texts may have been trained on elsewhere
        evaluation, apart = _set_apart(evaluation, seed)
    for part, what in ((train, "training"), (evaluation, "evaluation")):
        if not any(as_set(label) for label in part.labels):
            raise UserError(f"no {what} text has a label", "give more texts with labels")
    return train, evaluation, apart


def _set_apart(examples: Examples, seed: int) -> tuple[Examples, Examples]:
    """Return the examples but for some, and these: one of each text, to choose thresholds on."""
    share = min(CALIBRATION_SHARE, MOST_CALIBRATION_TEXTS / len(examples))
    rest, apart = hold_out(examples.texts, strata(examples.labels), None, seed, share=share)
    return examples.take(rest), examples.take(apart)


def _left_over(rest: Examples, trained: Examples, seed: int) -> Examples | None:
    """Return some of the examples that are not trained on, but for texts that are."""
    some = rest.take(draw(strata(rest.labels), MOST_LEFT_OVER, seed))
    apart = some.take(without(some.texts, trained.texts))
    return apart if len(apart) >= FEWEST_LEFT_OVER else None


def read_labelled(path: Path, label_names: tuple[str, ...], known: Columns) -> Examples:
    """Read labelled texts of a file for a classifier that is trained already.

    Args:
        path: the file.
        label_names: those of the classifier, in the order of their indices.
        known: how the texts that it was trained on were read. Their columns are taken where the file has them, too.

    Raises:
        UserError: it cannot be read, or has a label that the classifier does not know.
    """
    table = open_rows(path, None)
    texts, labels = (asked if asked and {*asked} <= {*table.columns} else None for asked in (known.texts, known.labels))
    rows = _labelled([table], replace(known, texts=texts, labels=labels))
    if unknown := sorted(_present(rows.labels) - {*label_names}):
        raise UserError(
            f"`{path}` has the label `{unknown[0]}`, which the classifier does not know",
            f"it answers with {listed(label_names)}; rename the labels, or remove these rows",
        )
    return _number(rows, label_names, known.task)


def read_texts(
    path: Path,
    text_column: tuple[str, ...] | None = None,
    reading: Reading | None = None,
    *,
    pairs: bool = False,
    trained: tuple[str, ...] = (),
) -> list[Text]:
    """Read the texts of a file, in order; see `stream_texts`."""
    return list(stream_texts(path, text_column, reading, pairs=pairs, trained=trained))


def stream_texts(
    path: Path,
    text_column: tuple[str, ...] | None = None,
    reading: Reading | None = None,
    note: Callable[[str], object] = lambda _: None,
    *,
    pairs: bool = False,
    trained: tuple[str, ...] = (),
) -> Iterator[Text]:
    """Open a file and return its texts, or its pairs of texts, in order, which are read one after the other.

    Empty ones are allowed, and numbers are texts. `note` is told what was found, and `trained` are the columns that are
    looked for first.

    Raises:
        UserError: see `open_rows` and `find_texts`; or a value is no text, or not valid Unicode. What is wrong with a
            row is raised when its turn comes.
    """
    rows = open_rows(path, reading)
    columns = find_texts(rows, text_column, pairs=pairs, trained=trained)
    note(_found(rows, None, (_texts_in(columns),)))
    cells = not_empty(path, rows.read(columns))
    return (_as_texts(row, number, f"`{path}`") for number, row in zip(count(1), cells))


def _as_texts(cells: Sequence[object], number: int, where: str) -> Text:
    """Return the text in one cell, or the pair in two."""
    first, *rest = (as_text(cell, number, where) for cell in cells)
    return (first, rest[0]) if rest else first


def _texts_in(columns: Sequence[str]) -> str:
    return f'text in "{columns[0]}"' if len(columns) == 1 else 'pairs of texts in "{}" and "{}"'.format(*columns)


def _found(rows: Rows, number: int | None, columns: Sequence[str]) -> str:
    size = [] if number is None else [f"{number:,} rows"]
    return visible(f"reads {rows.name}: {', '.join([*size, *rows.written, *columns])}")


def write_examples(path: Path, examples: Examples, label_names: tuple[str, ...]) -> None:
    """Write examples as JSON Lines with the columns `text`, for pairs `text_pair`, and `label`, by name or names."""
    rows = (
        {
            **dict(zip(TEXT_COLUMNS, parts_of(text), strict=False)),
            "label": label_names[label] if isinstance(label, int) else [label_names[i] for i in label],
        }
        for text, label in zip(examples.texts, examples.labels, strict=True)
    )
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_examples(path: Path, label_names: tuple[str, ...]) -> Examples:
    """Read what `write_examples` wrote."""
    columns = read_table(path)
    numbers = {name: i for i, name in enumerate(label_names)}
    texts = zip(*(columns[name] for name in TEXT_COLUMNS if name in columns), strict=True)
    labels = [tuple(map(numbers.__getitem__, i)) if isinstance(i, list) else numbers[i] for i in columns["label"]]
    return Examples([text if len(text) > 1 else text[0] for text in texts], labels)


def check_unicode(texts: Iterable[Text], where: str, *, first: int = 1) -> None:
    """Raise a UserError for a text that is not Unicode; `first` is the number of the first text."""
    for number, text in enumerate(texts, first):
        if not is_valid(text):
            raise UserError(f"text {number} of {where} is not valid Unicode", "fix or remove it")


def check_label_names(names: Sequence[str]) -> None:
    """Raise a UserError for a label name that cannot stand in tables, records and the model card."""
    for name in names:
        if name.splitlines() != [name]:
            raise UserError(f"the label {name!r} has a line break", "rename the label")
        if not is_unicode(name):
            raise UserError(f"the label {name!r} is not valid Unicode", "rename the label")


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
    kinds = {column: getattr(f, "feature", f) for column, f in data.features.items()}  # of a list, what is in it
    classes = {column: tuple(f.names) for column, f in kinds.items() if hasattr(f, "names")}

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


def _settled(columns: Columns, table: Rows) -> Columns:
    """Return the columns with those of 0 and 1 that a table has, so that all other tables must have them, too."""
    found = find_labels(table, columns.labels, find_texts(table, columns.texts, pairs=None), columns.task)
    return replace(columns, labels=found) if len(found) > 1 else columns


def _labelled(tables: Sequence[Rows], columns: Columns) -> Labelled:
    """Read all tables of one part."""
    parts = [_rows(table, columns) for table in tables]
    orders = {(part.order, part.is_given) for part in parts}
    order, is_given = orders.pop() if len(orders) == 1 else (None, False)
    return Labelled(
        [text for part in parts for text in part.texts],
        [label for part in parts for label in part.labels],
        order,
        is_given,
        parts[0].text_columns if parts else (),
        tuple(note for part in parts for note in part.notes),
    )


def _rows(table: Rows, asked: Columns) -> Labelled:
    text_columns = find_texts(table, asked.texts, pairs=None)
    label_columns = find_labels(table, asked.labels, text_columns, asked.task)
    where = f"`{table.name}`"
    texts: list[Text] = []
    cells: list[tuple[Any, ...]] = []
    for row in not_empty(table.name, table.read((*text_columns, *label_columns))):
        texts.append(_as_texts(row[: len(text_columns)], len(texts) + 1, where))
        cells.append(row[len(text_columns) :])
    for part in zip(*map(parts_of, texts), strict=True):
        _check_filled(where, part, "text")
    in_words = ", ".join(f'"{name}"' for name in label_columns)
    if asked.task == "multi-label":
        labels, written = as_label_sets(label_columns, cells, asked.separator, where)
        found = f"labels in {in_words} ({written})"
    else:
        names = as_labels([cell for (cell,) in cells], where)
        _check_filled(where, names, "label")
        labels, found = [(name,) for name in names], f"label in {in_words}"
    classes = table.class_names.get(label_columns[0])
    given = asked.names or classes
    labels = _named(labels, given, where, are_indices=asked.names is None)
    order = given or (label_columns if len(label_columns) > 1 else None)
    note = _found(table, len(texts), (_texts_in(text_columns), found))
    return Labelled(texts, labels, order, given is not None, text_columns, (note,))


def _check_filled(where: str, values: Sequence[str], kind: str) -> None:
    if empty := [i for i, value in enumerate(values, 1) if not value.strip()]:
        raise UserError(
            f"{where} has {len(empty)} of {len(values)} rows with a {kind} that is empty, the first is row {empty[0]}",
            f"fix or remove these rows, or name another column with `--{kind}-column`"
            + ("; where texts have any number of labels, add `--task multi-label`" if kind == "label" else ""),
        )


def _named(
    sets: list[tuple[str, ...]], names: tuple[str, ...] | None, where: str, *, are_indices: bool
) -> list[tuple[str, ...]]:
    """Return the labels by their names, where `names` gives one to each integer.

    `are_indices` says that integers are that in any case, even where there are names such as `1`.
    """
    labels = {label for of_text in sets for label in of_text}
    numbers = {str(i): name for i, name in enumerate(names or ())}
    if names is None or (labels <= set(names) and not (are_indices and labels <= numbers.keys())):
        return sets
    if labels <= {"False", "True"}:
        numbers = {"False": names[0], "True": names[-1]}
    if unnamed := sorted(labels - numbers.keys()):
        raise UserError(
            f"{where} has the label `{unnamed[0]}`, which is not among the names {listed(names)}",
            f"for labels that are the integers 0 to {len(names) - 1}, `--label-names` gives one name each",
        )
    return [tuple(numbers[label] for label in of_text) for of_text in sets]


def _order(train: Labelled, evaluation: Labelled, where: str) -> tuple[str, ...]:
    """Return the label names in the order of their indices: as given, or integers by value, or alphabetically."""
    present = _present(train.labels)
    if unseen := sorted(_present(evaluation.labels) - present):
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


def _present(labels: Iterable[tuple[T, ...]]) -> set[T]:
    return {label for of_text in labels for label in of_text}


def _number(rows: Labelled, names: tuple[str, ...], task: TaskName) -> Examples:
    numbers = {name: i for i, name in enumerate(names)}
    sets = [tuple(sorted(numbers[label] for label in of_text)) for of_text in rows.labels]
    return Examples(rows.texts, [label for (label,) in sets] if task == "single-label" else [*sets])


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and len(name) < LONGEST_NUMBER


def _unused(given: tuple[str, ...], names: tuple[str, ...]) -> Iterator[str]:
    """Say which labels the classifier will not have."""
    if missing := [name for name in given if name not in names]:
        what = "labels are left out, since no training text has them"
        yield visible(f"{len(missing)} of {len(given)} {what}: {abridged(missing)}")


def _missing(names: tuple[str, ...], train: Examples, evaluation: Examples) -> Iterator[str]:
    """Say which labels have no text in one of the parts."""
    for part, what in (
        (train, "without a training text, since all of theirs are kept for other things"),
        (evaluation, "not in the evaluation, whose scores say nothing about them"),
    ):
        present = _present(map(as_set, part.labels))
        if missing := [name for i, name in enumerate(names) if i not in present]:
            yield visible(f"{len(missing)} of {len(names)} labels are {what}: {abridged(missing)}")


def abridged(names: Sequence[str]) -> str:
    """Return the first names as a message lists them, and how many there are beside."""
    rest = len(names) - NAMES_SHOWN
    return listed(names[:NAMES_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
