"""A base checkpoint, a classification head and LoRA on top of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.architectures import architecture_of
from trainer.config import Truncation
from trainer.encoding import Encoder
from trainer.errors import UserError
from trainer.sources import Base, Source

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load a checkpoint's tokenizer, or raise a UserError if it has none that the `tokenizers` library can express."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, ImportError) as error:  # depends on what is missing
        raise UserError(f"no usable tokenizer in `{folder}`: {first_line(error)}", "check the checkpoint") from None
    if not tokenizer.is_fast:
        raise UserError(
            f"`{folder}` has a tokenizer that only Python code can run", "use a checkpoint with a `tokenizer.json`"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of `{folder}` has no padding token", "use an encoder checkpoint")
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
    """Load a base checkpoint in fp32 and add a head for `label_names`, and LoRA.

    Every weight that the checkpoint does not have is trained in full: the head, and what is between it and the encoder
    (DistilBERT's `pre_classifier`, DeBERTa's `pooler`). The seed is set before any of them is created.

    Raises:
        UserError: the checkpoint cannot be loaded, cannot take texts of `max_length`, or its LoRA targets are
            unknown or missing.
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
        target_modules=_targets(model, lora_targets),
        modules_to_save=_modules_to_train(model, fresh),
    )
    return get_peft_model(model, lora)


def load_classifier(base: Base, label_names: tuple[str, ...]) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint in fp32 as a classifier into `label_names`.

    Returns:
        The model, and the names of the parameters that the checkpoint does not have, or has in another shape.

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
    (folder / "README.md").unlink(missing_ok=True)  # a template that is meant to be filled in by hand


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


def check_length(config: PretrainedConfig, max_length: int) -> None:
    """Raise a UserError where the model has too few positions for a length."""
    longest = positions(config)
    if longest and max_length > longest:
        raise UserError(
            f"`--max-length {max_length}` is more than this model's {longest} positions",
            f"use `--max-length {longest}` or less",
        )


def positions(config: PretrainedConfig) -> int | None:
    """Return how many tokens a model has positions for, None where its configuration does not say."""
    longest: int | None = getattr(config, "max_position_embeddings", None)
    if longest and architecture_of(config.model_type).positions_follow_padding:
        longest -= config.pad_token_id + 1
    return longest


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message."""
    return str(error).strip().split(os.linesep)[0]
