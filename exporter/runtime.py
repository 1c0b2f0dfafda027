"""The torch-free classifier: text in, label out, with onnxruntime, tokenizers and numpy alone.

classifier = Classifier.load("runs/default/export/onnx-int8")
classifier.predict(["An unforgettable film."])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle.artifact import Artifact
from exporter.bundle.probabilities import FloatArray, softmax
from exporter.engines.cores import usable_cores
from exporter.engines.engine import Batching, Model, ModelEngine
from exporter.engines.onnxruntime import load_bundle
from exporter.engines.spec import Device
from trainer.encoding import Encoder

BATCHING = Batching(tokens=4096)
"""How `predict` batches."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one text."""

    label: str
    probabilities: dict[str, float]
    truncated: bool
    """Whether the text was longer than the classifier reads."""


class Classifier:
    """An exported classifier, ready to answer. Make one with `Classifier.load`.

    Args:
        artifact: what it is called, and what its classes are.
        engine: answers for it.
    """

    def __init__(self, artifact: Artifact, engine: ModelEngine[Model]) -> None:
        self.artifact = artifact
        self.engine = engine

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer and truncation rule."""
        return self.engine.model.encoder

    @classmethod
    def load(
        cls, folder: Path | str, *, device: Device = "cpu", threads: int | None = None, golden: bool = True
    ) -> Classifier:
        """Load an ONNX artifact after checking its files, and let it answer its golden texts.

        Args:
            folder: the artifact's folder.
            device: where to run.
            threads: how many CPU threads one call of the model may use; all usable cores where None.
            golden: whether to refuse a classifier that answers differently here than where it was exported.

        Raises:
            IntegrityError: a file was changed, or the golden answers come out differently.
            UserError: the folder is no ONNX artifact, or the device cannot be used.
        """
        return cls(*load_bundle(Path(folder), device=device, threads=threads or usable_cores(), golden=golden))

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify texts, in batches of similar length.

        Returns:
            One prediction a text, in their order.
        """
        encoded = self.encoder.encode(texts)
        if not encoded:
            return []
        names = self.artifact.label_names
        return [
            Prediction(
                label=names[int(row.argmax())],
                probabilities=dict(zip(names, map(float, row), strict=True)),
                truncated=e.truncated,
            )
            for e, row in zip(encoded, softmax(self.engine.run_all(encoded, BATCHING)), strict=True)
        ]

    def logits(self, texts: Sequence[str], *, batch_tokens: int | None = None) -> FloatArray:
        """Return the logits of one or more texts, [len(texts), classes].

        Args:
            texts: the texts.
            batch_tokens: the maximum number of tokens in a batch, padding included; None makes one batch of all.
        """
        return self.engine.logits(texts, Batching(tokens=batch_tokens))
