"""A base checkpoint, a classification head and LoRA on top of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config import Truncation
from trainer.encoding import Encoder
from trainer.errors import UserError
from trainer.sources import Base, Source

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

LORA_TARGETS = {
    "distilbert": ("q_lin", "v_lin"),
    "bert": ("query", "value"),
    "roberta": ("query", "value"),
    "electra": ("query", "value"),
    "deberta": ("in_proj",),  # query, key and value are one matrix
    "deberta-v2": ("query_proj", "value_proj"),
    "modernbert": ("Wqkv",),  # query, key and value are one matrix
}
"""Where LoRA goes by default, by `model_type`: the query and value projections, as in Hu et al. 2021, section 4.2."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a checkpoint.

    Raises:
        UserError: it has none, or none that the `tokenizers` library can express.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, ImportError) as error:  # by what is missing
        raise UserError(f"no usable tokenizer in `{folder}`: {first_line(error)}", "check the checkpoint") from None
    if not tokenizer.is_fast:
        raise UserError(
            f"`{folder}` has a tokenizer that only Python code can run", "take a checkpoint with a `tokenizer.json`"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of `{folder}` has no padding token", "take an encoder checkpoint")
    return tokenizer


def make_encoder(tokenizer: PreTrainedTokenizerFast, max_length: int, truncation: Truncation) -> Encoder:
    """Make the encoder that training and every later stage share."""
    return Encoder(tokenizer.backend_tokenizer, max_length, truncation, tokenizer.pad_token_id)


def build_model(
    base: Base,
    label_names: tuple[str, ...],
    *,
    max_length: int,
    lora_r: int,
    lora_alpha: int,
    lora_dropout: float,
    lora_targets: tuple[str, ...] | None,
    seed: int,
) -> PeftModel:
    """Load a base checkpoint in fp32, give it a head for `label_names` and put LoRA on it.

    Everything that the checkpoint did not bring is trained in full: the head, and what lies between it and the
    encoder (DistilBERT's `pre_classifier`, DeBERTa's `pooler`). The seed is set before any of it is made.

    Raises:
        UserError: the checkpoint cannot be loaded, cannot take texts of `max_length`, or its LoRA targets are
            unknown or absent.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import set_seed

    set_seed(seed)
    model, fresh = load_classifier(base, label_names)
    check_length(model.config, max_length)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=_targets(model, lora_targets or _default_targets(model.config)),
        modules_to_save=_modules_to_train(model, fresh),
    )
    return get_peft_model(model, lora)


def load_classifier(base: Base, label_names: tuple[str, ...]) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint in fp32 as a classifier into `label_names`.

    Returns:
        The model, and the names of the parameters that the checkpoint did not bring in the shape that this takes.

    Raises:
        UserError: it cannot be loaded.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            num_labels=len(label_names),
            id2label=dict(enumerate(label_names)),
            label2id={name: i for i, name in enumerate(label_names)},
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,  # unset, transformers would ask on the terminal
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(f"cannot load `{base.source.name}`: {first_line(error)}", "check the checkpoint") from None
    return model, [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]


def save_adapter(model: PeftModel, source: Source, folder: Path) -> None:
    """Save the adapter and the trained head to `folder` as safetensors, naming the base checkpoint by its source."""
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = source.name, source.revision
    # Left to itself, peft asks the Hub whether the vocabulary was resized.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form of peft's, to be filled in by hand


def _default_targets(config: PretrainedConfig) -> tuple[str, ...]:
    if config.model_type in LORA_TARGETS:
        return LORA_TARGETS[config.model_type]
    raise UserError(
        f"no default LoRA targets for the architecture `{config.model_type}`",
        "name the ends of its attention layers' names with `--lora-targets`, for example `--lora-targets query value`",
    )


def _targets(model: PreTrainedModel, targets: tuple[str, ...]) -> list[str] | str:
    """Check that each target names a layer: peft is content when one of them does."""
    if targets == ("all-linear",):
        return "all-linear"
    layers = ["." + name for name, _ in model.named_modules()]
    for target in targets:
        if not any(layer.endswith("." + target) for layer in layers):
            raise UserError(
                f"this model has no layer `{target}`",
                "name the ends of its linear layers' names with `--lora-targets`, or `all-linear`",
            )
    return list(targets)


def _modules_to_train(model: PreTrainedModel, fresh: list[str]) -> list[str]:
    """Return the modules that hold the parameters `fresh`: a whole child of the model, or a layer of its encoder."""
    encoder = model.base_model_prefix + "."
    layers = {key.rpartition(".")[0] if key.startswith(encoder) else key.partition(".")[0] for key in fresh}
    return sorted(layers | {name for name, _ in model.named_children() if name in ("classifier", "score")})


def check_length(config: PretrainedConfig, max_length: int) -> None:
    """Refuse a length that the model has no positions for.

    Raises:
        UserError: it has fewer.
    """
    longest = positions(config)
    if longest and max_length > longest:
        raise UserError(
            f"`--max-length {max_length}` is more than this model's {longest} positions",
            f"give `--max-length {longest}` or less",
        )


def positions(config: PretrainedConfig) -> int | None:
    """Return how many tokens a model has positions for, None where it does not say."""
    longest: int | None = getattr(config, "max_position_embeddings", None)
    if longest and config.model_type in ("roberta", "xlm-roberta", "camembert"):
        longest -= config.pad_token_id + 1  # their positions are counted from behind the padding token
    return longest


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says."""
    return str(error).strip().split(os.linesep)[0]
