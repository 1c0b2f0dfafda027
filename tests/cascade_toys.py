"""A first stage for a toy run, and calibration texts that nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toys import make_texts

from trainer.data import Examples
from trainer.data.load import write_examples
from trainer.lexical.file import to_bytes
from trainer.lexical.fit import fit
from trainer.lexical.model import Lexical
from trainer.records import file_sha256, read_record, write_record
from trainer.run import RunDir, TrainRecord
from trainer.text.encoding import Encoder


def topic_texts(count: int, seed: int, label_names: Sequence[str]) -> Examples:
    texts, topics = zip(*make_texts(count, seed), strict=True)
    return Examples([*texts], [label_names.index(topic) for topic in topics])


def fit_on(run: RunDir, examples: Examples) -> Lexical:
    train = read_record(run.record, TrainRecord)
    encoder = Encoder.load(run.adapter, train.max_length, train.truncation, train.pad_token_id)
    labels = [label for label in examples.labels if isinstance(label, int)]
    return fit(encoder.tokens(examples.texts), labels, len(train.label_names), seed=0).lexical


def give_first_stage(run: RunDir, lexical: Lexical, calibration: Examples) -> None:
    """Leave both in the run as a trainer does that has texts left over."""
    train = read_record(run.record, TrainRecord)
    run.lexical.write_bytes(to_bytes(lexical))
    write_examples(run.calibration, calibration, train.label_names)
    write_record(
        run.record,
        replace(
            train,
            lexical_sha256=file_sha256(run.lexical),
            calibration_sha256=file_sha256(run.calibration),
            calibration_is_apart=True,
        ),
    )
