"""A bundle that answers through both stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.bundle.artifact import open_artifact
from exporter.cascade.stage import LEXICAL, FirstStage
from exporter.engines.engine import ALL_AT_ONCE, Batching, ModelEngine
from exporter.engines.table import LOAD
from trainer.errors import UserError
from trainer.lexical.file import read_lexical
from trainer.tasks import FloatArray
from trainer.text.texts import Text


class CascadeEngine:
    """Asks the first stage, and of the texts that it is not sure of, the model."""

    model = None

    def __init__(self, engine: ModelEngine[Any], first: FirstStage) -> None:
        self._engine, self._first = engine, first
        self.batchings = engine.batchings

    def logits(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> FloatArray:
        """Return the logits of the stage that answered each text, [len(texts), classes]."""
        encoder = self._engine.model.encoder
        tokens = encoder.tokens(texts)
        logits, answered = self._first.answer(tokens)
        if len(rest := np.flatnonzero(~answered)):
            logits[rest] = self._engine.run_all([encoder.fit(tokens[i]) for i in rest], batching)
        return logits


def load_cascade(folder: Path, *, threads: int) -> CascadeEngine:
    """Load a bundle with a cascade, as whoever deploys it does.

    Raises:
        UserError: it has no cascade, or cannot be loaded.
    """
    artifact = open_artifact(folder)
    if artifact.cascade is None:
        raise UserError(f"`{folder}` has no cascade", "export it again")
    engine = LOAD[artifact.engine](folder, threads=threads)
    lexical = read_lexical(folder / LEXICAL, len(artifact.label_names))
    return CascadeEngine(engine, FirstStage(lexical, artifact.cascade))
