"""What a benchmark measures on what, settled before it starts."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.backends import REFERENCE, BackendSpec
from bench.config import BenchConfig
from bench.environment import read_environment
from bench.measure import deal
from bench.results import Environment
from exporter.artifacts import ExportRecord, load_export
from exporter.reference import adapter_encoder
from exporter.runtime import usable_cores
from trainer.data import Examples, read_examples, read_texts
from trainer.run import RunDir, TrainRecord


@dataclass(frozen=True)
class Setting:
    """The export, the reviews and the machine."""

    config: BenchConfig
    run: RunDir
    train: TrainRecord
    export: ExportRecord
    environment: Environment
    reviews: Examples
    """In the order of their file."""
    tokens: tuple[int, ...]
    """Of each review, as the classifier reads it."""
    least_tokens: int
    """Of a text that is not empty."""
    shares: tuple[list[int], ...]
    """The reviews that each generation scores: together all, each once, and alike in length."""
    own_tokens: tuple[int, ...]
    started: float

    @classmethod
    def set_up(cls, config: BenchConfig) -> Setting:
        """Read what the exporter left.

        Raises:
            UserError: there is no export, or no file `--texts`.
        """
        run = RunDir(config.run_dir)
        train, export = run.load(), load_export(run)
        rng = random.Random(config.seed)
        reviews = read_examples(run.evaluation, train.label_names)
        drawn = rng.sample(range(len(reviews)), min(len(reviews), config.max_eval_samples or len(reviews)))
        reviews = reviews.take(sorted(drawn))
        encoder = adapter_encoder(run, train)
        own = read_texts(config.texts, config.text_column) if config.texts else []
        tokens = tuple(len(e) for e in encoder.encode(reviews.texts))
        return cls(
            config=config,
            run=run,
            train=train,
            export=export,
            environment=read_environment(config.threads or usable_cores()),
            reviews=reviews,
            tokens=tokens,
            least_tokens=encoder.max_length - encoder.room + 1,
            shares=tuple(deal(tokens, min(config.restarts, len(reviews)), rng)),
            own_tokens=tuple(len(e) for e in encoder.encode(own)) if own else (),
            started=time.monotonic(),
        )


def reference_of(specs: Sequence[BackendSpec]) -> BackendSpec:
    """Return what the others are compared with: PyTorch on the CPU, else another form of ours in fp32."""
    ours = [spec for spec in specs if spec.precision == "fp32" and not spec.peer]
    return min(ours or specs, key=lambda spec: (spec.name != REFERENCE, spec.name))
