"""Where an export is built, and what it is built from and measured on."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exporter.convert.merge import copy_tokenizer
from exporter.proof.reference import adapter_encoder
from exporter.proof.verify import SAME_NUMBERS, Chain, check_labels, choose_examples
from exporter.proof.worker import Form, Worker
from exporter.records import Artifact, Precision, Tolerance, seal
from exporter.runtime import Classifier, Feeds, usable_cores
from trainer.data import Examples, read_examples
from trainer.encoding import Encoder
from trainer.run import RunDir, TrainRecord


@dataclass(frozen=True)
class Stage:
    """A run, the folder that becomes its export, and the texts to prove and measure it on."""

    run: RunDir
    train: TrainRecord
    folder: Path
    encoder: Encoder
    evaluation: Examples
    calibration: Examples
    chain: Chain
    threads: int

    @classmethod
    def set_up(cls, run: RunDir, train: TrainRecord, folder: Path, most: int) -> Stage:
        """Read what the run left; `most` evaluation texts make the chain."""
        encoder = adapter_encoder(run, train)
        evaluation = read_examples(run.evaluation, train.label_names)
        lengths = [len(e) for e in encoder.encode(evaluation.texts)]
        return cls(
            run=run,
            train=train,
            folder=folder,
            encoder=encoder,
            evaluation=evaluation,
            calibration=read_examples(run.calibration, train.label_names),
            chain=Chain(encoder, choose_examples(evaluation, lengths, most), len(train.label_names)),
            threads=usable_cores(),
        )

    @property
    def scratch(self) -> Path:
        """What is needed on the way and shipped to nobody."""
        return self.folder / "scratch"

    def seal(self, folder: Path, precision: Precision, *, model_file: str = "model.onnx") -> Artifact:
        """Make `folder` an artifact of this run."""
        check_labels(folder, self.train.label_names)
        return seal(folder, model_file=model_file, precision=precision, train=self.train)

    def load(self, name: str, load: Callable[[], Form]) -> contextlib.closing[Worker]:
        """Load a form in a process of its own, for the length of a `with`."""
        return closing(Worker(name, load, self.threads))

    def load_onnx(self, folder: Path) -> contextlib.closing[Worker]:
        """Load the ONNX artifact in `folder`, likewise."""
        return self.load(folder.name, partial(Classifier.load, folder, threads=self.threads))

    @contextlib.contextmanager
    def proved(self, folder: Path, *, after: str, tolerance: Tolerance = SAME_NUMBERS) -> Iterator[Worker]:
        """Load the ONNX artifact in `folder` and add it to the chain as made from the form `after`.

        Raises:
            VerificationError: it is not the same classifier.
        """
        with self.load_onnx(folder) as form:
            self.chain.add(folder.name, form, after=after, tolerance=tolerance)
            yield form

    def few(self, most: int) -> Examples:
        """Return up to `most` evaluation texts of all lengths, mixed, so that a batch of them is padded."""
        lengths = [len(e) for e in self.encoder.encode(self.evaluation.texts)]
        some = choose_examples(self.evaluation, lengths, most)
        return some.take(random.Random(0).sample(range(len(some)), len(some)))

    def feeds(self, model: Path) -> list[Feeds]:
        """Return the inputs of an ONNX artifact for the calibration texts, one each."""
        classifier = Classifier.load(model)
        return [classifier.feeds([e]) for e in self.encoder.encode(self.calibration.texts)]


def copy_around_model(source: Path, folder: Path) -> None:
    """Copy the tokenizer and the configuration, all of an ONNX artifact but the model."""
    folder.mkdir()
    copy_tokenizer(source, folder)
    shutil.copyfile(source / "config.json", folder / "config.json")
