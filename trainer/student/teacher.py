"""The teacher: a finished run, and what it answers to texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from trainer.progress import say
from trainer.records import file_sha256
from trainer.run import RunDir, TrainRecord
from trainer.tasks import FloatArray
from trainer.text.texts import Text
from trainer.training.hardware import Hardware, has_bf16

TOKENS = {"cpu": 8_192, "mps": 8_192, "cuda": 65_536}
"""In a batch at most, padding included."""
SAID_S = 30
"""Seconds between two lines of progress."""
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
        if config.task not in (None, self.record.task):
            raise UserError(f"the teacher's is `--task {self.record.task}`, not `{config.task}`", "leave it out")
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

    def logits(self, texts: Sequence[Text], hardware: Hardware) -> FloatArray:
        """Return its answers, [texts, classes], in half precision where that is faster and enough.

        Texts of similar length share a batch, so that little of it is padding. How far it is, is said now and then.

        Raises:
            UserError: an answer is not a finite number.
        """
        device = hardware.device
        model, encoder = self.classifier().eval().to(device), adapter_encoder(self.run, self.record)
        inputs, encoded, pace = inputs_of(model), encoder.encode(texts), _Pace(len(texts))
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found = np.empty((len(encoded), len(self.record.label_names)), dtype=np.float32)
        size = max(1, TOKENS[device] // encoder.max_length)
        fast = _fast_dtype(hardware)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            batch = encoder.pad([encoded[i] for i in chosen])
            rows = {name: torch.from_numpy(batch[name]).to(device) for name in inputs}

            def ask(dtype: torch.dtype, rows: dict[str, torch.Tensor] = rows) -> torch.Tensor:
                with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
                    answers: torch.Tensor = model(**rows).logits
                return answers.float().cpu()

            found[chosen] = finite(ask, fast).numpy()
            pace.say(start + len(chosen))
        return found


def _fast_dtype(hardware: Hardware) -> torch.dtype:
    """Return the precision to answer in: on a CPU bf16 if the training is in it, and the CPU multiplies it natively."""
    if hardware.device == "cuda":
        return torch.bfloat16 if has_bf16("cuda") else torch.float16
    return torch.bfloat16 if hardware.precision == "bf16" and has_bf16(hardware.device) else torch.float32


def finite(ask: Callable[[torch.dtype], torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Return answers in a precision, or in fp32 where they are too large for it.

    Raises:
        UserError: they are not finite in fp32, either.
    """
    for precision in dict.fromkeys((dtype, torch.float32)):
        if (found := ask(precision)).isfinite().all():
            return found
    raise UserError("an answer of the teacher is not a finite number", "train the teacher again, in `--precision fp32`")


class _Pace:
    """Says how far a teacher is, twice a minute at most."""

    def __init__(self, texts: int) -> None:
        self._texts, self._started = texts, time.monotonic()
        self._said = self._started

    def say(self, done: int) -> None:
        now = time.monotonic()
        if now - self._said >= SAID_S and done < self._texts:
            self._said = now
            say(f"the teacher has answered {done:,} of {self._texts:,} texts, the shorter ones first")
