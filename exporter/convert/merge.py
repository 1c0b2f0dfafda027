"""Adapter and base to one plain checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.proof.verify import VerificationError
from trainer.model.adapters import PREFIX, merge_adapter
from trainer.model.trained import load_adapter
from trainer.run import RunDir, TrainRecord

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def merge(run: RunDir, record: TrainRecord, folder: Path) -> None:
    """Merge a run's adapter into its base and save the checkpoint and its tokenizer to `folder`.

    A checkpoint that came without an adapter is saved as it is.

    Raises:
        UserError: the base cannot be found, or the adapter cannot be merged.
        VerificationError: the adapter is not really in there: no weight changed.
    """
    model = load_adapter(run, record)
    if run.has_adapter():
        model = _merge(model)
    model.save_pretrained(folder)
    copy_tokenizer(run.adapter, folder)


def _merge(model: PeftModel) -> PreTrainedModel:
    import torch

    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if ".base_layer." in name}
    merged = merge_adapter(model)
    after = {PREFIX + name: weight for name, weight in merged.named_parameters()}
    places = {name: name.replace(".token_adapter", "").replace(".base_layer", "") for name in before}
    if all(torch.equal(weight, after[places[name]]) for name, weight in before.items()):
        raise VerificationError(
            "the adapter changes none of the weights that it was trained to change",
            "train again; nothing was exported",
        )
    return merged


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what a tokenizer consists of: no weights, no code, and no settings of anything else."""
    others = ("adapter_", "model", "config", "processor", "preprocessor", "generation")
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(others) and path.suffix not in (".py", ".safetensors", ".bin"):
            shutil.copyfile(path, folder / path.name)


def copy_around_model(source: Path, folder: Path) -> None:
    """Copy the tokenizer and the configuration, all of an ONNX artifact but the model."""
    folder.mkdir(exist_ok=True)
    copy_tokenizer(source, folder)
    shutil.copyfile(source / "config.json", folder / "config.json")
