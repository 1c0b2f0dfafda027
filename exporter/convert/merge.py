"""Adapter and base to one plain checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

from exporter.proof.reference import load_adapter
from exporter.proof.verify import VerificationError
from trainer.errors import UserError
from trainer.run import RunDir, TrainRecord


def merge(run: RunDir, record: TrainRecord, folder: Path) -> None:
    """Merge a run's adapter into its base and save the checkpoint and its tokenizer to `folder`.

    A checkpoint that came without an adapter is saved as it is.

    Raises:
        UserError: the base cannot be found, or the adapter cannot be merged.
        VerificationError: the adapter is not really in there: no weight changed.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = load_adapter(run, record)
    if run.has_adapter():
        layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
        weights = [layer.get_base_layer().weight for layer in layers]
        before = [weight.detach().clone() for weight in weights]
        try:
            model = model.merge_and_unload(safe_merge=True)
        except ValueError as error:  # weights that are not finite
            raise UserError(
                f"the adapter cannot be merged: {error}", "train again with a lower learning rate"
            ) from None
        except (AttributeError, NotImplementedError) as error:
            raise UserError(f"this kind of adapter cannot be merged: {error}", "give one such as LoRA") from None
        if not any((now != then).any() for now, then in zip(weights, before, strict=True)):  # it is merged in place
            raise VerificationError(
                "the adapter changes none of the weights that it was trained to change",
                "train again; nothing was exported",
            )
    model.save_pretrained(folder)
    copy_tokenizer(run.adapter, folder)


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
