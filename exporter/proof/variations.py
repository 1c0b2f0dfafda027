"""How steady answers are: the same texts in batches, padded, and with another number of threads."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from exporter.engines.engine import MOST_TEXTS, ONE_BY_ONE
from exporter.engines.onnxruntime import load_engine
from exporter.engines.spec import Device
from exporter.proof.worker import Worker, Workers
from exporter.records import Variation
from trainer.data import Examples
from trainer.progress import say
from trainer.tasks import FloatArray, Task
from trainer.text.encoding import Encoder


def in_batches(worker: Worker, examples: Examples, usual: FloatArray, task: Task) -> Variation:
    """Compare the answers to texts asked one by one, `usual`, with those to the same texts in padded batches."""
    batches = [examples.texts[i : i + MOST_TEXTS] for i in range(0, len(examples), MOST_TEXTS)]
    return vary(f"in batches of {MOST_TEXTS}", usual, np.concatenate([worker.logits(b) for b in batches]), task)


def vary(name: str, usual: FloatArray, varied: FloatArray, task: Task) -> Variation:
    """Compare two sets of logits for the same texts from the same classifier."""
    return Variation(
        name=name,
        texts=len(usual),
        flips=int(task.differ(task.answers(usual), task.answers(varied)).sum()),
        max_abs_probability=float(np.abs(task.probabilities(usual) - task.probabilities(varied)).max()),
    )


def variations(
    folder: Path, encoder: Encoder, examples: Examples, task: Task, workers: Workers, device: Device
) -> tuple[Variation, ...]:
    """Ask a sealed bundle, loaded as a server loads it, the same texts in other ways than one by one."""
    threads, longest = workers.threads, encoder.max_length
    say(f"checking {folder.name} in batches, padded" + ", and with another number of threads" * (device == "cpu"))
    with workers.opened(folder.name, partial(load_engine, folder, device=device, threads=threads)) as worker:
        usual = worker.logits(examples.texts, ONE_BY_ONE)
        padded = np.concatenate([worker.run([e], longest) for e in encoder.encode(examples.texts)])
        first = (in_batches(worker, examples, usual, task), vary(f"padded to {longest} tokens", usual, padded, task))
    if device != "cpu":
        return first
    other = 1 if threads > 1 else 2
    load = partial(load_engine, folder, threads=other)
    with replace(workers, threads=other).opened(folder.name, load) as worker:
        name = f"on {other} thread{'s' * (other > 1)} instead of {threads}"
        return (*first, vary(name, usual, worker.logits(examples.texts, ONE_BY_ONE), task))
