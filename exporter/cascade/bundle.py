"""Puts a first stage into a bundle, with golden answers of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exporter.bundle.artifact import GOLDEN, Artifact
from exporter.bundle.golden import FirstAnswers, read_golden
from exporter.cascade.load import open_first_stage
from exporter.cascade.stage import LEXICAL, Cascade
from exporter.cascade.synthetic import make_texts
from exporter.engines.engine import load_encoder
from trainer.errors import UserError
from trainer.records import write_record
from trainer.text.texts import parts_of


def add_cascade(folder: Path, artifact: Artifact, lexical_bytes: bytes, cascade: Cascade) -> Artifact:
    """Put a first stage into a bundle that has golden answers and is not sealed yet.

    Args:
        folder: the bundle's.
        artifact: what it is.
        lexical_bytes: the file of a linear classifier of the bundle's tokens and labels.
        cascade: when it answers.

    Returns:
        What the bundle is now, to be sealed.

    Raises:
        UserError: the file is not of such a classifier, or it answers no text that is made of its own tokens.
    """
    (folder / LEXICAL).write_bytes(lexical_bytes)
    first = open_first_stage(folder, artifact, cascade)
    encoder, classes = load_encoder(folder, artifact), len(artifact.label_names)
    texts = make_texts(first, encoder, classes)
    logits, sure = first.answer(encoder.tokens(texts))
    if not sure.any():
        raise UserError("the first stage is sure of no text that is made of its own tokens", "leave it out")
    parts = [parts_of(text) for text in texts]
    answers = FirstAnswers(
        texts=tuple(own[0] for own in parts),
        second_texts=tuple(own[1] for own in parts) if artifact.pairs else (),
        logits=tuple(tuple(map(float, row)) for row in logits),
        answered=tuple(map(bool, sure)),
        stack=cascade.stack,
    )
    golden = read_golden(folder, pairs=artifact.pairs)
    write_record(folder / GOLDEN, replace(golden, first_stage=answers))
    return replace(artifact, cascade=cascade)
