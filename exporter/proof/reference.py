"""The classifier in PyTorch: what every artifact is measured against, under the same contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from exporter.bundle.artifact import Artifact, open_artifact
from exporter.engines.engine import BLOCK_TEXTS, GPU_BLOCK_TEXTS, ModelEngine, load_encoder
from exporter.engines.shapes import FewShapes
from exporter.engines.spec import Device
from trainer.config import TaskName
from trainer.data.sources import Base, Source
from trainer.model.load import inputs_of, load_classifier
from trainer.model.trained import adapter_encoder, load_adapter
from trainer.progress import quiet_libraries
from trainer.run import RunDir
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Dtype = Literal["fp32", "bf16", "fp16"]


DTYPES: dict[Dtype, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""As PyTorch and transformers call them."""


class TorchModel:
    """A checkpoint that takes encoded texts.

    Args:
        model: a sequence classifier.
        encoder: its encoder.
        device: where to run it, as PyTorch names it.
        dtype: the precision of its weights.
    """

    def __init__(self, model: torch.nn.Module, encoder: Encoder, device: str = "cpu", dtype: Dtype = "fp32") -> None:
        import torch

        self.module = model.eval().to(device=device)
        self.inputs = inputs_of(model)
        self.encoder = encoder
        self._device = torch.device(device)
        self.shapes: FewShapes | None = None
        self._has_whole_masks = False
        if self._device.type == "cuda":
            self.shapes = FewShapes(encoder.max_length)
            self._has_whole_masks = takes_whole_masks(self.module, self.inputs, encoder.max_length)
        self.module = self.module.to(dtype=getattr(torch, DTYPES[dtype]))
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # what it takes to load it is not what it takes to run it

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of one batch, [len(batch), classes], padded to the longest text or to `length` tokens.

        On CUDA more is padded, so that sizes are few.
        """
        import torch

        count, width = len(batch), length or max(map(len, batch))
        if self.shapes:
            count, width = self.shapes.size(count, width)
        arrays = self.encoder.pad([*batch, *[batch[-1]] * (count - len(batch))], width)
        rows = torch.from_numpy(np.stack([arrays[name] for name in self.inputs]))
        if self._device.type == "cuda":
            rows = rows.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode():
            # The copy to the host waits for the device: no caller has to synchronise.
            return np.asarray(self.forward(rows).cpu().numpy(), dtype=np.float32)[: len(batch)]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits of padded texts in fp32, [texts, classes], on the device where they are.

        Args:
            rows: each of the model's inputs, [inputs, texts, tokens].
        """
        inputs = dict(zip(self.inputs, rows, strict=True))
        if self._has_whole_masks:
            inputs["attention_mask"] = _whole(inputs["attention_mask"])
        logits: torch.Tensor = self.module(**inputs).logits.float()
        return logits


def takes_whole_masks(module: torch.nn.Module, inputs: Sequence[str], tokens: int) -> bool:
    """Return whether a model answers the same if it is given its mask in the shape of the attention.

    Then it need not look at the values of the mask, for which a host waits for its device in every call. Not so a
    decoder, or one whose layers look at near tokens only: they make masks of their own.

    Args:
        module: the model, in fp32: in half of it, a near token could stand for a far one.
        inputs: what it takes.
        tokens: how long a text can be.
    """
    import torch

    device = next(module.parameters()).device
    rows = torch.ones((len(inputs), 2, tokens), dtype=torch.int64, device=device)
    named = dict(zip(inputs, rows, strict=True)) | {
        "input_ids": torch.arange(2 * tokens, device=device).view(2, -1) % 7
    }
    named["attention_mask"][1, tokens // 2 :] = 0
    if "token_type_ids" in named:
        named["token_type_ids"].zero_()
    try:
        with torch.inference_mode():
            usual = module(**named).logits
            whole = module(**named | {"attention_mask": _whole(named["attention_mask"])}).logits
    except Exception:  # whatever a model raises that takes no such mask
        return False
    return bool(torch.allclose(usual, whole, rtol=0, atol=1e-5 * float(usual.abs().max())))


def _whole(mask: torch.Tensor) -> torch.Tensor:
    return mask.bool()[:, None, None]


def load_merged(folder: Path, device: Device = "cpu", dtype: Dtype = "fp32") -> ModelEngine[TorchModel]:
    """Load the merged artifact in `folder`.

    Raises:
        UserError: it is no artifact, or was changed.
    """
    return open_merged(folder, open_artifact(folder), device, dtype)


def open_merged(
    folder: Path, artifact: Artifact, device: Device = "cpu", dtype: Dtype = "fp32"
) -> ModelEngine[TorchModel]:
    """Load the merged checkpoint in `folder` without any check: for the exporter, which is still at work on it."""
    model = load_checkpoint(folder, artifact.label_names, artifact.task)
    return _engine(TorchModel(model, load_encoder(folder, artifact), device, dtype))


def load_trained(run: RunDir, device: Device = "cpu", dtype: Dtype = "fp32") -> ModelEngine[TorchModel]:
    """Load what a run trained, the unmerged adapter on top of its base.

    Raises:
        UserError: there is no finished run, or its base is gone or changed.
    """
    record = run.load()
    return _engine(TorchModel(load_adapter(run, record), adapter_encoder(run, record), device, dtype))


def _engine(model: TorchModel) -> ModelEngine[TorchModel]:
    block = GPU_BLOCK_TEXTS if model.shapes else BLOCK_TEXTS
    return ModelEngine(model, shapes=model.shapes, block=block)


def load_checkpoint(folder: Path, label_names: tuple[str, ...], task: TaskName = "single-label") -> PreTrainedModel:
    """Load a sequence classifier in fp32 from safetensors.

    Raises:
        UserError: the folder is not safe to open, or holds no such classifier.
    """
    quiet_libraries()
    return load_classifier(Base(folder, Source(str(folder), None, None)), label_names, task)[0]
