"""What a training starts from: a base checkpoint, or layers of a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast, set_seed

from trainer.config import TrainConfig
from trainer.data.sources import Base, locate_base
from trainer.model.adapters import attach_adapter, merge_adapter, save_adapter
from trainer.model.load import add_lora, load_classifier, load_tokenizer
from trainer.model.trained import base_of
from trainer.progress import say, say_source
from trainer.run import discard
from trainer.student.layers import take_layers
from trainer.student.teacher import Teacher

Trained: TypeAlias = PeftModel | PreTrainedModel
"""With LoRA, or with all of its weights to be trained."""


@dataclass(frozen=True)
class Start:
    """What a training starts from."""

    base: Base
    """The checkpoint; where there is a `source`, the one under that."""
    tokenizer: PreTrainedTokenizerFast
    source: Teacher | None
    """Whose layers are taken; None where the base is taken as it is."""

    @classmethod
    def locate(cls, config: TrainConfig, teacher: Teacher | None) -> Start:
        """Find it, or raise a UserError where there is no such checkpoint."""
        if teacher is not None and config.takes_layers:
            base = base_of(teacher.run, teacher.record)
            say(f"student: layers of the classifier in `{teacher.run.path}`")
            return cls(base, load_tokenizer(teacher.run.adapter), teacher)
        base = locate_base(config.model)
        say_source("base model", base.source)
        return cls(base, load_tokenizer(base.folder), None)

    def build(self, config: TrainConfig, label_names: tuple[str, ...]) -> Trained:
        """Make the classifier to train, in fp32; the seed is set before any new weight is made."""
        set_seed(config.seed)
        model, fresh = self._classifier(config, label_names)
        if config.trains_all:
            return model
        return add_lora(
            model,
            fresh,
            lora_r=config.lora_r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            lora_targets=config.lora_targets,
        )

    def save(self, model: Trained, config: TrainConfig, folder: Path) -> None:
        """Save the adapter that was trained, or the whole classifier where what it adapts is nowhere else."""
        if isinstance(model, PeftModel) and self.source is None:
            save_adapter(model, self.base.source, folder)
        elif isinstance(model, PeftModel):
            self._merge(model, config, folder).save_pretrained(folder)
        else:
            model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _merge(self, model: PeftModel, config: TrainConfig, folder: Path) -> PreTrainedModel:
        """Merge an adapter into the teacher's layers; those that it was trained on may be in half precision by now."""
        save_adapter(model, self.base.source, folder)
        layers, _ = self._classifier(config, ())
        merged = merge_adapter(attach_adapter(layers, folder))
        discard(folder)
        return merged

    def _classifier(self, config: TrainConfig, label_names: tuple[str, ...]) -> tuple[PreTrainedModel, list[str]]:
        """Return the classifier, and the names of parameters that are new, or that are its head."""
        if self.source is None:
            return load_classifier(self.base, label_names, config.task_name)
        model = take_layers(self.source.classifier(), config.student_layers)
        encoder = model.base_model_prefix + "."
        return model, [name for name, _ in model.named_parameters() if not name.startswith(encoder)]


def count_parameters(model: Trained) -> tuple[int, int]:
    """Return how many parameters are trained, and how many there are."""
    if isinstance(model, PeftModel):
        trained, total = model.get_nb_trainable_parameters()
        return int(trained), int(total)
    total = sum(weight.numel() for weight in model.parameters())
    return total, total
