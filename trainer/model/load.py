"""A base checkpoint, a classification head and LoRA on top of it."""

from __future__ import annotations

import inspect
import re
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import TaskName, Truncation
from trainer.data.sources import Base
from trainer.errors import UserError
from trainer.limits import MODEL_SECONDS, NEW_WEIGHTS
from trainer.model.architectures import architecture_of
from trainer.model.untrusted import (
    check_folder,
    check_tokenizer_class,
    deadline,
    first_line,
    tensor_shapes,
    tokenizer_files,
    weight_files,
)
from trainer.tasks import task_of
from trainer.text.encoding import Encoder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load a checkpoint's tokenizer, or raise a UserError if it has none that the `tokenizers` library can express."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, dynamic_module_utils

    check_folder(folder)
    check_tokenizer_class(folder)
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # or transformers would ask whether to run code, should it find any
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, use_fast=True, trust_remote_code=False, local_files_only=True, **tokenizer_files(folder)
        )
    except Exception as error:  # depends on what is missing or odd
        raise UserError(f"no usable tokenizer in `{folder}`: {first_line(error)}", "check the checkpoint") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            f"`{folder}` has a tokenizer that only Python code can run", "use a checkpoint with a `tokenizer.json`"
        )
    named = [folder / name for name in tokenizer.vocab_files_names.values()] + [*tokenizer_files(folder).values()]
    if not any(Path(path).is_file() for path in named):  # transformers 5 makes one that knows no word
        raise UserError(f"no usable tokenizer in `{folder}`: it has no vocabulary", "check the checkpoint")
    tokenizer.chat_template = None  # of no use to a classifier, and it could be anything
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # what stands after the end of a text is never looked at
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer of `{folder}` has neither a padding token nor an end token",
            "give it one, such as `tokenizer.pad_token = tokenizer.unk_token`, and save it again",
        )
    return tokenizer


def settle_padding(config: PretrainedConfig, pad_token_id: int) -> int:
    """Return what fills shorter rows of a batch: the model's own padding token, else its tokenizer's, now its own too.

    A decoder answers from the last token that is not its own padding, and would answer from any other that fills a row.
    """
    own = config.pad_token_id
    if isinstance(own, int) and 0 <= own < getattr(config, "vocab_size", own + 1):
        return own
    config.pad_token_id = pad_token_id
    return pad_token_id


def make_encoder(
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
    truncation: Truncation,
    pad_token_id: int,
    *,
    pairs: bool = False,
) -> Encoder:
    """Make the encoder that training and every later stage share."""
    return Encoder(tokenizer.backend_tokenizer, max_length, truncation, pad_token_id, pairs=pairs)


def inputs_of(model: Any) -> tuple[str, ...]:
    """Return what a classifier takes of a padded batch, in this order: token types where it has several of them.

    GPT-2 would take token types, too, and look them up among its words.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's own takes anything
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    has_types = takes_types and getattr(model.config, "type_vocab_size", 0) > 1
    return ("input_ids", "attention_mask", *(("token_type_ids",) if has_types else ()))


def build_model(
    base: Base,
    label_names: tuple[str, ...],
    *,
    task: TaskName = "single-label",
    lora_r: int,
    lora_alpha: int,
    lora_dropout: float,
    lora_targets: tuple[str, ...] | None,
    seed: int,
) -> PeftModel:
    """Load a base checkpoint in fp32 and add a head for `label_names`, and LoRA.

    Every weight that the checkpoint does not have is trained in full: the head, and what is between it and the encoder
    (DistilBERT's `pre_classifier`, DeBERTa's `pooler`). The seed is set before any of them is created.

    Raises:
        UserError: the checkpoint cannot be loaded, or its LoRA targets are unknown or missing.
    """
    from transformers import set_seed

    set_seed(seed)
    model, fresh = load_classifier(base, label_names, task)
    return add_lora(
        model, fresh, lora_r=lora_r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, lora_targets=lora_targets
    )


def add_lora(
    model: PreTrainedModel,
    fresh: list[str],
    *,
    lora_r: int,
    lora_alpha: int,
    lora_dropout: float,
    lora_targets: tuple[str, ...] | None,
) -> PeftModel:
    """Add LoRA to a classifier, whose parameters `fresh` are trained in full, as is its head."""
    from peft import LoraConfig, TaskType, get_peft_model

    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=_targets(model, lora_targets),
        modules_to_save=_modules_to_train(model, fresh),
    )
    return get_peft_model(model, lora)


def load_classifier(
    base: Base, label_names: tuple[str, ...], task: TaskName = "single-label"
) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint in fp32 as a classifier into `label_names`.

    Whoever loads what is saved of it with transformers computes probabilities, and a loss, as the task means them.

    Returns:
        The model, and the names of the parameters that the checkpoint does not have, or has in another shape.

    Raises:
        UserError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        check_size(base.folder, AutoModelForSequenceClassification)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            num_labels=len(label_names),
            problem_type=task_of(task, len(label_names)).problem_type,
            id2label=dict(enumerate(label_names)),
            label2id={name: i for i, name in enumerate(label_names)},
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,  # unset, transformers would ask on the terminal
        )
    except UserError:
        raise
    except Exception as error:  # depends on what is missing or odd
        raise UserError(f"cannot load `{base.source.name}`: {first_line(error)}", "check the checkpoint") from None
    check_types(model.config, base.source.name)
    return model, [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]


def check_size(folder: Path, kind: Any) -> None:
    """Refuse a checkpoint whose configuration describes far more than its weights: it would take all memory, or hours.

    Args:
        folder: the checkpoint, already checked.
        kind: the class of transformers that is to load it.

    Raises:
        UserError: that is the case.
    """
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, num_labels=2, local_files_only=True, trust_remote_code=False)
    with suppress(KeyError):
        kind._model_mapping[type(config)]  # imports its code, which may take long and is not the checkpoint's fault
    with deadline(MODEL_SECONDS, f"making the model that `{folder / 'config.json'}` describes"), torch.device("meta"):
        described = sum(weight.numel() for weight in kind.from_config(config, trust_remote_code=False).parameters())
    stored = sum(prod(shape) for file in weight_files(folder) for shape in tensor_shapes(file).values())
    if described > 2 * stored + NEW_WEIGHTS:
        raise UserError(
            f"`{folder / 'config.json'}` describes {described:,} weights, and the files have {stored:,}",
            "check the checkpoint",
        )


def _targets(model: PreTrainedModel, asked: tuple[str, ...] | None) -> list[str] | str:
    """Return the layers to adapt, and check that there is each of them: peft only checks that there is one."""
    targets = asked or architecture_of(model.config.model_type).lora_targets
    if not targets:
        raise UserError(
            f"no default LoRA targets for the architecture `{model.config.model_type}`",
            "give its attention layers by the ends of their names, for example `--lora-targets query value`",
        )
    if targets == ("all-linear",):
        return "all-linear"
    layers = ["." + name for name, _ in model.named_modules()]
    for target in targets:
        if not any(layer.endswith("." + target) for layer in layers):
            raise UserError(
                f"this model has no layer `{target}`",
                "give its linear layers by the ends of their names, or `--lora-targets all-linear`",
            )
    return list(targets)


def _modules_to_train(model: PreTrainedModel, fresh: list[str]) -> list[str]:
    """Return the modules that hold the parameters `fresh`: children of the model, or layers of its encoder."""
    encoder = model.base_model_prefix + "."
    layers = {key.rpartition(".")[0] if key.startswith(encoder) else key.partition(".")[0] for key in fresh}
    return sorted(layers | {name for name, _ in model.named_children() if name in ("classifier", "score")})


_SIZE = r"^(?!type_|max_window_).*(size|dim|heads|layers|embeddings)$"
"""Keys of what there must be at least one of; of segments, and of layers with a window, there can be none."""


def check_types(config: PretrainedConfig, name: str) -> None:
    """Refuse a configuration with other types than the defaults of its class, or sizes below 1: it would fail later."""
    for key, default in type(config)().to_dict().items():
        value = getattr(config, key, None)
        is_several = key == "eos_token_id" and isinstance(value, list)  # as in Llama 3
        if not isinstance(default, str | int | float) or value is None or is_several:
            continue
        is_odd = not isinstance(value, str if isinstance(default, str) else (int, float))
        is_odd |= isinstance(value, bool) and not isinstance(default, bool)
        is_size = isinstance(value, int) and bool(default) and re.search(_SIZE, key)
        if is_odd or (is_size and value < 1):
            raise UserError(f"cannot load `{name}`: `{key}` is {value!r} in its `config.json`", "check the checkpoint")
