"""What is exported: a trained run, and the texts to prove and measure its classifier on."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from functools import cached_property

from exporter.bundle.artifact import MODEL, Artifact, Precision
from exporter.int8.paired import ratio_of
from exporter.proof.verify import choose_examples
from exporter.thresholds import choose_thresholds
from trainer.data import Examples, read_examples
from trainer.model.trained import adapter_encoder
from trainer.run import RunDir, TrainRecord
from trainer.tasks import Answers, FloatArray, MultiLabel, Task, task_of
from trainer.text.encoding import Encoder

VARIED_TEXTS = 64
"""The maximum number of texts that are asked in several ways."""


@dataclass(frozen=True)
class Subject:
    """A run with its evaluation texts, on which nothing was trained or calibrated."""

    run: RunDir
    train: TrainRecord
    encoder: Encoder
    evaluation: Examples
    task: Task

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
        evaluation, task = read_examples(run.evaluation, train.label_names), task_of(train.task, len(train.label_names))
        return cls(run, train, adapter_encoder(run, train), evaluation, task)

    @cached_property
    def calibration(self) -> Examples:
        """Texts on which no score is measured."""
        return read_examples(self.run.calibration, self.train.label_names)

    def with_thresholds(self, logits: FloatArray) -> Subject:
        """Return it with thresholds chosen by the logits of the calibration texts, [texts, classes]."""
        truth = self.task.truth(self.calibration.labels)
        thresholds = choose_thresholds(self.task.probabilities(logits), truth)
        return replace(self, task=task_of(self.task.name, len(self.train.label_names), thresholds))

    def artifact(self, name: str, precision: Precision, model_file: str = MODEL) -> Artifact:
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
            task=train.task,
            thresholds=self.task.thresholds if isinstance(self.task, MultiLabel) else (),
            pairs=train.pairs,
            text_columns=train.text_columns,
        )

    def metadata(self) -> dict[str, str]:
        """Return what running the model takes, as the metadata of an ONNX file."""
        return {
            "label_names": json.dumps(self.train.label_names, ensure_ascii=False),
            "max_length": str(self.train.max_length),
            "truncation": self.train.truncation,
            "pad_token_id": str(self.train.pad_token_id),
            "task": self.train.task,
            **({"thresholds": json.dumps(self.task.thresholds)} if isinstance(self.task, MultiLabel) else {}),
            "pairs": str(self.train.pairs).lower(),
        }

    def score(self, logits: FloatArray) -> float:
        """Return the score of answers to the evaluation texts, logits of [texts, classes]."""
        return self.score_of(self.task.answers(logits))

    def score_of(self, answers: Answers) -> float:
        """Return the score of answers to the evaluation texts."""
        return ratio_of(self.task.parts(answers, self.task.truth(self.evaluation.labels)))

    def varied(self) -> Examples:
        """Return some evaluation texts of all lengths, mixed, so that a batch of them is padded."""
        lengths = [len(e) for e in self.encoder.encode(self.evaluation.texts)]
        some = choose_examples(self.evaluation, lengths, VARIED_TEXTS)
        return some.take(random.Random(0).sample(range(len(some)), len(some)))
