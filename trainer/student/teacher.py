"""The teacher: a finished run, and what it answers to texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from trainer.config import TrainConfig
from trainer.data import Splits
from trainer.data.numbering import number_labels
from trainer.data.sources import Source
from trainer.errors import UserError
from trainer.model.adapters import merge_adapter
from trainer.model.load import inputs_of
from trainer.model.trained import adapter_encoder, load_adapter
from trainer.records import file_sha256
from trainer.run import RunDir, TrainRecord
from trainer.tasks import FloatArray
from trainer.text.texts import Text

TOKENS = {"cpu": 8_192, "mps": 8_192, "cuda": 65_536}
"""In a batch at most, padding included."""
OF_DATA = ("text_column", "label_column", "label_separator", "label_names")
"""Fields of a configuration that say how a dataset is read, where they say anything."""


@dataclass(frozen=True)
class Teacher:
    """A finished run that a student learns from."""

    run: RunDir
    record: TrainRecord
    run_sha256: str
    """Of its `run.json`."""

    @classmethod
    def open(cls, folder: Path, student: Path) -> Teacher:
        """Read the run in `folder`, or raise a UserError where there is none, or it is the student's own."""
        if folder.resolve() == student.resolve():
            raise UserError(f"`{folder}` cannot be its own teacher", "choose another `--run-dir`")
        run = RunDir(folder)
        return cls(run, run.load(), file_sha256(run.record))

    def settle(self, config: TrainConfig) -> TrainConfig:
        """Return a student's configuration with the teacher's task, and with its data where none is named.

        Raises:
            UserError: the task is another, or the teacher's data are not known.
        """
        if config.task not in (type(config).task, self.record.task):
            raise UserError(f"`--task {config.task}` is not that of the teacher", "leave it out")
        config = replace(config, task=self.record.task)
        if config.dataset is not None:
            return config
        if self.record.training is None:
            raise UserError("the data of a teacher that was trained elsewhere are not known", "add `--dataset`")
        asked = self.record.training.config
        own = {name: getattr(config, name) or getattr(asked, name) for name in (*OF_DATA, "eval_dataset")}
        return replace(
            config, dataset=self.record.dataset.name, encoding=asked.encoding, no_header=asked.no_header, **own
        )

    def sources(self, config: TrainConfig) -> tuple[str | Source | None, str | Source | None]:
        """Return a student's dataset and evaluation dataset, in the teacher's revision where they are the teacher's."""
        known = [self.record.dataset, self.record.training and self.record.training.eval_dataset]
        by_name = {source.name: source for source in known if source}
        first, second = config.dataset, config.eval_dataset
        return by_name.get(first or "", first), by_name.get(second or "", second)

    def fit(self, splits: Splits) -> Splits:
        """Return a student's data with the labels numbered as the teacher numbers them.

        Raises:
            UserError: the teacher has other labels, or one of both has pairs of texts and the other single texts.
        """
        if splits.pairs != self.record.pairs:
            kinds = ("single texts", "pairs of texts")
            raise UserError(
                f"the teacher reads {kinds[self.record.pairs]}, and the dataset has {kinds[splits.pairs]}",
                "name the columns with `--text-column`",
            )
        return number_labels(splits, self.record.label_names, self.record.task)

    def classifier(self) -> PreTrainedModel:
        """Load its classifier in fp32, with the adapter in its weights."""
        model = load_adapter(self.run, self.record)
        return merge_adapter(model) if self.run.has_adapter() else model

    def logits(self, texts: Sequence[Text], device: str) -> FloatArray:
        """Return its answers, [texts, classes]: in fp32 on a CPU, in half precision on a GPU.

        Texts of similar length share a batch, so that little of it is padding.
        """
        model, encoder = self.classifier().eval().to(device), adapter_encoder(self.run, self.record)
        inputs, encoded = inputs_of(model), encoder.encode(texts)
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found = np.empty((len(encoded), len(self.record.label_names)), dtype=np.float32)
        size = max(1, TOKENS[device] // encoder.max_length)
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=device == "cuda"):
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                batch = encoder.pad([encoded[i] for i in chosen])
                rows = {name: torch.from_numpy(batch[name]).to(device) for name in inputs}
                found[chosen] = model(**rows).logits.float().cpu().numpy()
        return found
