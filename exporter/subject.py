"""What is exported: a trained run, and the texts to prove and measure its classifier on."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import numpy as np

from exporter.bundle.artifact import Artifact, Precision
from exporter.bundle.probabilities import FloatArray
from exporter.proof.reference import adapter_encoder
from exporter.proof.verify import choose_examples
from trainer.data import Examples, read_examples
from trainer.encoding import Encoder
from trainer.run import RunDir, TrainRecord

VARIED_TEXTS = 64
"""The maximum number of texts that are asked in several ways."""


@dataclass(frozen=True)
class Subject:
    """A run with its evaluation texts, on which nothing was trained or calibrated."""

    run: RunDir
    train: TrainRecord
    encoder: Encoder
    evaluation: Examples

    @classmethod
    def read(cls, run: RunDir, *, calibration: bool) -> Subject:
        """Read what a trainer left.

        Args:
            run: where.
            calibration: whether its calibration texts are needed.

        Raises:
            UserError: there is no trained run, or its files were changed since.
        """
        train = run.load(calibration=calibration)
        return cls(run, train, adapter_encoder(run, train), read_examples(run.evaluation, train.label_names))

    def artifact(self, name: str, precision: Precision, model_file: str = "model.onnx") -> Artifact:
        """Describe an artifact of this classifier; its size is known when it is whole."""
        train = self.train
        return Artifact(
            name=name,
            model_file=model_file,
            precision=precision,
            label_names=train.label_names,
            max_length=train.max_length,
            truncation=train.truncation,
            pad_token_id=train.pad_token_id,
            size_bytes=0,
        )

    def metadata(self) -> dict[str, str]:
        """Return what running the model takes, as the metadata of an ONNX file."""
        return {
            "label_names": json.dumps(self.train.label_names, ensure_ascii=False),
            "max_length": str(self.train.max_length),
            "truncation": self.train.truncation,
            "pad_token_id": str(self.train.pad_token_id),
        }

    def accuracy(self, logits: FloatArray) -> float:
        """Return the accuracy of answers to the evaluation texts, logits of [texts, classes]."""
        return float((logits.argmax(-1) == np.asarray(self.evaluation.labels)).mean())

    def varied(self) -> Examples:
        """Return some evaluation texts of all lengths, mixed, so that a batch of them is padded."""
        lengths = [len(e) for e in self.encoder.encode(self.evaluation.texts)]
        some = choose_examples(self.evaluation, lengths, VARIED_TEXTS)
        return some.take(random.Random(0).sample(range(len(some)), len(some)))
