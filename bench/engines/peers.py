"""What other tools are measured with: batchings that their documentation recommends, and texts to calibrate on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.engines.engine import ONE_BY_ONE, Batching
from trainer.data.load import read_examples

if TYPE_CHECKING:
    from trainer.run import RunDir
    from trainer.text.texts import Text

PIPELINE_BATCHINGS: Sequence[Batching] = (ONE_BY_ONE, Batching(texts=8), Batching(texts=32))
"""Of pipelines, whose documentation says to try some sizes, and that padding can make any of them the slowest."""


def own_best(threads: int) -> tuple[Batching, ...]:
    """Return the ways that runtimes with streams recommend: few texts or few tokens, one call or several at a time."""
    streams = sorted({1, threads})
    limits = ({"texts": 1}, {"texts": 32}, {"tokens": 1024})
    return tuple(Batching(**limit, streams=count) for limit in limits for count in streams)


def calibration_texts(run: RunDir, most: int) -> Sequence[Text]:
    """Return some of the texts that a run was trained on, which were drawn and kept for such a purpose.

    Raises:
        UserError: they are not the run's any more.
    """
    record = run.load(calibration=True)
    return read_examples(run.calibration, record.label_names).texts[:most]
