"""Adoption: an adapter or a merged checkpoint, and labelled texts in; a run that can be exported like any other out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.adopt.checks import ADAPTER_FILES, check_complete, is_adapter, locate_model, read_label_names, read_task
from trainer.adopt.config import AdoptConfig
from trainer.config import TaskName
from trainer.data.load import MOST_CALIBRATION_TEXTS, Columns, Splits, load_splits
from trainer.data.numbering import number_labels
from trainer.errors import UserError
from trainer.files.tables import Reading
from trainer.locks import hold
from trainer.model.capacity import check_length, check_token_types
from trainer.model.load import load_tokenizer, make_encoder
from trainer.progress import quiet_libraries, say, say_unseparated
from trainer.run import CALIBRATION_TEXTS, RunDir, TrainRecord, write_run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_DEFAULT_LENGTH = 512
"""The default length for models that take more: the cost of attention grows with the square of the length."""
SEED = 42


def adopt(config: AdoptConfig) -> TrainRecord:
    """Make a run of the peft adapter, or the merged checkpoint, in `config.adapter`, and leave it in `config.run_dir`.

    Its labels are called what `config.label_names` says, else what its own configuration says, else what the dataset
    says if that gives them an order: only their order says which logit is whose, and alphabetical order does not.

    What an earlier adoption left in the run directory is replaced when the new run is complete. A trained run is not.

    Returns:
        The record of the new run.

    Raises:
        UserError: it is not a classifier, lacks its head, or the dataset does not fit it.
    """
    if config.run_dir.exists() and not config.run_dir.is_dir():
        raise UserError(f"`{config.run_dir}` is a file", "choose another `--run-dir`")
    with hold(config.run_dir):
        return _adopt(config, RunDir(config.run_dir), config.adapter)


def _adopt(config: AdoptConfig, run: RunDir, folder: Path) -> TrainRecord:
    quiet_libraries()
    _check_run_dir(run)
    base = locate_model(folder, config.model)
    tokenizer = load_tokenizer(folder if (folder / "tokenizer_config.json").is_file() else base.folder)
    task = config.task or read_task(folder)
    found = _load_data(config, task)
    for note in found.notes:
        say(note)
    splits = _number_labels(found, config.label_names or read_label_names(folder), task)
    model_config, capacity = check_complete(folder, base, tokenizer, splits.label_names, task)
    own_length = min(tokenizer.model_max_length, capacity.positions or MAX_DEFAULT_LENGTH, MAX_DEFAULT_LENGTH)
    max_length = config.max_length or own_length
    check_length(capacity, max_length)
    encoder = make_encoder(tokenizer, max_length, config.truncation, model_config.pad_token_id, pairs=splits.pairs)
    check_token_types(model_config, encoder)
    say_unseparated(encoder)
    new = run.new_results()
    _copy(folder, tokenizer, new.adapter)
    reason = "it is not known what was trained on"
    record = write_run(new, base, splits, encoder, None, {}, task=task, lexical=reason, adopted=config)
    run.settle()
    return record


def _check_run_dir(run: RunDir) -> None:
    """Refuse to replace anything but an adopted run."""
    run.settle()
    if run.record.is_file() and run.is_ours():
        if run.load().training is not None:
            raise UserError(f"`{run.path}` already holds a trained run", "choose another `--run-dir`")
        return
    if not run.is_vacant():
        raise UserError(f"`{run.path}` is not empty and holds no adopted run", "choose another `--run-dir`")


def _load_data(config: AdoptConfig, task: TaskName) -> Splits:
    """Without an evaluation dataset, a few of the texts are kept for calibration and all others for evaluation."""
    return load_splits(
        config.dataset,
        config.eval_dataset,
        columns=Columns(config.text_column, config.label_column, None, config.label_separator, task),
        reading=Reading(config.encoding, config.no_header),
        max_eval_samples=config.max_eval_samples,
        seed=SEED,
        calibration=MOST_CALIBRATION_TEXTS if task == "multi-label" else CALIBRATION_TEXTS,
    )


def _number_labels(splits: Splits, names: tuple[str, ...] | None, task: TaskName) -> Splits:
    """Number the labels of the data as the classifier does: `names` are its own, in the order of its logits."""
    if names is not None:
        return number_labels(splits, names, task)
    if not splits.labels_in_order:
        raise UserError(
            "the order of the classifier's labels is not known",
            f"name them in the order of its training, such as `--label-names {' '.join(splits.label_names)}`",
        )
    return splits


def _copy(folder: Path, tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    target.mkdir(parents=True)
    if is_adapter(folder):
        for name in ADAPTER_FILES:
            shutil.copyfile(folder / name, target / name)
    tokenizer.save_pretrained(target)
