"""Whether what came from elsewhere is one whole classifier: an adapter with its base and head, or a checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import TaskName
from trainer.data.sources import Base, locate_base
from trainer.errors import UserError
from trainer.limits import ADAPTER_SECONDS
from trainer.model.adapters import PREFIX, fit_vocabulary, read_adapter_config
from trainer.model.capacity import Capacity, check_padding, check_tokens, measure_capacity
from trainer.model.load import load_classifier, settle_padding
from trainer.model.untrusted import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    check_adapter,
    deadline,
    first_line,
    read_object,
    tensor_shapes,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
MULTI_LABEL = "multi_label_classification"
CHECK_BASE = "is `--model`, or the model that it names, the one it was trained on?"


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a peft adapter, rather than a merged checkpoint."""
    return (folder / ADAPTER_CONFIG).is_file()


def locate_model(folder: Path, model: str | None) -> Base:
    """Find what the adapter in `folder` adapts: `model`, else what it names; a merged checkpoint is its own base.

    Raises:
        UserError: the folder holds neither, or an adapter that cannot be merged into a classifier.
    """
    if not folder.is_dir():
        raise UserError(f"no folder `{folder}`", "give the folder of a peft adapter, or of a merged checkpoint")
    if not is_adapter(folder):
        if model:
            raise UserError(f"`--model` is for adapters, and `{folder}` holds no adapter", "leave out `--model`")
        return locate_base(str(folder))
    check_adapter(folder)
    config = read_object(folder / ADAPTER_CONFIG)
    _check_kind(folder, config)
    name = model or config.get("base_model_name_or_path")
    if not name or not isinstance(name, str):
        raise UserError(f"the adapter in `{folder}` does not name its base model", "add `--model`")
    revision = config.get("revision")
    if not isinstance(revision, str | None):
        raise UserError(f"`revision` in `{folder / ADAPTER_CONFIG}` is not a name", "add `--model`")
    return locate_base(name, None if model else revision)


def read_label_names(folder: Path) -> tuple[str, ...] | None:
    """Return the label names in the configuration beside the weights, None where it has none of its own."""
    if not (folder / CONFIG).is_file():
        return None
    by_index = read_object(folder / CONFIG).get("id2label") or {}
    if not isinstance(by_index, dict) or by_index.keys() != {str(i) for i in range(len(by_index))}:
        raise UserError(f"`id2label` in `{folder / CONFIG}` does not name the labels 0, 1, …", "fix it")
    names = tuple(by_index[str(i)] for i in range(len(by_index)))
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"`id2label` in `{folder / CONFIG}` has labels that are not names", "fix it")
    return None if not names or names == tuple(f"LABEL_{i}" for i in range(len(names))) else names


def read_task(folder: Path) -> TaskName:
    """Return the task that the configuration beside the weights names; one label for each text where it names none."""
    several = (folder / CONFIG).is_file() and read_object(folder / CONFIG).get("problem_type") == MULTI_LABEL
    return "multi-label" if several else "single-label"


def check_complete(
    folder: Path,
    base: Base,
    tokenizer: PreTrainedTokenizerFast,
    label_names: tuple[str, ...],
    task: TaskName = "single-label",
) -> tuple[PretrainedConfig, Capacity]:
    """Return the configuration of the classifier that an adapter and its base make, and what it has room for.

    Raises:
        UserError: they do not make one: a weight is missing, unused or misshapen, or a token has no row.
    """
    model, fresh = load_classifier(base, label_names, task)
    if is_adapter(folder):
        fit_vocabulary(model, folder)
    settle_padding(model.config, tokenizer.pad_token_id)
    capacity = measure_capacity(model)
    check_tokens(capacity, tokenizer)
    check_padding(model)
    config: PretrainedConfig = model.config
    missing = fresh
    if is_adapter(folder):
        shapes = tensor_shapes(folder / ADAPTER_WEIGHTS)
        missing = [name for name in fresh if f"{PREFIX}{name}" not in shapes]
        _check_fits(folder, model, shapes, fresh)
    if missing:
        raise UserError(
            f"neither `{folder}` nor its base has `{min(missing)}` for {len(label_names)} labels: its answers would be "
            "random",
            "save what was trained with its head (peft's `modules_to_save`), and check the number of labels",
        )
    return config, capacity


def _check_kind(folder: Path, config: dict[str, Any]) -> None:
    """Refuse adapters that change no weights, and types that this peft does not know.

    Of the tasks only one is refused: its heads have the shapes of a classifier's. All others show in the weights.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PromptLearningConfig

    if config.get("task_type") == "TOKEN_CLS":
        raise UserError(f"the adapter in `{folder}` classifies single tokens", "give one that classifies texts")
    if str(config.get("init_lora_weights")).startswith("pissa_niter"):
        raise UserError(
            f"the adapter in `{folder}` belongs to a base that was changed at random when its training began",
            "save it with peft's `path_initial_model_for_weight_conversion`",
        )
    kind = str(config.get("peft_type"))
    known = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    if known is None:
        raise UserError(f"this peft does not know the adapter type `{kind}` of `{folder}`", "update peft")
    if issubclass(known, PromptLearningConfig):
        raise UserError(
            f"the adapter in `{folder}` is of the type `{kind}`, which cannot be merged into weights",
            "give one that can, such as LoRA",
        )


def _check_fits(folder: Path, model: PreTrainedModel, shapes: dict[str, list[int]], fresh: list[str]) -> None:
    """Refuse an adapter with weights of these `shapes` that is for another base, or another number of labels.

    `fresh` names the parameters that the base does not have.
    """
    heads = {f"{PREFIX}{name}": list(model.get_parameter(name).shape) for name in sorted(fresh)}
    for name, shape in heads.items():
        if shapes.get(name, shape) != shape:
            raise UserError(
                f"`{name}` of the adapter has the shape {shapes[name]}, and {model.num_labels} labels need {shape}",
                "give a dataset with exactly the labels it was trained on, or its names with `--label-names`",
            )
    expected, possible = _adapter_shapes(folder, model)
    for name in sorted((expected.keys() | shapes.keys()) - heads.keys()):
        wanted = expected.get(name, possible.get(name))
        if wanted != shapes.get(name):
            raise UserError(
                f"the adapter in `{folder}` does not fit its base: `{name}` has the shape {shapes.get(name)} in the "
                f"file and {wanted} on the base",
                CHECK_BASE,
            )


def _adapter_shapes(folder: Path, model: PreTrainedModel) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the shapes of the weights that an adapter with this configuration has on this model, and may have."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    try:
        config = read_adapter_config(folder)
        config.base_model_name_or_path = None  # or else peft warns that `--model` has another name
        if hasattr(config, "init_lora_weights"):
            config.init_lora_weights = True  # others are computed from the base's weights, and change no shape
        with deadline(ADAPTER_SECONDS, f"making the adapter in `{folder}`"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # see `attach_adapter`
            adapted = get_peft_model(model, config, low_cpu_mem_usage=True)  # whatever rank it claims
        # AdaLoRA picks rows, which tensors without storage cannot; one number in all places takes no memory either.
        whole = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in adapted.state_dict().items()}
        weights = get_peft_model_state_dict(adapted, whole, save_embedding_layers=False)
    except UserError:
        raise
    except Exception as error:  # depends on what is odd in it
        raise UserError(f"the adapter in `{folder}` does not fit its base: {first_line(error)}", CHECK_BASE) from None
    # A table of tokens is saved whole where it has another size, with all that peft keeps beside it.
    possible = {name.replace(".default", ""): list(tensor.shape) for name, tensor in whole.items()}
    return {name: list(tensor.shape) for name, tensor in weights.items()}, possible
