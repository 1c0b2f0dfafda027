"""A run made of an adapter, or of a merged checkpoint, that was trained elsewhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import Truncation
from trainer.data import Examples, Splits, load_splits
from trainer.errors import UserError
from trainer.model import check_length, first_line, load_classifier, load_tokenizer, make_encoder, positions
from trainer.run import CALIBRATION_REVIEWS, RunDir, write_run
from trainer.sources import Base, locate_base

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
LONGEST = 512
"""The default for models that take more: attention costs grow with the square of the length."""
SEED = 42
IS_IT_ITS_BASE = "is `--model`, or the model that it names, the one it was trained on?"
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
        dataset: labelled texts that it was not trained on. Without an evaluation set, a few of them serve for
            calibration and all others for evaluation.
        eval_dataset: as for training; then `dataset` is for calibration alone and may be the training texts.
        text_column: see `load_splits`, as for the next two.
        label_column: see there.
        label_names: the names of its classes in the order of its logits.
        max_eval_samples: the most evaluation texts to keep; 0 keeps all.
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
    splits = load_splits(
        dataset,
        eval_dataset,
        text_column=text_column,
        label_column=label_column,
        max_eval_samples=max_eval_samples,
        seed=SEED,
        calibration=CALIBRATION_REVIEWS,
    )
    splits = _in_order(splits, label_names or _own_names(folder))
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
    """Refuse to replace anything but an adopted run, whole or interrupted while it was put in place."""
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"`{run.path}` is a file", "name another `--run-dir`")
    if run.record.is_file() and run.is_ours():
        if run.load().training is not None:
            raise UserError(f"`{run.path}` already holds a trained run", "name another `--run-dir`")
        return
    entries = {path.name for path in run.path.iterdir()} if run.path.exists() else set()
    if entries <= {PARTIAL} or RunDir(run.path / PARTIAL).record.is_file():
        return
    raise UserError(f"`{run.path}` holds something else than an exported adapter", "name another `--run-dir`")


def _locate(folder: Path, model: str | None) -> Base:
    """Find what the adapter in `folder` adapts; a merged checkpoint is its own base."""
    if not folder.is_dir():
        raise UserError(f"no folder `{folder}`", "give the folder of a peft adapter, or of a merged checkpoint")
    if not (folder / ADAPTER_FILES[0]).is_file():
        if model:
            raise UserError(
                f"`--model` names an adapter's base, and `{folder}` holds no adapter", "leave out `--model`"
            )
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
    _check_mergeable(folder, str(config.get("peft_type")))
    named = model or config.get("base_model_name_or_path")
    if not named:
        raise UserError(f"the adapter in `{folder}` does not name its base model", "name it with `--model`")
    return locate_base(named, None if model else config.get("revision"))


def _check_mergeable(folder: Path, kind: str) -> None:
    """Refuse adapters that change no weights, and kinds that this peft does not know."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    known = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    if known is None:
        raise UserError(f"this peft does not know the adapter type `{kind}` of `{folder}`", "update peft")
    if known(task_type="SEQ_CLS").is_prompt_learning:
        raise UserError(
            f"the adapter in `{folder}` is of the type `{kind}`, which cannot be merged into weights",
            "give one that can, such as LoRA",
        )


def _own_names(folder: Path) -> tuple[str, ...] | None:
    """Return the names of the classes in the configuration beside the weights, None where it has none of its own."""
    if not (folder / "config.json").is_file():
        return None
    named = _read(folder / "config.json").get("id2label") or {}
    if not isinstance(named, dict) or named.keys() != {str(i) for i in range(len(named))}:
        raise UserError(f"`id2label` in `{folder / 'config.json'}` does not name the classes 0, 1, …", "mend it")
    names = tuple(str(named[str(i)]) for i in range(len(named)))
    return None if not names or names == tuple(f"LABEL_{i}" for i in range(len(names))) else names


def _in_order(splits: Splits, own: tuple[str, ...] | None) -> Splits:
    """Number the labels as the classifier does.

    Raises:
        UserError: nothing tells how, the dataset calls its labels otherwise, or it does not show every class.
    """
    if own is None:
        if not splits.labels_in_order:
            names = " ".join(splits.label_names)
            raise UserError(
                "nothing tells which of the classifier's classes is which label",
                f"name them in the order of its training, such as `--label-names {names}`",
            )
        return splits
    by_number = {str(i): i for i in range(len(own))}
    places = by_number if all(name in by_number for name in splits.label_names) else {n: i for i, n in enumerate(own)}
    if odd := [name for name in splits.label_names if name not in places]:
        raise UserError(
            f"the dataset has the label `{odd[0]}`, and the classifier's classes are {', '.join(own)}",
            "call them alike; `--label-names` names those of the classifier, in its order",
        )
    if unseen := [own[i] for name, i in places.items() if name not in splits.label_names]:
        raise UserError(f"the dataset shows no text of the class `{unseen[0]}`", "add texts of every class")
    order = [places[name] for name in splits.label_names]
    train, evaluation = (
        Examples(part.texts, [order[label] for label in part.labels]) for part in (splits.train, splits.evaluation)
    )
    return replace(splits, train=train, evaluation=evaluation, label_names=own)


def _check_whole(folder: Path, base: Base, label_names: tuple[str, ...]) -> PretrainedConfig:
    """Refuse what does not fit together to one classifier: no weight may be missing, left over or of another shape.

    Returns:
        The model's configuration.
    """
    model, fresh = load_classifier(base, label_names)
    config: PretrainedConfig = model.config
    if config.problem_type == "multi_label_classification":
        raise UserError(f"`{folder}` gives several labels to a text", "give a classifier into one of several classes")
    if not (folder / ADAPTER_FILES[0]).is_file():
        missing = fresh
    else:
        brought = _shapes(folder / ADAPTER_FILES[1])
        missing = [name for name in fresh if f"base_model.model.{name}" not in brought]
        _check_fits(folder, model, brought, fresh)
    if missing:
        raise UserError(
            f"neither `{folder}` nor its base brings `{missing[0]}` for {len(label_names)} classes: its answers would "
            "be random",
            "export what was trained, head included (peft's `modules_to_save`); or is the number of labels another?",
        )
    return config


def _check_fits(folder: Path, model: PreTrainedModel, brought: dict[str, list[int]], fresh: list[str]) -> None:
    """Refuse an adapter that was made for another base, or another number of classes."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    heads = {f"base_model.model.{name}": list(model.get_parameter(name).shape) for name in fresh}
    for name, shape in heads.items():
        if brought.get(name, shape) != shape:
            raise UserError(
                f"`{name}` of the adapter has the shape {brought[name]}, and {model.num_labels} labels take {shape}",
                "give a dataset with exactly the classes it was trained on, or its names with `--label-names`",
            )
    config = PeftConfig.from_pretrained(str(folder))
    config.base_model_name_or_path = None  # else peft warns that it was renamed, where `--model` did that
    try:
        adapted = get_peft_model(model, config)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the adapter in `{folder}` does not fit its base: {first_line(error)}", IS_IT_ITS_BASE
        ) from None
    taken = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    shapes = {name: list(weights.shape) for name, weights in taken.items() if name not in heads}
    for name in sorted(shapes.keys() | (brought.keys() - heads.keys())):
        if shapes.get(name) != brought.get(name):
            raise UserError(
                f"the adapter in `{folder}` does not fit its base: `{name}` has the shape {brought.get(name)} in the "
                f"file and {shapes.get(name)} on the base",
                IS_IT_ITS_BASE,
            )


def _shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as weights:
            return {name: list(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"`{path}` is not a safetensors file: {first_line(error)}", "fetch it again") from None


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
