"""How fast both stages are beside the model alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from exporter.cascade.trial import CascadeSpeed
from exporter.engines.engine import Batching
from exporter.proof.timing import Spread, speed_ratio, time_interleaved
from exporter.proof.worker import Worker
from trainer.text.texts import Text

ONE_CALLS, ONE_WARMUP = 100, 4
"""One text a call: enough for a 95th percentile."""
BLOCK = 10
"""Of these calls: a single one is fast or slow by the stage that answers, and says nothing of the average."""
BULK_CALLS, BULK_WARMUP, BULK_TEXTS = 5, 1, 256
TimeBoth = Callable[[Worker, Worker, Sequence[Text], Batching], CascadeSpeed]
"""See `time_both`."""


def time_both(alone: Worker, whole: Worker, texts: Sequence[Text], batching: Batching) -> CascadeSpeed:
    """Time the model alone and both stages in turns, with many texts and with one.

    Args:
        alone: the model.
        whole: both stages.
        texts: real texts to draw from.
        batching: how many texts are scored.
    """
    one = time_interleaved(
        {"alone": alone.time, "whole": whole.time}, texts, batch_size=1, calls=ONE_CALLS, warmup=ONE_WARMUP, seed=0
    )
    return speed_of(one["alone"], one["whole"], time_many(alone, whole, texts, batching))


def time_many(alone: Worker, whole: Worker, texts: Sequence[Text], batching: Batching) -> Spread:
    """Return how many times as fast both stages are as something else with many texts at a time; see `time_both`."""
    engines = {name: partial(worker.time, batching=batching) for name, worker in (("alone", alone), ("whole", whole))}
    size = min(len(texts), BULK_TEXTS)
    many = time_interleaved(engines, texts, batch_size=size, calls=BULK_CALLS, warmup=BULK_WARMUP, seed=0)
    return speed_ratio(many["alone"], many["whole"])


def speed_of(alone_s: Sequence[float], whole_s: Sequence[float], bulk: Spread) -> CascadeSpeed:
    """Return the speed by the seconds of each call of one text, and that with many."""
    (median, p95) = (float(np.percentile(whole_s, p) / np.percentile(alone_s, p)) for p in (50, 95))
    return CascadeSpeed(bulk, speed_ratio(_by_block(alone_s), _by_block(whole_s)), median, p95)


def is_cheaper(speed: CascadeSpeed) -> bool:
    """Tell whether both stages cost less than the model, with many texts and one by one, in three of four rounds."""
    return speed.bulk.low > 1 and speed.one.low > 1


def _by_block(seconds: Sequence[float]) -> list[float]:
    return [sum(seconds[i : i + BLOCK]) for i in range(0, len(seconds), BLOCK)]
