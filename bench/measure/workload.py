"""What a benchmark measures, and on which texts: settled before it starts."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from bench.config import BenchConfig
from bench.judge.looks import looks_of
from bench.measure.draws import deal
from bench.measure.environment import read_environment
from bench.results import Environment
from exporter.engines.cores import usable_cores
from exporter.records import ExportRecord, load_export
from trainer.data import Examples, read_examples, read_texts
from trainer.errors import UserError
from trainer.files.tables import Reading
from trainer.model.trained import adapter_encoder
from trainer.records import file_sha256
from trainer.run import RunDir, TrainRecord
from trainer.tasks import Task

GPU_SHARES = 2
"""Into which the texts are divided for a GPU: it shows what it can do with long lists alone."""


@dataclass(frozen=True)
class Workload:
    """An export, the texts that it is measured on, and the machine."""

    config: BenchConfig
    run: RunDir
    train: TrainRecord
    export: ExportRecord
    export_sha256: str
    evaluation_sha256: str
    """Of the files of the record and of the evaluation texts, when the benchmark began."""
    environment: Environment
    examples: Examples
    """In the order of their file."""
    tokens: tuple[int, ...]
    """Of each text, as the classifier reads it."""
    min_tokens: int
    """Of a text that is not empty."""
    shares: tuple[list[int], ...]
    """The texts that each restart scores: together all, each once, and alike in length; all before the first look."""
    own_tokens: tuple[int, ...]
    """Of the user's own texts, if any."""
    started: float
    """By the monotonic clock."""

    @classmethod
    def read(cls, config: BenchConfig) -> Workload:
        """Read what the exporter left.

        Raises:
            UserError: there is no export, or no file `--texts`.
        """
        run = RunDir(config.run_dir)
        train, export = run.load(), load_export(run)
        rng = random.Random(config.seed)
        examples = read_examples(run.evaluation, train.label_names)
        drawn = rng.sample(range(len(examples)), min(len(examples), config.max_eval_samples or len(examples)))
        examples = examples.take(sorted(drawn))
        encoder = adapter_encoder(run, train)
        reading = Reading(config.encoding, config.no_header)
        own = (
            read_texts(config.texts, config.text_column, reading, pairs=train.pairs, trained=train.text_columns)
            if config.texts
            else []
        )
        tokens = tuple(len(e) for e in encoder.encode(examples.texts))
        shares = (GPU_SHARES,) if config.device == "cuda" else looks_of(config)
        return cls(
            config=config,
            run=run,
            train=train,
            export=export,
            export_sha256=file_sha256(run.export_record),
            evaluation_sha256=file_sha256(run.evaluation),
            environment=read_environment(config.threads or usable_cores()),
            examples=examples,
            tokens=tokens,
            min_tokens=encoder.max_length - encoder.room + 1,
            shares=tuple(deal(tokens, min(*shares, config.restarts, len(examples)), rng)),
            own_tokens=tuple(len(e) for e in encoder.encode(own)) if own else (),
            started=time.monotonic(),
        )

    @property
    def task(self) -> Task:
        """What logits mean: with the thresholds that the exporter chose."""
        return self.export.artifacts[0].meaning()

    def check_unchanged(self) -> None:
        """Refuse to go on with another export than the one that the benchmark began with.

        Raises:
            UserError: it was replaced.
        """
        record = self.run.export_record
        if not record.is_file() or file_sha256(record) != self.export_sha256:
            raise UserError(f"`{record}` was replaced while it was measured", "run `python -m bench` again")
