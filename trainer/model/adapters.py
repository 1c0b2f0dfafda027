"""A peft adapter on a model: what its files say, and the model that they make."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.sources import Source
from trainer.errors import UserError
from trainer.limits import ADAPTER_SECONDS
from trainer.model.untrusted import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_adapter,
    deadline,
    first_line,
    read_object,
    tensor_shapes,
)

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

PREFIX = "base_model.model."
"""What peft puts before the names of a model's weights."""
_TABLES = ("weight", "base_layer.weight", "token_adapter.base_layer.weight")
"""What peft calls a table of tokens that it saves whole: alone, under LoRA, and where some of its rows are trained."""
_ROWS = ("trainable_tokens_delta", "token_adapter.trainable_tokens_delta")
"""What it calls rows of it that were trained one by one."""


def attach_adapter(model: PreTrainedModel, folder: Path, seconds: float = ADAPTER_SECONDS) -> PeftModel:
    """Put the adapter in `folder` on a model, which gets the vocabulary that the adapter was trained with.

    peft takes many settings of an adapter for regular expressions of the names of modules. It matches all of them
    itself under a deadline of so many `seconds`, so that it does not matter which settings they are.

    Raises:
        UserError: it is not an adapter for this model, or not safe to open.
    """
    from peft import PeftModel

    check_adapter(folder)
    try:
        with deadline(seconds, f"making the adapter in `{folder}`"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to warn of, an adoption has checked
            fit_vocabulary(model, folder)
            return PeftModel.from_pretrained(model, folder, config=read_adapter_config(folder))
    except UserError:
        raise
    except Exception as error:  # depends on what is odd in its configuration
        raise UserError(f"cannot load the adapter in `{folder}`: {first_line(error)}", "make the run again") from None


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """Return the classifier with its adapter in its weights; the adapted one is used up.

    Raises:
        UserError: the weights would not be finite, or adapters of its type cannot be merged.
    """
    from peft.utils.other import AuxiliaryTrainingWrapper

    kind = model.peft_config[model.active_adapter].peft_type.value
    try:
        merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
        for name, module in [*merged.named_modules()]:
            if isinstance(module, AuxiliaryTrainingWrapper):  # LNTuning leaves the head in its wrapper
                merged.set_submodule(name, module.unload_and_optionally_merge_module(True, True, None))
    except ValueError as error:  # weights that are not finite
        raise UserError(f"the adapter cannot be merged: {error}", "train again with a lower learning rate") from None
    except (AttributeError, NotImplementedError):
        raise UserError(f"adapters of the type `{kind}` cannot be merged", "give one such as LoRA") from None
    return merged


def save_adapter(model: PeftModel, source: Source, folder: Path) -> None:
    """Save the adapter and the trained head to `folder` as safetensors, naming the base checkpoint by its source."""
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = source.name, source.revision
    # Left to itself, peft asks the Hub whether the vocabulary was resized.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a template that is meant to be filled in by hand


def read_adapter_config(folder: Path) -> PeftConfig:
    """Read an adapter's configuration for a classifier, whatever task it names: its weights show what it is for.

    For another task peft would call functions that a classifier does not have.
    """
    from peft import PeftConfig, TaskType

    config = PeftConfig.from_pretrained(str(folder))
    config.task_type = TaskType.SEQ_CLS if config.task_type == TaskType.SEQ_CLS else None
    return config


def fit_vocabulary(model: PreTrainedModel, folder: Path) -> None:
    """Give a model as many rows for tokens as an adapter was trained with, if its file brings all that are new."""
    table = model.get_input_embeddings()
    rows, width = table.weight.shape
    name = next(name for name, module in model.named_modules() if module is table)
    shapes = {key: shape for key, shape in tensor_shapes(folder / ADAPTER_WEIGHTS).items() if shape[1:] == [width]}
    saved, trained = (
        max((shapes[key][0] for kind in kinds if (key := f"{PREFIX}{name}.{kind}") in shapes), default=0)
        for kinds in (_TABLES, _ROWS)
    )
    wanted = saved or _count_rows(read_object(folder / ADAPTER_CONFIG), rows, trained)
    if wanted != rows:
        model.resize_token_embeddings(wanted, mean_resizing=False)  # what it fills new rows with is replaced


def _count_rows(config: dict[str, Any], rows: int, trained: int) -> int:
    """Return how many rows there are with those that follow the last one and are among so many `trained` ones."""
    kinds = (config.get(key) for key in ("trainable_token_indices", "token_indices"))
    lists = [value for kind in kinds for value in (kind.values() if isinstance(kind, dict) else [kind])]
    indices = {index for value in lists if isinstance(value, list) for index in value if isinstance(index, int)}
    return next(number for number in range(rows, rows + trained + 1) if number not in indices - {rows + trained})
