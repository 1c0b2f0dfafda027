"""Loads and checks the first stage of a bundle wherever that is deployed."""

from __future__ import annotations

from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from exporter.bundle.artifact import GOLDEN, Artifact
from exporter.bundle.golden import compare, read_golden
from exporter.cascade.engine import CascadeEngine
from exporter.cascade.stage import LEXICAL, Cascade, FirstStage
from exporter.checksums import IntegrityError
from exporter.engines.engine import ModelEngine
from trainer.lexical.file import read_lexical

TOLERANCE = 1e-3
"""Of the first stage's logits: it computes in fp32 everywhere."""


def load_cascade(
    folder: Path, artifact: Artifact, engine: ModelEngine[Any], *, golden: bool = True, on_gpu: bool = False
) -> CascadeEngine | None:
    """Load the first stage of a bundle whose files were checked, None where it has none.

    Args:
        folder: the bundle's.
        artifact: what it is.
        engine: of its model.
        golden: whether to let it answer its golden texts.
        on_gpu: whether the model is on a GPU.

    Raises:
        IntegrityError: the golden answers come out differently.
        UserError: the first stage is damaged.
    """
    if artifact.cascade is None:
        return None
    both = CascadeEngine(engine, open_first_stage(folder, artifact, artifact.cascade))
    if golden:
        _check(folder, artifact, both, on_gpu=on_gpu)
    return both


def open_first_stage(folder: Path, artifact: Artifact, cascade: Cascade) -> FirstStage:
    """Read the first stage in a folder, to answer when `cascade` says; a UserError where it is damaged."""
    return FirstStage(read_lexical(folder / LEXICAL, len(artifact.label_names)), cascade)


def _check(folder: Path, artifact: Artifact, both: CascadeEngine, *, on_gpu: bool) -> None:
    """Let the first stage answer its golden texts, and both together those that it answers and one of the others."""
    golden = read_golden(folder, pairs=artifact.pairs)
    if (expected := golden.first_stage) is None:
        raise IntegrityError(f"`{folder / GOLDEN}` says nothing of the first stage", "export the artifact again")
    own = [*compress(expected.asked(), expected.answered)]
    rows = np.array([*compress(expected.logits, expected.answered)], np.float32)
    if [stage == "lexical" for stage in both.stages(expected.asked())] != [*expected.answered] or not (
        rows.shape[-1] == len(artifact.label_names) and np.abs(both.answer_all(own)[1] - rows).max() <= TOLERANCE
    ):
        raise IntegrityError(
            f"the first stage in `{folder}` answers differently here than where it was exported",
            "copy or export the artifact again; `cascade=False`, or `--no-cascade`, asks the model alone",
        )
    going_on = (i for i, stage in enumerate(both.stages(golden.asked())) if stage != "lexical")
    if (i := next(going_on, None)) is not None:
        text, model = [golden.asked()[i]], np.array([golden.logits[i]], np.float32)
        found = both.answer_all(text)[1]
        compare(folder, golden, both.combine(text, model), found, artifact.meaning(), on_gpu=on_gpu)
