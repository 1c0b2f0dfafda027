"""Adapter and base to one plain checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

from exporter.reference import load_adapter
from exporter.verify import VerificationError
from trainer.errors import UserError
from trainer.run import RunDir, TrainRecord


def merge(run: RunDir, record: TrainRecord, folder: Path) -> None:
    """Merge a run's adapter into its base and save the checkpoint and its tokenizer to `folder`.

    Raises:
        UserError: the base cannot be found, or the merged weights are not finite.
        VerificationError: the adapter is not really in there: one of its updates is zero.
    """
    adapted = load_adapter(run, record)
    updates = [m.get_delta_weight("default") for m in adapted.modules() if hasattr(m, "get_delta_weight")]
    if not all(update.any() for update in updates) or not updates:
        raise VerificationError(
            "the adapter leaves a weight of its base that it was trained to change", "train again; nothing was exported"
        )
    try:
        model = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UserError(f"the adapter cannot be merged: {error}", "train again with a lower learning rate") from None
    model.save_pretrained(folder)
    copy_tokenizer(run.adapter, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what a tokenizer consists of, and no weights."""
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(("adapter_", "model", "config", "artifact")):
            shutil.copyfile(path, folder / path.name)
