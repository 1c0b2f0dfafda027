"""How fast both stages are beside the model alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from exporter.cascade.trial import CascadeSpeed
from exporter.engines.engine import Batching
from exporter.proof.timing import Time, speed_ratio, time_interleaved
from exporter.proof.worker import Worker, timed_call
from trainer.text.texts import Text

ONE_CALLS, ONE_WARMUP = 100, 4
"""One text a call: enough for a 95th percentile."""
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
    lists: dict[str, Time] = {
        "alone": partial(_time_list, alone, batching),
        "whole": partial(_time_list, whole, batching),
    }
    size = min(len(texts), BULK_TEXTS)
    many = time_interleaved(lists, texts, batch_size=size, calls=BULK_CALLS, warmup=BULK_WARMUP, seed=0)
    return speed_of(one["alone"], one["whole"], many["alone"], many["whole"])


def speed_of(
    alone_s: Sequence[float], whole_s: Sequence[float], lists_alone_s: Sequence[float], lists_whole_s: Sequence[float]
) -> CascadeSpeed:
    """Return the speed by the seconds of each call, of one text and of many."""
    (mean, median, p95) = (
        float(whole / before) for whole, before in zip(_statistics(whole_s), _statistics(alone_s), strict=True)
    )
    return CascadeSpeed(speed_ratio(lists_alone_s, lists_whole_s), mean, median, p95)


def is_cheaper(speed: CascadeSpeed) -> bool:
    """Tell whether both stages cost less than the model: many at a time, and one on average."""
    return speed.bulk.low > 1 and speed.mean < 1


def _statistics(samples: Sequence[float]) -> tuple[float, float, float]:
    return float(np.mean(samples)), float(np.median(samples)), float(np.percentile(samples, 95))


def _time_list(worker: Worker, batching: Batching, texts: Sequence[Text]) -> float:
    return worker.call(timed_call, texts, batching)
