"""Checkpoint to ONNX, by optimum."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from trainer.errors import UserError


def convert(checkpoint: Path, folder: Path) -> None:
    """Export a merged checkpoint to `folder/model.onnx` in fp32, for any batch size and length.

    The folder also gets the checkpoint's configuration and tokenizer. Optimum's own check of the result, one random
    batch whose mismatch is a warning, is left out: `verify` does it on real texts.

    Raises:
        UserError: optimum does not know the architecture, or the model does not fit into one file.
    """
    from optimum.exporters.onnx import main_export

    logging.getLogger("optimum").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every branch on a shape
        try:
            main_export(
                str(checkpoint),
                folder,
                task="text-classification",
                library_name="transformers",
                local_files_only=True,
                do_validation=False,
            )
        except ValueError as error:
            raise UserError(f"optimum cannot export this model: {error}", "take another base model") from None
    if strays := [path.name for path in folder.glob("*.onnx*") if path.name != "model.onnx"]:
        raise UserError(f"the model came out in several files: {', '.join(strays)}", "take a base model under 2 GB")
