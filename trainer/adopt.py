"""A run made of an adapter, or of a merged checkpoint, that was trained elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import Truncation
from trainer.data import Splits, load_splits
from trainer.errors import UserError
from trainer.model import check_length, load_classifier, load_tokenizer, make_encoder, positions
from trainer.run import CALIBRATION_REVIEWS, RunDir, write_run
from trainer.sources import Base, locate_base

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
LONGEST = 512
"""The default for models that take more: attention costs grow with the square of the length."""
SEED = 42
PARTIAL = "adopted.partial"
"""Where a run is put together; it is there only while that goes on, or where it was interrupted."""


def adopt(
    run: RunDir,
    folder: Path,
    *,
    model: str | None,
    dataset: str | None,
    eval_dataset: str | None,
    text_column: str | None,
    label_column: str | None,
    label_names: tuple[str, ...] | None,
    max_eval_samples: int,
    max_length: int | None,
    truncation: Truncation,
) -> None:
    """Make a run of the peft adapter, or the merged checkpoint, in `folder`.

    Its classes are called as `label_names` says, else as its own configuration does, else as the dataset does if that
    puts them in an order: nothing but the order tells which logit means what, and an alphabet is none.

    Args:
        run: where; what an earlier call left there is replaced, a trained run is not.
        folder: the adapter's or the checkpoint's.
        model: the adapter's base, where it is not the one that its configuration names.
        dataset: labelled reviews that it was not trained on. Without an evaluation set, a few of them serve for
            calibration and all others for evaluation.
        eval_dataset: as for training; then `dataset` is for calibration alone and may be the training reviews.
        text_column: see `load_splits`, as for the next two.
        label_column: see there.
        label_names: the names of its classes in the order of its logits.
        max_eval_samples: the most evaluation reviews to keep; 0 keeps all.
        max_length: the most tokens of a text; where None, what model and tokenizer take, up to 512.
        truncation: which tokens of a longer text to keep.

    Raises:
        UserError: it is no classifier, lacks its head, or the dataset does not fit it.
    """
    from transformers import logging

    logging.set_verbosity_error()
    _check_run_dir(run)
    base = _locate(folder, model)
    tokenizer = load_tokenizer(folder if (folder / "tokenizer_config.json").is_file() else base.folder)
    own_names = label_names or _own_names(folder)
    splits = load_splits(
        dataset,
        eval_dataset,
        text_column=text_column,
        label_column=label_column,
        label_names=own_names,
        max_train_samples=CALIBRATION_REVIEWS,
        max_eval_samples=max_eval_samples,
        seed=SEED,
        calibration=CALIBRATION_REVIEWS,
    )
    _check_names(splits, own_names)
    config = _check_whole(folder, base, splits.label_names)
    length = max_length or min(LONGEST, tokenizer.model_max_length, positions(config) or LONGEST)
    check_length(config, length)
    encoder = make_encoder(tokenizer, length, truncation)
    made = RunDir(run.path / PARTIAL)
    shutil.rmtree(made.path, ignore_errors=True)
    _copy(folder, tokenizer, made.adapter)
    write_run(made, base, splits, encoder, None, {})
    run.clear_training()
    for whole, place in ((made.adapter, run.adapter), (made.evaluation.parent, run.evaluation.parent)):
        whole.rename(place)
    made.record.rename(run.record)
    made.path.rmdir()


def _check_run_dir(run: RunDir) -> None:
    """Refuse to replace anything but an adopted run."""
    if not run.path.exists() or not any(run.path.iterdir()) or (run.path / PARTIAL).exists():
        return
    if not run.is_ours():
        raise UserError(f"`{run.path}` holds something else than a run", "name another `--run-dir`")
    if not run.record.is_file() or run.load().training is not None:
        raise UserError(f"`{run.path}` already holds a trained run", "name another `--run-dir`")


def _locate(folder: Path, model: str | None) -> Base:
    """Find what the adapter in `folder` adapts; a merged checkpoint is its own base."""
    if not folder.is_dir():
        raise UserError(f"no folder `{folder}`", "give the folder of a peft adapter, or of a merged checkpoint")
    if not (folder / ADAPTER_FILES[0]).is_file():
        if model:
            raise UserError(f"`{folder}` holds no adapter, for which `--model` is", "leave out `--model`")
        return locate_base(str(folder))
    if not (folder / ADAPTER_FILES[1]).is_file():
        raise UserError(
            f"`{folder}` has no `{ADAPTER_FILES[1]}`", "save the adapter again with a peft that writes safetensors"
        )
    config = _read(folder / ADAPTER_FILES[0])
    if config.get("task_type") != "SEQ_CLS":
        raise UserError(
            f"the adapter in `{folder}` is for `{config.get('task_type')}`",
            "give one made for `SEQ_CLS`, with its head",
        )
    named = model or config.get("base_model_name_or_path")
    if not named:
        raise UserError(f"the adapter in `{folder}` does not name its base model", "name it with `--model`")
    return locate_base(named, None if model else config.get("revision"))


def _own_names(folder: Path) -> tuple[str, ...] | None:
    """Return the names of the classes in the configuration beside the weights, None where it has none of its own."""
    if not (folder / "config.json").is_file():
        return None
    named = _read(folder / "config.json").get("id2label") or {}
    names = tuple(str(named.get(str(i))) for i in range(len(named)))
    return None if not names or names == tuple(f"LABEL_{i}" for i in range(len(names))) else names


def _check_names(splits: Splits, own: tuple[str, ...] | None) -> None:
    """Refuse a dataset that does not show every class, or leaves open which logit is which class."""
    if own:
        if unseen := [name for name in own if name not in splits.label_names]:
            raise UserError(f"the dataset shows no review of the class `{unseen[0]}`", "add reviews of every class")
    elif not splits.labels_in_order:
        names = " ".join(splits.label_names)
        raise UserError(
            "nothing tells which of the classifier's classes is which label",
            f"name them in the order of its training, such as `--label-names {names}`",
        )


def _check_whole(folder: Path, base: Base, label_names: tuple[str, ...]) -> PretrainedConfig:
    """Refuse an adapter without its head, or with one for another number of classes.

    Returns:
        The model's configuration.
    """
    from safetensors import safe_open

    model, fresh = load_classifier(base, label_names)
    brought: dict[str, list[int]] = {}
    if (folder / ADAPTER_FILES[1]).is_file():
        with safe_open(folder / ADAPTER_FILES[1], framework="np") as weights:
            brought = {
                key.removeprefix("base_model.model."): weights.get_slice(key).get_shape()
                for key in weights.keys()  # noqa: SIM118
            }
    needed = dict(model.named_parameters())
    for name in fresh:
        if name not in brought:
            raise UserError(
                f"neither `{folder}` nor its base brings `{name}` for {len(label_names)} classes: its answers would be "
                "random",
                "export the checkpoint that was trained, head included; or is the number of labels another?",
            )
    for name, shape in brought.items():
        if name in needed and list(needed[name].shape) != shape:
            raise UserError(
                f"`{name}` of the adapter has the shape {shape}, and {len(label_names)} labels take "
                f"{list(needed[name].shape)}",
                "give a dataset with exactly the classes it was trained on, or its names with `--label-names`",
            )
    return model.config


def _copy(folder: Path, tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    target.mkdir(parents=True)
    for name in ADAPTER_FILES:
        if (folder / ADAPTER_FILES[0]).is_file():
            shutil.copyfile(folder / name, target / name)
    tokenizer.save_pretrained(target)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise UserError(f"`{path}` is not a JSON object", "restore the file")
    return values
