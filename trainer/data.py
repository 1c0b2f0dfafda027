"""Texts and labels: read from a file, the Hub or the built-in sample, checked, named and split.

Files are read with the standard library (Parquet with pyarrow), not with a data-frame library: a deployed classifier
reads its input with the same code and needs nothing more, and no text such as "NA" becomes a missing value.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.records import write_text
from trainer.sources import (
    DEFAULT_DATASET,
    SAMPLE,
    SAMPLE_REVIEWS,
    HubUnreachableError,
    Source,
    dataset_splits,
)

FILE_TYPES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

TEXT_COLUMNS = ("text", "text", "sentence", "content", "comment", "body", "message", "document", "tweet")
LABEL_COLUMNS = ("label", "labels", "sentiment", "class", "category", "target", "intent", "polarity")
EVALUATION_SPLITS = ("validation", "valid", "dev", "test")

HOLD_OUT = 0.2
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
    """The data of one run: no text of `evaluation` stands in `train`."""

    train: Examples
    evaluation: Examples
    label_names: tuple[str, ...]
    source: Source
    duplicates_dropped: int
    available: tuple[int, int]
    """How many training and evaluation examples there were before the sample limits."""
    labels_in_order: bool
    """Whether data or caller put the classes in an order; else it is the alphabet's."""

    def sha256(self) -> str:
        """Return one hash over all texts and labels."""
        parts = [[part.texts, part.labels] for part in (self.train, self.evaluation)]
        return hashlib.sha256(json.dumps([self.label_names, *parts]).encode()).hexdigest()


@dataclass(frozen=True)
class Table:
    """One file or split: its columns, and what the integers in some of them are called."""

    name: str
    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Texts with the name of each one's label, and the order of the names where the data or the user gives one."""

    texts: list[str]
    labels: list[str]
    order: tuple[str, ...] | None


def load_splits(
    dataset: str | None,
    eval_dataset: str | None,
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
        dataset: a file, a Hub id, or `sample`; None for IMDB, or the sample where the Hub cannot be reached.
        eval_dataset: a file, a Hub id, or the name of a split of `dataset`. None takes the split that the dataset
            keeps for evaluation, or else holds out a stratified fifth.
        text_column: the column with the texts; found by its usual names where None.
        label_column: the same for the labels.
        label_names: what labels that are the integers 0, 1, … are called.
        max_train_samples: the most training examples to take, stratified by label; 0 takes all.
        max_eval_samples: the same for evaluation.
        seed: decides the hold-out and both samples.
        calibration: where nothing is to be trained, how many training examples are wanted for calibration: where
            evaluation examples have to be held out, then all but these are, or but a fifth.

    Raises:
        UserError: something about the data is not as it must be; the message says what and where.
    """
    tables, source = _tables(dataset)
    train_table, eval_table = _choose(tables, source.name, eval_dataset)
    train_rows = _rows(train_table, text_column, label_column, label_names)
    eval_rows = _rows(eval_table, text_column, label_column, label_names) if eval_table else Rows([], [], None)
    names = _order(train_rows, eval_rows, train_table.name)
    evaluation = Examples(eval_rows.texts, [names.index(label) for label in eval_rows.labels])
    train = Examples(train_rows.texts, [names.index(label) for label in train_rows.labels])
    train, dropped = _without_duplicates(train, reserved=evaluation.texts)
    _check_classes(train, names, train_table.name, hold_out=eval_table is None)
    if eval_table is None:
        kept = len(train) - round(HOLD_OUT * len(train))
        if calibration is not None:
            kept = min(max(calibration, len(names)), len(train) - kept)
        train, evaluation = _stratified(train, kept, seed)
    return Splits(
        train=_stratified(train, max_train_samples, seed)[0],
        evaluation=_shuffled(_stratified(evaluation, max_eval_samples, seed)[0], seed),
        label_names=names,
        source=source,
        duplicates_dropped=dropped,
        available=(len(train), len(evaluation)),
        labels_in_order=train_rows.order is not None or all(_is_integer(name) for name in names),
    )


def read_texts(path: Path, text_column: str | None = None) -> list[str]:
    """Read the texts of a file, in order; empty ones are allowed.

    Raises:
        UserError: the file or its text column cannot be read.
    """
    table = read_table(path)
    column = _find_column(table, text_column, TEXT_COLUMNS, "text")
    return ["" if text is None else str(text) for text in table.columns[column]]


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


def read_table(path: Path) -> Table:
    """Read a CSV, TSV, JSON Lines or Parquet file.

    Raises:
        UserError: the file is absent, empty, of another type, not UTF-8, or malformed; the message names the line.
    """
    if not path.is_file():
        what = f"`{path}` is a folder" if path.is_dir() else f"no file `{path}`"
        raise UserError(what, f"give the path of a file: {_listed(FILE_TYPES)}")
    if path.suffix.lower() not in FILE_TYPES:
        raise UserError(
            f"cannot read `{path}`: unknown file type `{path.suffix}`", f"give one of {_listed(FILE_TYPES)}"
        )
    try:
        if path.suffix.lower() == ".parquet":
            table = _read_parquet(path)
        else:
            text = path.read_bytes().decode("utf-8-sig")  # as bytes, so that no line break is translated
            is_json = path.suffix.lower() in (".jsonl", ".ndjson")
            table = Table(str(path), _parse_json_lines(path, text) if is_json else _parse_csv(path, text))
    except UnicodeDecodeError as error:
        raise UserError(
            f"`{path}` is not valid UTF-8 at byte {error.start}", "save it as UTF-8, for example with `iconv`"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read `{path}`: {error.strerror or error}", "check the file") from None
    if not table.columns or not next(iter(table.columns.values())):
        raise UserError(f"`{path}` is empty", "give a file with a header and at least one row")
    return table


def _parse_csv(path: Path, text: str) -> dict[str, list[Any]]:
    csv.field_size_limit(sys.maxsize)  # a text may be longer than the 128 KiB that csv allows by default
    reader = csv.reader(
        io.StringIO(text, newline=""), strict=True, delimiter="\t" if path.suffix.lower() == ".tsv" else ","
    )
    try:
        header = next(reader, [])
        columns: dict[str, list[Any]] = {name.strip(): [] for name in header}
        if len(columns) != len(header):
            raise UserError(f"`{path}` names a column twice", "give every column a name of its own")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"`{path}` line {reader.line_num}: {len(row)} fields, the header has {len(header)}",
                    "quote fields that hold the separator or a line break",
                )
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    except csv.Error as error:
        raise UserError(f"`{path}` line {reader.line_num}: {error}", "check the quoting") from None
    return columns


def _parse_json_lines(path: Path, text: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"`{path}` line {number} is not JSON: {error}", "give one JSON object a line") from None
        if not isinstance(row, dict) or (columns and row.keys() != columns.keys()):
            raise UserError(f"`{path}` line {number} has other fields than line 1", "give every line the same fields")
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UserError(f"reading `{path}` needs pyarrow", "`pip install pyarrow`, or give a CSV file") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"`{path}` is not a Parquet file: {str(error).splitlines()[0]}", "check the file") from None
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(str(path), columns, _class_names(table.schema.metadata))


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names that the `datasets` library leaves in the Parquet files it writes."""
    written = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = written.get("info", {}).get("features", {})
    return {column: tuple(feature["names"]) for column, feature in features.items() if "names" in feature}


def _tables(dataset: str | None) -> tuple[dict[str, Table], Source]:
    """Return a dataset's splits by name, and where it came from."""
    if dataset is None:
        try:
            return _hub_tables(DEFAULT_DATASET)
        except HubUnreachableError:
            tables, _ = _tables(SAMPLE)
            return tables, Source(SAMPLE, None, stands_in_for=DEFAULT_DATASET)
    if dataset == SAMPLE:
        table = read_table(SAMPLE_REVIEWS)
        return dict(_by_split(table)), Source(SAMPLE, None, None)
    if _is_path(dataset):
        return {"train": read_table(Path(dataset))}, Source(str(Path(dataset).resolve()), None, None)
    return _hub_tables(dataset)


def _by_split(table: Table) -> Iterator[tuple[str, Table]]:
    """Take a table apart by its column `split`."""
    for split in dict.fromkeys(table.columns["split"]):
        chosen = [i for i, name in enumerate(table.columns["split"]) if name == split]
        columns = {name: [values[i] for i in chosen] for name, values in table.columns.items() if name != "split"}
        yield split, Table(f"{table.name} ({split})", columns)


def _hub_tables(name: str) -> tuple[dict[str, Table], Source]:
    splits, revision = dataset_splits(name)
    tables = {}
    for split, data in splits.items():
        columns = {column: data[column][:] for column in data.column_names}
        classes = {column: tuple(f.names) for column, f in data.features.items() if hasattr(f, "names")}
        tables[split] = Table(f"{name} ({split})", columns, classes)
    return tables, Source(name, revision, None)


def _is_path(name: str) -> bool:
    return Path(name).exists() or Path(name).suffix.lower() in FILE_TYPES or Path(name).is_absolute()


def _choose(tables: dict[str, Table], name: str, eval_dataset: str | None) -> tuple[Table, Table | None]:
    """Choose the table to train on and the one to evaluate on, None where it has to be held out."""
    if "train" not in tables:
        raise UserError(f"`{name}` has no split `train`", f"it has {_listed(tables)}; give a file instead")
    train = tables["train"]
    if eval_dataset is None:
        return train, next((tables[split] for split in EVALUATION_SPLITS if split in tables), None)
    if eval_dataset in tables:
        return train, tables[eval_dataset]
    others, _ = _tables(eval_dataset)
    for split in (*EVALUATION_SPLITS, "train"):
        if split in others:
            return train, others[split]
    raise UserError(f"`{eval_dataset}` has no split to evaluate on", f"it has {_listed(others)}; name a file instead")


def _rows(table: Table, text_column: str | None, label_column: str | None, label_names: tuple[str, ...] | None) -> Rows:
    texts = table.columns[_find_column(table, text_column, TEXT_COLUMNS, "text")]
    label_column = _find_column(table, label_column, LABEL_COLUMNS, "label")
    labels = table.columns[label_column]
    for problem, bad in (
        ("text that is empty", [i for i, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]),
        ("label that is empty or not a name or an integer", [i for i, v in enumerate(labels) if not _is_label(v)]),
    ):
        if bad:
            raise UserError(
                f"`{table.name}` has {len(bad)} of {len(texts)} rows with a {problem}, the first is row {bad[0] + 1}",
                "mend or remove these rows",
            )
    check_unicode(texts, f"`{table.name}`")
    names = label_names or table.class_names.get(label_column)
    written = [str(label).strip() for label in labels]
    if names is None or set(written) <= set(names):
        return Rows(texts, written, names)
    if odd := sorted(set(written) - {str(i) for i in range(len(names))}):
        raise UserError(
            f"`{table.name}` has the label `{odd[0]}`, which the names {_listed(names)} leave out",
            f"for labels that are the integers 0 to {len(names) - 1}, `--label-names` gives one name each",
        )
    return Rows(texts, [names[int(label)] for label in written], names)


def check_unicode(texts: Sequence[str], where: str) -> None:
    """Refuse texts with half a surrogate pair, which JSON can spell and no tokenizer can read.

    Raises:
        UserError: there is one.
    """
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"text {number} of {where} is not valid Unicode", "mend or remove it") from None


def _is_label(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and bool(value.strip()))


def _find_column(table: Table, wanted: str | None, usual: tuple[str, ...], kind: str) -> str:
    flag = f"--{kind}-column"
    if wanted is not None:
        if wanted in table.columns:
            return wanted
        raise UserError(f"`{table.name}` has no column `{wanted}`", f"it has {_listed(table.columns)}")
    lower = {name.lower(): name for name in table.columns}
    found = next((lower[name] for name in usual if name in lower), None)
    if found is None:
        raise UserError(
            f"cannot tell which column of `{table.name}` holds the {kind}s",
            f"name it with `{flag}`; the file has {_listed(table.columns)}",
        )
    return found


def _order(train: Rows, evaluation: Rows, where: str) -> tuple[str, ...]:
    """Return the names of the classes in the order of their indices: as given, or integers by value, or by alphabet."""
    found = set(train.labels)
    if strangers := sorted(set(evaluation.labels) - found):
        raise UserError(
            f"the evaluation data has the label `{strangers[0]}`, which `{where}` never shows",
            "give training data for every class, or remove these rows",
        )
    if train.order:
        return tuple(name for name in train.order if name in found)
    return tuple(sorted(found, key=int if all(_is_integer(name) for name in found) else None))


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _without_duplicates(examples: Examples, reserved: list[str]) -> tuple[Examples, int]:
    """Drop texts that stand in `reserved` or came before; return what is left and how many went."""
    seen = {_normal(text) for text in reserved}
    kept = []
    for i, text in enumerate(examples.texts):
        if (normal := _normal(text)) not in seen:
            seen.add(normal)
            kept.append(i)
    return examples.take(kept), len(examples) - len(kept)


def _normal(text: str) -> str:
    """Return what two texts share that differ in case and white space alone."""
    return " ".join(text.casefold().split())


def _check_classes(examples: Examples, names: tuple[str, ...], where: str, *, hold_out: bool) -> None:
    if len(names) < 2:
        raise UserError(
            f"`{where}` has one class only: {_listed(names)}",
            "a classifier needs two or more; is it the right label column?",
        )
    rarest, count = min(
        Counter(dict.fromkeys(range(len(names)), 0) | Counter(examples.labels)).items(), key=lambda c: c[1]
    )
    if count < (need := 2 if hold_out else 1):
        raise UserError(
            f"`{where}` has {count} different texts of the class `{names[rarest]}`, and needs {need}",
            "add examples, or remove the class; if there are very many classes, is it the right label column?",
        )


def _stratified(examples: Examples, size: int, seed: int) -> tuple[Examples, Examples]:
    """Split off `size` examples, each class by its share; all of them where `size` is 0 or not below their number."""
    from sklearn.model_selection import train_test_split

    if not 0 < size < len(examples):
        return examples, Examples([], [])
    indices = range(len(examples))
    try:
        first, second = train_test_split(indices, train_size=size, random_state=seed, stratify=examples.labels)
    except ValueError as error:
        raise UserError(
            f"cannot split {len(examples)} examples into {size} and the rest by class: {error}",
            "add examples, or raise the sample limits",
        ) from None
    return examples.take(first), examples.take(second)


def _shuffled(examples: Examples, seed: int) -> Examples:
    """Mix the order, so that the first of a file sorted by label are not all of one class."""
    return examples.take(random.Random(seed).sample(range(len(examples)), len(examples)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
