"""Loads and checks the first stage of a bundle wherever that is deployed."""

from __future__ import annotations

from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from exporter.bundle.artifact import GOLDEN, Artifact
from exporter.bundle.golden import FirstAnswers, read_golden
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.stage import LEXICAL, Cascade, FirstStage
from exporter.checksums import IntegrityError
from exporter.engines.engine import ModelEngine
from trainer.lexical.file import read_lexical
from trainer.tasks import FloatArray

TOLERANCE = 1e-3
"""Of the first stage's logits: it computes in fp32 everywhere."""


def load_cascade(
    folder: Path, artifact: Artifact, engine: ModelEngine[Any], *, golden: bool = True
) -> CascadeEngine | None:
    """Load the first stage of a bundle whose files were checked, None where it has none.

    Args:
        folder: the bundle's.
        artifact: what it is.
        engine: of its model.
        golden: whether to let it answer its golden texts.

    Raises:
        IntegrityError: the golden answers come out differently.
        UserError: the first stage is damaged.
    """
    if artifact.cascade is None:
        return None
    both = CascadeEngine(engine, open_first_stage(folder, artifact, artifact.cascade))
    if golden:
        _check(folder, both, read_golden(folder, pairs=artifact.pairs).first_stage)
    return both


def open_first_stage(folder: Path, artifact: Artifact, cascade: Cascade) -> FirstStage:
    """Read the first stage in a folder, to answer when `cascade` says; a UserError where it is damaged."""
    return FirstStage(read_lexical(folder / LEXICAL, len(artifact.label_names)), cascade)


def _check(folder: Path, both: CascadeEngine, expected: FirstAnswers | None) -> None:
    """Let the first stage answer its golden texts, also through both, and compare the weights of a sum.

    Args:
        folder: the bundle's.
        both: what is in it; its model has answered its own golden texts already.
        expected: what the first stage has to say.
    """
    if expected is None:
        raise IntegrityError(f"`{folder / GOLDEN}` says nothing of the first stage", "export the artifact again")
    own, logits = [*compress(expected.asked(), expected.answered)], np.array(expected.logits, np.float32)
    rows = logits[np.array(expected.answered)]
    said, _ = both.first.read(both.encoder.tokens(expected.asked()))
    is_own = [stage == "lexical" for stage in both.stages(expected.asked())]
    is_same = is_own == [*expected.answered] and both.first.cascade.stack == expected.stack
    if not (is_same and _are_alike(said, logits) and _are_alike(both.answer_all(own)[1], rows)):
        raise IntegrityError(
            f"the first stage in `{folder}` answers differently here than where it was exported",
            "copy or export the artifact again; `cascade=False`, or `--no-cascade`, asks the model alone",
        )


def _are_alike(found: FloatArray, expected: FloatArray) -> bool:
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= TOLERANCE)
