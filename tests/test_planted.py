"""A planted slowdown of 10 % is found, one of 1 % is not: the real workers and rounds, on a machine at rest."""

from __future__ import annotations

import random
from contextlib import ExitStack, closing
from functools import partial

import pytest
from planted import load_planted

from bench.config import BenchConfig
from bench.judge.speed import speed_of
from bench.judge.stats import noise_floor, verdict
from bench.measure.calls import rounds, timed, warm_up
from bench.measure.cores import pin
from bench.measure.draws import start_order
from exporter.proof.worker import Worker
from trainer.data.sources import SAMPLE_REVIEWS
from trainer.files.tables import read_table
from trainer.tasks import SingleLabel

pytestmark = pytest.mark.slow

TASK = SingleLabel(2)
SLOW = {"reference": 0.0, "again": 0.0, "1 %": 0.01, "10 %": 0.10}


def test_ten_percent_is_slower_and_one_percent_cannot_be_told() -> None:
    rng = random.Random(0)
    texts = sorted(read_table(SAMPLE_REVIEWS)["text"], key=len)[-300:]
    seconds: dict[str, dict[int, list[float]]] = {name: {} for name in SLOW}
    for restart in range(BenchConfig.restarts):
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(closing(Worker(name, partial(load_planted, SLOW[name]), 1, partial(pin, 1))))
                for name in start_order(SLOW, restart, 0)
            }
            warm_up(workers, texts[-1], TASK, rng)
            drawn = [(text, TASK) for text in rng.sample(texts, BenchConfig.calls)]
            for name, calls in rounds(workers, drawn, timed, rng).items():
                seconds[name][restart] = [call.total_s for call in calls]
    ratios = {name: speed for name, taken in seconds.items() if (speed := speed_of(seconds["reference"], taken))}
    floor = noise_floor(ratios["again"])
    found = {name: verdict(ratio, floor) for name, ratio in ratios.items()}
    assert verdict(ratios["again"], noise_floor(None)) == "cannot tell", ratios
    assert found == {"reference": "cannot tell", "again": "cannot tell", "1 %": "cannot tell", "10 %": "slower"}, ratios
