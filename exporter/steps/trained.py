"""What was trained, loaded as PyTorch has it: the proof begins with it, and thresholds are chosen by its answers."""

from __future__ import annotations

from functools import partial

from exporter.engines.engine import usual_batching
from exporter.proof.reference import load_trained
from exporter.proof.worker import Workers
from exporter.subject import Subject
from trainer.progress import say

TRAINED = "adapter"
"""What its step in the proof is called."""


def choose_thresholds(subject: Subject, workers: Workers) -> Subject:
    """Let what was trained answer the calibration texts, and choose from which probability on a label is given."""
    say(f"choosing thresholds on {len(subject.calibration):,} texts")
    with workers.opened(TRAINED, partial(load_trained, subject.run)) as worker:
        return subject.with_thresholds(worker.logits(subject.calibration.texts, usual_batching(workers.threads)))
