"""The run directory: where each stage leaves its work, and the record that the trainer leaves of its own."""

from __future__ import annotations

import contextlib
import random
import shutil
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trainer.adopt.config import AdoptConfig
from trainer.config import TaskName, TrainConfig, Truncation
from trainer.data.load import FEWEST_LEFT_OVER, Columns, Examples, Splits, load_splits, write_examples
from trainer.data.numbering import number_labels
from trainer.data.sources import Base, Source
from trainer.data.splitting import without as without_texts
from trainer.errors import UserError
from trainer.files.tables import Reading
from trainer.lexical.file import to_bytes
from trainer.lexical.fit import Fitted
from trainer.lexical.truncation import TruncationChoice
from trainer.locks import LOCK, hold, is_first_process, is_held
from trainer.records import Upgrade, Values, file_sha256, read_record, renamed, without, write_record
from trainer.text.encoding import Encoder
from trainer.text.texts import Text

CALIBRATION_TEXTS = 64
"""Training texts kept for the exporter, which measures ranges of activations on them; more where it chooses thresholds,
which none of them was trained on."""
PARTIAL = "run.partial"
"""The folder in which new results are made: they replace the old ones when they are complete."""
REMOVED = ".lora2onnx.removed"
"""What a folder is called while it is removed."""


def discard(path: Path) -> None:
    """Remove a folder, which a kill on the way leaves whole or under a name that nobody reads."""
    removed = path.with_name(REMOVED)
    _remove(removed)
    if removed.exists():
        raise UserError(f"`{removed}` cannot be removed", "remove it, or choose another folder")
    if path.exists():
        path.rename(removed)
        _remove(removed)


def _remove(path: Path) -> None:
    if path.is_symlink():  # to a larger disk, for instance
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def holds_only_leftovers(folder: Path, note: Path) -> bool:
    """Return whether `folder` is empty, but for what a command leaves that is killed before it wrote its `note`."""
    if not folder.exists():
        return True
    known = {folder / LOCK, folder / REMOVED, folder / PARTIAL}
    if note.parent.is_dir() and all(_is_leftover(path, note) for path in note.parent.iterdir()):
        known.add(note.parent)
    return set(folder.iterdir()) <= known


def _is_leftover(path: Path, note: Path) -> bool:
    return path.name == REMOVED or path.name.startswith(f".{note.name}.")


class RunDir:
    """The paths inside one run directory. Creating this object reads and writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        """TrainRecord, written last."""
        self.adapter = path / "adapter"
        """The LoRA adapter with its head, or a checkpoint that is nowhere else; and the tokenizer."""
        self.evaluation = path / "data" / "evaluation.jsonl"
        """The evaluation texts: the later stages measure on exactly these."""
        self.calibration = path / "data" / "calibration.jsonl"
        """Texts on which the exporter measures ranges of activations, and chooses thresholds."""
        self.lexical = path / "lexical.safetensors"
        """The linear classifier of the training texts, where there is one: see `trainer.lexical`."""
        self.checkpoints = path / "checkpoints"
        """The state of an unfinished run, removed when it finishes."""
        self.unfinished = self.checkpoints / "config.json"
        """The configuration of an unfinished run, against which `--resume` is checked."""
        self.export = path / "export"
        """The exporter's artifacts, a folder each."""
        self.export_record = path / "export.json"
        self.bench_record = path / "bench.json"
        self.bench_report = path / "bench.md"
        """The bench record as tables; `.csv` and `.html` are beside it."""

    def load(self, *, calibration: bool = False) -> TrainRecord:
        """Read the record of the finished run and check that the files it describes are unchanged.

        Raises:
            UserError: there is no finished run, or its files have changed, or it is one of the oldest, which have no
                `calibration` texts, and these are needed.
        """
        self.settle()
        if not self.record.exists():
            raise UserError(f"no trained run in `{self.path}`", f"run `{TrainRecord.MADE_BY}` first")
        record = read_record(self.record, TrainRecord)
        files = {self.adapter / name: sha256 for name, sha256 in record.adapter_sha256.items()}
        files[self.evaluation] = record.evaluation_sha256
        if record.calibration_sha256:
            files[self.calibration] = record.calibration_sha256
        elif calibration:
            raise UserError(
                f"the run in `{self.path}` is too old: it has no calibration texts",
                f"run `{TrainRecord.MADE_BY} --overwrite` again",
            )
        if record.lexical_sha256:
            files[self.lexical] = record.lexical_sha256
        for path, sha256 in files.items():
            if not path.is_file() or file_sha256(path) != sha256:
                raise UserError(
                    f"`{path}` is not the file that `{self.record}` describes",
                    f"restore it, or run `{TrainRecord.MADE_BY} --overwrite` again",
                )
        return record

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock on a finished run; where there is none, `load` says so, and no folder is made."""
        self.settle()
        with hold(self.path) if self.record.exists() else contextlib.nullcontext():
            yield

    def has_adapter(self) -> bool:
        """Return whether there is an adapter to merge, rather than a checkpoint that was merged elsewhere."""
        return (self.adapter / "adapter_config.json").is_file()

    def has_checkpoint(self) -> bool:
        """Return whether a whole checkpoint is here, as where all of its weights were trained."""
        return (self.adapter / "config.json").is_file()

    def is_ours(self) -> bool:
        """Return whether this is a run, finished or not, rather than other files of the same names."""
        records = ((self.record, TrainRecord), (self.unfinished, UnfinishedRun))
        return any(kind.__name__ in path.read_text(errors="replace") for path, kind in records if path.is_file())

    def is_vacant(self) -> bool:
        """Return whether there is nothing here, but for the leftovers of a command that was killed as it began."""
        return holds_only_leftovers(self.path, self.unfinished)

    def new_results(self) -> RunDir:
        """Return an empty place for an adapter, its texts and their record, which `settle` puts in place."""
        discard(self.path / PARTIAL)
        return RunDir(self.path / PARTIAL)

    def settle(self) -> None:
        """Replace the adapter, its texts and their record by new results that are complete; their record says so.

        Whoever is killed on the way leaves the rest to the next command. What later stages made of the old results
        stays, and is stale.
        """
        new = RunDir(self.path / PARTIAL)
        if not (new.record.is_file() and is_first_process()):
            return
        with contextlib.nullcontext() if is_held(self.path) else hold(self.path):
            if new.adapter.exists():  # nothing is in place yet, and there may be no new one
                self.lexical.unlink(missing_ok=True)
            for source, target in ((new.adapter, self.adapter), (new.evaluation.parent, self.evaluation.parent)):
                if source.exists():  # otherwise it is in place already
                    discard(target)
                    source.rename(target)
            for source, target in ((new.lexical, self.lexical), (new.record, self.record)):
                if source.is_file():
                    source.replace(target)
            discard(new.path)


@dataclass(frozen=True)
class EpochScores:
    """The scores on the evaluation texts after one epoch."""

    epoch: int
    accuracy: float
    """Share of the texts whose label, or whose labels all together, are right."""
    f1_weighted: float
    loss: float
    f1_macro: float | None = None
    """None in records older than schema 6."""
    f1_micro: float | None = None
    average_precision: float | None = None
    """Both for `multi-label` alone; the mean over labels that any text has."""


@dataclass(frozen=True)
class Training:
    """How the adapter of a run was trained."""

    config: TrainConfig
    train_texts: int
    duplicates_dropped: int
    trainable_parameters: int
    total_parameters: int
    epochs: tuple[EpochScores, ...]
    best_epoch: int
    device: str
    precision: str
    duration_s: float
    finished_at: str
    data_sha256: str = ""
    """Of the training and evaluation texts with their labels; empty for runs older than schema 4."""
    eval_dataset: Source | None = None
    """The separate evaluation dataset, where there was one."""
    truncation_choice: TruncationChoice | None = None
    """How the rule was found, where none was asked for."""

    @property
    def best(self) -> EpochScores:
        """The scores of the epoch that was kept."""
        return next(scores for scores in self.epochs if scores.epoch == self.best_epoch)


@dataclass(frozen=True)
class Teaching:
    """From whom a student learnt."""

    run: Path
    """The teacher's run directory."""
    run_sha256: str
    """Of the teacher's `run.json`."""
    temperature: float
    unlabelled_texts: int
    """How many texts without labels it learnt from, beside the training texts."""


def _name_adapter_files(values: Values) -> Values:
    """Schema 1: at first, there was one hash, of the weights alone."""
    sha256 = values["adapter_sha256"]
    named = sha256 if isinstance(sha256, dict) else {"adapter_model.safetensors": sha256}
    return {**values, "adapter_sha256": named}


def _gather_training(values: Values) -> Values:
    """Schema 2: what describes the training stood beside what describes the run."""
    names = ("config", "train_reviews", "duplicates_dropped", "trainable_parameters", "total_parameters", "epochs",
             "best_epoch", "device", "precision", "duration_s", "finished_at")  # fmt: skip
    return {**without(values, *names), "training": {name: values[name] for name in names}}


def _call_reviews_texts(values: Values) -> Values:
    """Schema 3: texts were called reviews."""
    names = {"evaluation_reviews": "evaluation_texts", "train_reviews": "train_texts"}
    return typing.cast(Values, renamed(values, names))


def _list_columns(values: Values) -> Values:
    """Schema 5: of the texts and of the labels, there was one column each."""
    if isinstance(values, dict):
        return {key: _listed(value) if key in ("text_column", "label_column") else _list_columns(value)
                for key, value in values.items()}  # fmt: skip
    return values


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class TrainRecord:
    """What a run holds: everything that the exporter needs to know about it."""

    SCHEMA: ClassVar[int] = 7
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {
        1: _name_adapter_files,
        2: _gather_training,
        3: _call_reviews_texts,
        5: _list_columns,
    }
    MADE_BY: ClassVar[str] = "python -m trainer"

    base: Source
    base_sha256: str
    dataset: Source
    label_names: tuple[str, ...]
    max_length: int
    truncation: Truncation
    pad_token_id: int
    evaluation_texts: int
    training: Training | None
    """None where the adapter or checkpoint was trained elsewhere."""
    versions: dict[str, str]
    adapter_sha256: dict[str, str]
    """Of every file in `adapter/`."""
    evaluation_sha256: str
    calibration_sha256: str = ""
    """Empty for runs older than schema 2, which kept no calibration texts."""
    calibration_is_apart: bool = False
    """Whether it is known that nothing was trained on the calibration texts."""
    lexical_sha256: str = ""
    """Of the linear classifier of the training texts; empty where there is none."""
    lexical_reason: str = ""
    """Why there is none; empty for runs older than schema 7, too."""
    lexical_texts: int = 0
    """How many texts it was fitted on."""
    lexical_accuracy: float | None = None
    """Of classifiers like it, on texts that they were not fitted on."""
    task: TaskName = "single-label"
    pairs: bool = False
    """Whether it reads pairs of texts."""
    text_columns: tuple[str, ...] = ()
    """What the texts were called; empty in records older than schema 6."""
    adopted: AdoptConfig | None = None
    """What was asked for, where the adapter or checkpoint was trained elsewhere."""
    teaching: Teaching | None = None
    """None where nobody taught it."""


@dataclass(frozen=True)
class UnfinishedRun:
    """What an unfinished run was given."""

    SCHEMA: ClassVar[int] = 4
    UPGRADES: ClassVar[Mapping[int, Upgrade]] = {2: _list_columns}
    MADE_BY: ClassVar[str] = "python -m trainer"

    config: TrainConfig
    base_sha256: str = ""
    data_sha256: str = ""
    """Of the training and evaluation texts with their labels."""
    truncation_choice: TruncationChoice | None = None
    """Which is not made anew when the run is resumed; None where the rule was asked for."""
    lessons_sha256: str = ""
    """Of the teacher's record and all texts that it is asked; empty without a teacher."""
    precision: str = ""
    """In which it is trained; empty for runs older than schema 4."""


def load_data(config: TrainConfig, dataset: str | Source | None, eval_dataset: str | Source | None) -> Splits:
    """Load the data that a configuration asks for, from the datasets that it names or from their recorded sources."""
    return load_splits(
        dataset,
        eval_dataset,
        columns=Columns(
            config.text_column, config.label_column, config.label_names, config.label_separator, config.task_name
        ),
        reading=Reading(config.encoding, config.no_header),
        max_train_samples=config.max_train_samples,
        max_eval_samples=config.max_eval_samples,
        seed=config.seed,
    )


def reload_splits(record: TrainRecord) -> Splits:
    """Read a run's training and evaluation texts again, from the sources that its record names.

    Raises:
        UserError: they have changed since, cannot be read, or the record does not say what they were.
    """
    training = record.training
    if training is None:
        raise UserError(
            "the training data of a run that was trained elsewhere is not known", f"train with `{TrainRecord.MADE_BY}`"
        )
    if not training.data_sha256:
        raise UserError(
            "this run is too old to recognise its training data", f"run `{TrainRecord.MADE_BY} --overwrite` again"
        )
    splits = load_data(training.config, record.dataset, training.eval_dataset or training.config.eval_dataset)
    if splits.label_names != record.label_names:  # a student numbers them as its teacher does
        splits = number_labels(splits, record.label_names, record.task)
    if splits.sha256() != training.data_sha256:
        raise UserError("the training data of this run has changed since", "restore it, or train again")
    return splits


def write_run(
    run: RunDir,
    base: Base,
    splits: Splits,
    encoder: Encoder,
    training: Training | None,
    versions: dict[str, str],
    *,
    task: TaskName,
    lexical: Fitted | str,
    adopted: AdoptConfig | None = None,
    teaching: Teaching | None = None,
    seen: Sequence[Text] | None = (),
) -> TrainRecord:
    """Write the texts that later stages need, beside an adapter that is already there, and then the run's record.

    `base` is what the adapter adapts, or where there is none the whole checkpoint, or what that was before. Texts that
    nothing was trained on are kept for calibration, or else some of the training texts. `training` is None where that
    was elsewhere; `versions` are of the packages that made the run; `lexical` may be the reason why there is none.
    `teaching` says from whom a student learnt, and `seen` are the texts that its teacher was trained on, which are not
    apart; None where these are not known.
    """
    is_apart = _write_texts(run, splits, seen)
    fitted = lexical if isinstance(lexical, Fitted) else None
    if fitted:
        run.lexical.write_bytes(to_bytes(fitted.lexical))
    record = TrainRecord(
        base=base.source,
        base_sha256=base.sha256(),
        dataset=splits.source,
        label_names=splits.label_names,
        max_length=encoder.max_length,
        truncation=encoder.truncation,
        pad_token_id=encoder.pad_token_id,
        evaluation_texts=len(splits.evaluation),
        training=training,
        versions=versions,
        adapter_sha256={path.name: file_sha256(path) for path in sorted(run.adapter.iterdir())},
        evaluation_sha256=file_sha256(run.evaluation),
        calibration_sha256=file_sha256(run.calibration),
        calibration_is_apart=is_apart,
        lexical_sha256=file_sha256(run.lexical) if fitted else "",
        lexical_reason=lexical if isinstance(lexical, str) else "",
        lexical_texts=fitted.texts if fitted else 0,
        lexical_accuracy=fitted.accuracy if fitted else None,
        adopted=adopted,
        teaching=teaching,
        task=task,
        pairs=encoder.pairs,
        text_columns=splits.text_columns,
    )
    write_record(run.record, record)
    return record


def _write_texts(run: RunDir, splits: Splits, seen: Sequence[Text] | None) -> bool:
    """Write the texts for evaluation and calibration, and return whether it is known that the latter taught nothing."""
    chosen = random.Random(0).sample(range(len(splits.train)), min(CALIBRATION_TEXTS, len(splits.train)))
    texts, is_apart = _calibration(splits, seen)
    write_examples(run.evaluation, splits.evaluation, splits.label_names)
    write_examples(run.calibration, texts or splits.train.take(chosen), splits.label_names)
    return is_apart


def _calibration(splits: Splits, seen: Sequence[Text] | None) -> tuple[Examples | None, bool]:
    """Return the texts that were not trained on, and whether it is known that a teacher was not, either."""
    own = splits.calibration or splits.left_over
    if own is None:
        return None, False
    unseen = [] if seen is None else without_texts(own.texts, seen)
    if len(unseen) == len(own):
        return own, True
    if len(unseen) >= FEWEST_LEFT_OVER:
        return own.take(unseen), True
    return splits.calibration, False  # thresholds of several labels have to be chosen on something
