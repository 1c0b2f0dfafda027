"""The classifier in PyTorch: what every artifact is measured against, under the same contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from exporter.bundle.artifact import Artifact, open_artifact
from exporter.engines.engine import ModelEngine, load_encoder
from exporter.engines.spec import Device
from trainer.config import TaskName
from trainer.data.sources import Base, Source, locate_base
from trainer.errors import UserError
from trainer.model.adapters import attach_adapter
from trainer.model.load import inputs_of, load_classifier, settle_padding
from trainer.model.untrusted import check_folder
from trainer.progress import quiet_libraries
from trainer.run import RunDir, TrainRecord
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

Dtype = Literal["fp32", "bf16", "fp16"]


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

        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        self._model = model.eval().to(device=device, dtype=dtypes[dtype])
        self._inputs = inputs_of(model)
        self.encoder = encoder
        self._device = device

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of one batch, [len(batch), classes], padded to the longest text or to `length` tokens."""
        import torch

        padded = self.encoder.pad(batch, length)
        inputs = {name: torch.from_numpy(padded[name]).to(self._device) for name in self._inputs}
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        # The copy to the host waits for the device: no caller has to synchronise.
        return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)


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
    return ModelEngine(TorchModel(model, load_encoder(folder, artifact), device, dtype))


def load_trained(run: RunDir, device: Device = "cpu", dtype: Dtype = "fp32") -> ModelEngine[TorchModel]:
    """Load what a run trained, the unmerged adapter on top of its base.

    Raises:
        UserError: there is no finished run, or its base is gone or changed.
    """
    record = run.load()
    return ModelEngine(TorchModel(load_adapter(run, record), adapter_encoder(run, record), device, dtype))


def load_checkpoint(folder: Path, label_names: tuple[str, ...], task: TaskName = "single-label") -> PreTrainedModel:
    """Load a sequence classifier in fp32 from safetensors.

    Raises:
        UserError: the folder is not safe to open, or holds no such classifier.
    """
    return _load_quietly(Base(folder, Source(str(folder), None, None)), label_names, task)


def load_adapter(run: RunDir, record: TrainRecord) -> PeftModel | PreTrainedModel:
    """Load a run's adapter on top of the base checkpoint that it was trained on, or a checkpoint that came whole.

    Raises:
        UserError: the base cannot be found, is not the one of the training, or is not safe to open.
    """
    check_folder(run.adapter)  # the tokenizer is there in any case
    base = locate_base(record.base.name, record.base.revision)
    if base.sha256() != record.base_sha256:
        raise UserError(
            f"the base model `{record.base.name}` was changed after the training",
            f"restore it, or run `{TrainRecord.MADE_BY} --overwrite`",
        )
    model = _load_quietly(base, record.label_names, record.task)
    adapted = attach_adapter(model, run.adapter) if run.has_adapter() else model
    settle_padding(model.config, record.pad_token_id)  # by now the model has the rows that the adapter brings
    return adapted


def adapter_encoder(run: RunDir, record: TrainRecord) -> Encoder:
    """Return the encoder that a run was trained with."""
    return Encoder.load(run.adapter, record.max_length, record.truncation, record.pad_token_id, pairs=record.pairs)


def _load_quietly(base: Base, label_names: tuple[str, ...], task: TaskName) -> PreTrainedModel:
    """Load a classifier without a warning that its head is new: an adapter may bring it."""
    quiet_libraries()
    return load_classifier(base, label_names, task)[0]
