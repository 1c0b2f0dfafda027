"""Checkpoint to ONNX: traced by PyTorch, or by optimum where that is asked for."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.bundle.artifact import MODEL
from exporter.config import Exporter
from exporter.convert.merge import copy_around_model
from trainer.errors import UserError
from trainer.model.load import inputs_of
from trainer.model.untrusted import first_line

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

OPSET = 18
BATCH, LENGTH = "batch_size", "sequence_length"
"""The axes of the inputs, called as optimum calls them."""
TRACED = ("a text", "and a longer one, so that the first is padded")
"""What is traced with: texts, because some models look for the special tokens of their tokenizer."""


def check_exporter(exporter: Exporter) -> None:
    """Raise a UserError where optimum is asked for and not installed, before anything takes time."""
    if exporter == "optimum" and importlib.util.find_spec("optimum") is None:
        raise UserError(
            "`--exporter optimum` needs the package `optimum-onnx`",
            "leave it out, or run `pip install 'lora2onnx[train,optimum]'`, which brings transformers 4.57",
        )


def convert(checkpoint: Path, folder: Path, exporter: Exporter = "torch") -> None:
    """Export a merged checkpoint to `folder/model.onnx` in fp32, for any batch size and length.

    The folder also gets the checkpoint's configuration and tokenizer. Whether the result is right is not looked at
    here: the proof does it on real texts.

    Raises:
        UserError: the model cannot be converted, or does not fit into one file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tracer warns of every branch on a shape
        (_by_torch if exporter == "torch" else _by_optimum)(checkpoint, folder)


def _by_torch(checkpoint: Path, folder: Path) -> None:
    """Trace the model: of the graphs that PyTorch makes, those in which onnxruntime finds the attention to fuse."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint,
        attn_implementation=None if _is_transformers_4() else "eager",  # in the other, attention is not found
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    ).eval()
    model.config.use_cache = False  # of a decoder, which is asked for one answer
    inputs = _inputs(model, checkpoint)
    folder.mkdir()
    try:
        with torch.no_grad(), _masks_that_can_be_traced(), contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                _only_logits(model, list(inputs)),
                tuple(inputs.values()),
                folder / MODEL,
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_axes={name: {0: BATCH, 1: LENGTH} for name in inputs} | {"logits": {0: BATCH}},
                opset_version=OPSET,
                dynamo=False,
            )
    except (RuntimeError, ValueError, TypeError, IndexError) as error:  # depends on what the model does
        raise UserError(f"PyTorch cannot export this model: {first_line(error)}", "take another base model") from None
    _refuse_several([path.name for path in folder.iterdir() if path.name != MODEL])
    copy_around_model(checkpoint, folder)


def _inputs(model: PreTrainedModel, checkpoint: Path) -> dict[str, Tensor]:
    """Return what to trace with: two texts, one of them padded, and token types where the model has several."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=model.config.pad_token_id or 0)
    encoded = tokenizer.encode_batch(TRACED)
    inputs = {
        "input_ids": torch.tensor([text.ids for text in encoded]),
        "attention_mask": torch.tensor([text.attention_mask for text in encoded]),
    }
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    return {name: inputs[name] for name in inputs_of(model)}


def _only_logits(model: PreTrainedModel, names: list[str]) -> Module:
    """Return a module that takes the inputs called `names` in this order, and returns nothing but logits."""
    import torch

    class OnlyLogits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Tensor) -> Tensor:
            logits: Tensor = self.model(**dict(zip(names, inputs, strict=True)), return_dict=True).logits
            return logits

    return OnlyLogits()


def _is_transformers_4() -> bool:
    import transformers

    return str(transformers.__version__).startswith("4.")


@contextlib.contextmanager
def _masks_that_can_be_traced() -> Iterator[None]:
    """Let transformers 4 make a decoder's mask by broadcasting, as 5 does: `torch.vmap` cannot be traced."""
    from transformers import masking_utils

    def broadcast(mask: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda batch, head, query, key: mask(
            batch[:, None, None, None], head[:, None, None], query[:, None], key
        )

    made_anew = {"_vmap_for_bhqkv": broadcast, "TransformGetItemToIndex": contextlib.nullcontext}
    new: dict[str, Any] = made_anew if _is_transformers_4() else {}
    before = {name: getattr(masking_utils, name) for name in new}
    vars(masking_utils).update(new)
    try:
        yield
    finally:
        vars(masking_utils).update(before)


def _by_optimum(checkpoint: Path, folder: Path) -> None:
    """Export with optimum, without its own check: one random batch, whose mismatch is a warning."""
    from optimum.exporters.onnx import main_export

    logging.getLogger("optimum").setLevel(logging.ERROR)
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
        raise UserError(f"optimum cannot export this model: {error}", "leave out `--exporter`") from None
    _refuse_several([path.name for path in folder.glob("*.onnx*") if path.name != MODEL])


def _refuse_several(strays: list[str]) -> None:
    if strays:
        raise UserError(f"the model came out in several files: {', '.join(strays)}", "take a base model under 2 GB")
