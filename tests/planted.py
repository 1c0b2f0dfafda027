"""An engine that is slower than another by a stated share, for processes to load."""

from __future__ import annotations

import time
from collections.abc import Sequence

from exporter.engines.engine import ModelEngine
from exporter.proof.reference import TorchModel
from trainer.data.sources import SAMPLE_MODEL
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder


class Planted(TorchModel):
    """The built-in checkpoint with a random head, and a pause of no use after each call."""

    slow = 0.0

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        start = time.perf_counter()
        logits = super().run(batch, length)
        end = time.perf_counter() + self.slow * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass
        return logits


def load_planted(slow: float) -> ModelEngine[Planted]:
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    torch.set_num_threads(1)
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(SAMPLE_MODEL, num_labels=2)
    planted = Planted(model, Encoder.load(SAMPLE_MODEL, 256, "head", 0))
    planted.slow = slow
    return ModelEngine(planted)
