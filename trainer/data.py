"""Texts and labels: read from a file, the Hub or the built-in sample, checked, named and split."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import count, repeat
from pathlib import Path
from typing import Any

from trainer.characters import is_unicode
from trainer.errors import UserError
from trainer.records import write_text
from trainer.sources import DEFAULT_DATASET, SAMPLE, SAMPLE_REVIEWS, HubUnreachableError, Source, dataset_splits
from trainer.tables import FILE_TYPES, Table, find_column, listed, not_empty, open_rows, read_table

TEXT_COLUMNS = ("text", "review", "sentence", "content", "comment", "body", "message", "document", "tweet")
LABEL_COLUMNS = ("label", "labels", "sentiment", "class", "category", "target", "intent", "polarity")
EVALUATION_SPLITS = ("validation", "valid", "dev", "test")

HELD_OUT_SHARE = 0.2
"""The share of the texts kept for evaluation where no evaluation set is named."""


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

    def sha256(self) -> str:
        """Return one hash over all texts and labels."""
        parts = [[part.texts, part.labels] for part in (self.train, self.evaluation)]
        return hashlib.sha256(json.dumps([self.label_names, *parts]).encode()).hexdigest()


@dataclass(frozen=True)
class Rows:
    """Texts with the name of each one's label, and the order of the names where the data or the user gives one."""

    texts: list[str]
    labels: list[str]
    order: tuple[str, ...] | None


def load_splits(
    dataset: str | Source | None,
    eval_dataset: str | Source | None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    label_names: tuple[str, ...] | None = None,
    max_train_samples: int = 0,
    max_eval_samples: int = 0,
    seed: int = 0,
    calibration: int | None = None,
) -> Splits:
    """Load a dataset and make the training and evaluation examples of a run.

    Args:
        dataset: a file, a Hub id, `sample`, or the source in an earlier result; None for IMDB, or the sample where
            the Hub cannot be reached.
        eval_dataset: a file, a Hub id, a source, or the name of a split of `dataset`. None uses the split that the
            dataset has for evaluation, or else holds out a stratified fifth.
        text_column: None for the first with a usual name.
        label_column: the same for the labels.
        label_names: names for labels that are the integers 0, 1, …
        max_train_samples: 0 for all; a part is stratified by label.
        max_eval_samples: the same for evaluation.
        seed: decides which examples are held out and sampled.
        calibration: where nothing is to be trained, how many training examples are needed for calibration. If
            evaluation examples have to be held out, all but these are, and four fifths at least.

    Raises:
        UserError: the data cannot be used; the message says what is wrong and where.
    """
    tables, source = _tables(dataset)
    train_table, eval_table, eval_source = _choose(tables, source.name, eval_dataset)
    train_rows = _rows(train_table, text_column, label_column, label_names)
    eval_rows = _rows(eval_table, text_column, label_column, label_names) if eval_table else Rows([], [], None)
    names = _order(train_rows, eval_rows, train_table.name)
    check_label_names(names)
    train, evaluation = _number(train_rows, names), _number(eval_rows, names)
    train, dropped = _without_duplicates(train, reserved=evaluation.texts)
    _check_classes(train, names, train_table.name, hold_out=eval_table is None)
    if eval_table is None:
        train, evaluation = _hold_out(train, len(names), calibration, seed)
    return Splits(
        train=_stratified(train, max_train_samples, seed)[0],
        evaluation=_shuffled(_stratified(evaluation, max_eval_samples, seed)[0], seed),
        label_names=names,
        source=source,
        eval_source=eval_source,
        duplicates_dropped=dropped,
        available=(len(train), len(evaluation)),
        labels_in_order=train_rows.order is not None or all(_is_integer(name) for name in names),
    )


def read_texts(path: Path, text_column: str | None = None) -> list[str]:
    """Read the texts of a file, in order; see `stream_texts`."""
    return list(stream_texts(path, text_column))


def stream_texts(path: Path, text_column: str | None = None) -> Iterator[str]:
    """Open a file and return its texts, in order, which are read one after the other.

    Empty ones are allowed, and numbers are texts.

    Raises:
        UserError: see `open_rows` and `find_column`; or a value is no text, or not valid Unicode. What is wrong with a
            row is raised when its turn comes.
    """
    rows = open_rows(path)
    column = find_column(rows.name, rows.columns, text_column, TEXT_COLUMNS, "text")
    return map(_text, not_empty(path, rows.read((column,))), count(1), repeat(f"`{path}`"))


def _text(row: tuple[Any, ...], number: int, where: str) -> str:
    (value,) = row
    if value is None:
        return ""
    if isinstance(value, str):
        check_unicode([value], where, first=number)
        return value
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not is_finite:
        kind = type(value).__name__ if is_finite else value
        raise UserError(f"row {number} of {where} holds no text but `{kind}`", "give texts or numbers in this column")
    return str(value)


def write_examples(path: Path, examples: Examples, label_names: tuple[str, ...]) -> None:
    """Write examples as JSON Lines with the columns `text` and `label`, the label by name."""
    rows = (
        json.dumps({"text": text, "label": label_names[label]}, ensure_ascii=False)
        for text, label in zip(examples.texts, examples.labels, strict=True)
    )
    write_text(path, "".join(row + "\n" for row in rows))


def read_examples(path: Path, label_names: tuple[str, ...]) -> Examples:
    """Read what `write_examples` wrote."""
    columns = read_table(path).columns
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


def _tables(dataset: str | Source | None) -> tuple[dict[str, Table], Source]:
    """Return a dataset's splits by name, and where it came from."""
    if dataset is None:
        try:
            return _hub_tables(DEFAULT_DATASET)
        except HubUnreachableError:
            tables, _ = _tables(SAMPLE)
            return tables, Source(SAMPLE, None, stands_in_for=DEFAULT_DATASET)
    name, revision = (dataset.name, dataset.revision) if isinstance(dataset, Source) else (dataset, None)
    if name == SAMPLE:
        return dict(_by_split(read_table(SAMPLE_REVIEWS))), Source(SAMPLE, None, None)
    if revision is None and _is_path(name):
        return {"train": read_table(Path(name))}, Source(str(Path(name).resolve()), None, None)
    return _hub_tables(name, revision)


def _by_split(table: Table) -> Iterator[tuple[str, Table]]:
    """Take a table apart by its column `split`."""
    for split in dict.fromkeys(table.columns["split"]):
        chosen = [i for i, name in enumerate(table.columns["split"]) if name == split]
        columns = {name: [values[i] for i in chosen] for name, values in table.columns.items() if name != "split"}
        yield split, Table(f"{table.name} ({split})", columns)


def _hub_tables(name: str, revision: str | None = None) -> tuple[dict[str, Table], Source]:
    splits, commit = dataset_splits(name, revision)
    tables = {}
    for split, data in splits.items():
        columns = {column: data[column][:] for column in data.column_names}
        classes = {column: tuple(f.names) for column, f in data.features.items() if hasattr(f, "names")}
        tables[split] = Table(f"{name} ({split})", columns, classes)
    return tables, Source(name, commit, None)


def _is_path(name: str) -> bool:
    return Path(name).exists() or Path(name).suffix.lower() in FILE_TYPES or Path(name).is_absolute()


def _choose(
    tables: dict[str, Table], name: str, eval_dataset: str | Source | None
) -> tuple[Table, Table | None, Source | None]:
    """Return the tables to train and to evaluate on, None where examples are to be held out, and a separate source."""
    if "train" not in tables:
        raise UserError(f"`{name}` has no split `train`", f"it has {listed(tables)}; give a file instead")
    train = tables["train"]
    if eval_dataset is None:
        return train, next((tables[split] for split in EVALUATION_SPLITS if split in tables), None), None
    if isinstance(eval_dataset, str) and eval_dataset in tables:
        return train, tables[eval_dataset], None
    others, source = _tables(eval_dataset)
    for split in (*EVALUATION_SPLITS, "train"):
        if split in others:
            return train, others[split], source
    raise UserError(f"`{source.name}` has no split to evaluate on", f"it has {listed(others)}; give a file instead")


def _rows(table: Table, text_column: str | None, label_column: str | None, label_names: tuple[str, ...] | None) -> Rows:
    texts = table.columns[find_column(table.name, table.columns, text_column, TEXT_COLUMNS, "text")]
    label_column = find_column(table.name, table.columns, label_column, LABEL_COLUMNS, "label")
    labels = table.columns[label_column]
    _check_cells(table.name, texts, labels)
    names = label_names or table.class_names.get(label_column)
    written = [str(label).strip() for label in labels]
    if names is None or set(written) <= set(names):
        return Rows(texts, written, names)
    if unnamed := sorted(set(written) - {str(i) for i in range(len(names))}):
        raise UserError(
            f"`{table.name}` has the label `{unnamed[0]}`, which is not among the names {listed(names)}",
            f"for labels that are the integers 0 to {len(names) - 1}, `--label-names` gives one name each",
        )
    return Rows(texts, [names[int(label)] for label in written], names)


def _check_cells(name: str, texts: Sequence[Any], labels: Sequence[Any]) -> None:
    """Refuse empty texts and labels, and those of another type."""
    for problem, rows in (
        ("text that is empty", [i for i, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]),
        ("label that is empty or not a name or an integer", [i for i, v in enumerate(labels) if not _is_label(v)]),
    ):
        if rows:
            raise UserError(
                f"`{name}` has {len(rows)} of {len(texts)} rows with a {problem}, the first is row {rows[0] + 1}",
                "fix or remove these rows",
            )
    check_unicode(texts, f"`{name}`")


def _is_label(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and bool(value.strip()))


def _order(train: Rows, evaluation: Rows, where: str) -> tuple[str, ...]:
    """Return the label names in the order of their indices: as given, or integers by value, or alphabetically."""
    present = set(train.labels)
    if unseen := sorted(set(evaluation.labels) - present):
        raise UserError(
            f"the evaluation data has the label `{unseen[0]}`, which `{where}` does not have",
            "give training data for every label, or remove these rows",
        )
    if train.order:
        return tuple(name for name in train.order if name in present)
    return tuple(sorted(present, key=int if all(_is_integer(name) for name in present) else None))


def _number(rows: Rows, names: tuple[str, ...]) -> Examples:
    return Examples(rows.texts, [names.index(label) for label in rows.labels])


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _without_duplicates(examples: Examples, reserved: list[str]) -> tuple[Examples, int]:
    """Drop texts that are in `reserved` or came before; return what is left and how many were dropped."""
    seen = {_normalise(text) for text in reserved}
    kept = []
    for i, text in enumerate(examples.texts):
        if (normalised := _normalise(text)) not in seen:
            seen.add(normalised)
            kept.append(i)
    return examples.take(kept), len(examples) - len(kept)


def _normalise(text: str) -> str:
    """Return what two texts have in common that differ only in case and white space."""
    return " ".join(text.casefold().split())


def _check_classes(examples: Examples, names: tuple[str, ...], where: str, *, hold_out: bool) -> None:
    if len(names) < 2:
        raise UserError(
            f"`{where}` has only one label: {listed(names)}",
            "a classifier needs two or more; is it the right label column?",
        )
    counts = Counter(dict.fromkeys(range(len(names)), 0) | Counter(examples.labels))
    rarest, count = min(counts.items(), key=lambda item: item[1])
    if count < (needed := 2 if hold_out else 1):
        raise UserError(
            f"`{where}` has {count} different texts with the label `{names[rarest]}`, and needs {needed}",
            "add examples, or remove the label; if there are very many labels, is it the right label column?",
        )


def _hold_out(train: Examples, labels: int, calibration: int | None, seed: int) -> tuple[Examples, Examples]:
    """Split examples into those to train on, or to calibrate on, and those to evaluate on."""
    fifth = round(HELD_OUT_SHARE * len(train))
    kept = len(train) - fifth if calibration is None else min(max(calibration, labels), fifth)
    return _stratified(train, kept, seed)


def _stratified(examples: Examples, size: int, seed: int) -> tuple[Examples, Examples]:
    """Split off `size` examples, each label by its share; all of them where `size` is 0 or not below their number."""
    from sklearn.model_selection import train_test_split

    if not 0 < size < len(examples):
        return examples, Examples([], [])
    indices = range(len(examples))
    try:
        first, second = train_test_split(indices, train_size=size, random_state=seed, stratify=examples.labels)
    except ValueError as error:
        raise UserError(
            f"cannot split {len(examples)} examples into {size} and the rest by label: {error}",
            "add examples, or raise the sample limits",
        ) from None
    return examples.take(first), examples.take(second)


def _shuffled(examples: Examples, seed: int) -> Examples:
    """Mix the order, so that the first of a file sorted by label do not all have one label."""
    return examples.take(random.Random(seed).sample(range(len(examples)), len(examples)))
