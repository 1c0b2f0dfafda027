"""A first stage for the toys' texts, and how it gets into a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from toys import TOPICS, make_texts

from exporter.bundle.artifact import Artifact, open_artifact, seal, with_size
from exporter.cascade.bundle import add_cascade
from exporter.cascade.stage import Cascade
from exporter.engines.engine import load_encoder
from trainer.lexical.features import features_of
from trainer.lexical.file import to_bytes
from trainer.lexical.model import Lexical
from trainer.run import RunDir

USUAL = Cascade(temperature=3.0, threshold=0.9, least_known=0.2, fewest_tokens=2, most_tokens=40)
BITS = 12


def learn(tokens: Sequence[Sequence[Sequence[int]]], labels: Sequence[int], classes: int) -> Lexical:
    """Weigh each bucket by how much more of a class has it than of the others; a fit would take seconds."""
    features = features_of(tokens, BITS)
    rows = np.repeat(np.arange(len(tokens)), np.diff(features.starts))
    counts = np.zeros((1 << BITS, classes))
    np.add.at(counts, (features.buckets, np.array(labels)[rows]), 1.0)
    weights = np.where(counts.any(axis=1, keepdims=True), np.log(0.2 + counts), 0)
    weights -= weights.mean(axis=1, keepdims=True)
    columns = weights[:, 1:] - weights[:, :1] if classes == 2 else weights
    return Lexical(columns.astype(np.float16), np.zeros(columns.shape[1], np.float32))


def give_openvino(run: RunDir) -> Artifact:
    """Give an export the artifact for OpenVINO, a copy of that in int8."""
    folder = Path(shutil.copytree(run.export / "onnx-int8", run.export / "onnx-int8-openvino"))
    seal(folder, replace(open_artifact(folder), name=folder.name, engine="openvino"))
    return open_artifact(folder)


def put_into(folder: Path, cascade: Cascade = USUAL) -> Artifact:
    """Give a sealed bundle of topics a first stage, and seal it again."""
    artifact = open_artifact(folder)
    texts, labels = zip(*make_texts(160), strict=True)
    tokens = load_encoder(folder, artifact).tokens(texts)
    lexical = learn(tokens, [sorted(TOPICS).index(label) for label in labels], len(TOPICS))
    artifact = with_size(folder, add_cascade(folder, artifact, to_bytes(lexical), cascade))
    seal(folder, artifact)
    return artifact
