"""What a run trained, loaded: the classifier with its adapter, and the encoder that it was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.data.sources import Base, Source, locate_base
from trainer.errors import UserError
from trainer.model.adapters import attach_adapter
from trainer.model.load import load_classifier, settle_padding
from trainer.model.untrusted import check_folder
from trainer.progress import quiet_libraries
from trainer.run import RunDir, TrainRecord
from trainer.text.encoding import Encoder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def base_of(run: RunDir, record: TrainRecord) -> Base:
    """Find the checkpoint under a run's adapter, or the whole one where there is none, which the run may hold itself.

    Raises:
        UserError: it cannot be found, is not the one of the training, or is not safe to open.
    """
    if run.has_checkpoint():
        return Base(run.adapter, Source(str(run.path.resolve()), None, None))
    base = locate_base(record.base.name, record.base.revision)
    if base.sha256() != record.base_sha256:
        raise UserError(
            f"the base model `{record.base.name}` was changed after the training",
            f"restore it, or run `{TrainRecord.MADE_BY} --overwrite`",
        )
    return base


def load_adapter(run: RunDir, record: TrainRecord) -> PeftModel | PreTrainedModel:
    """Load a run's adapter on top of the checkpoint that it was trained on, or a checkpoint without an adapter.

    Raises:
        UserError: the checkpoint cannot be found, is not the one of the training, or is not safe to open.
    """
    check_folder(run.adapter)  # the tokenizer is there in any case
    quiet_libraries()  # no warning that the head is new: an adapter may bring it
    model = load_classifier(base_of(run, record), record.label_names, record.task)[0]
    adapted = attach_adapter(model, run.adapter) if run.has_adapter() else model
    settle_padding(model.config, record.pad_token_id)  # by now the model has the rows that the adapter brings
    return adapted


def adapter_encoder(run: RunDir, record: TrainRecord) -> Encoder:
    """Return the encoder that a run was trained with."""
    return Encoder.load(run.adapter, record.max_length, record.truncation, record.pad_token_id, pairs=record.pairs)
