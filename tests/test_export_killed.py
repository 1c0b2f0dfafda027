"""An export that is killed at any moment leaves the earlier one or none, and the next run succeeds."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable

import pytest
from toys import start

from exporter.bundle.artifact import open_artifact
from exporter.records import load_export
from trainer.run import RunDir

KILLS = 20


@pytest.mark.slow
def test_killed_at_twenty_random_moments(trained: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(trained)
    command = [sys.executable, "-m", "exporter", "--quantize", "weight-only", "--run-dir", str(run.path)]
    command += ["--verify-samples", "8"]

    def listed() -> list[str]:
        """Return the artifacts that the record lists, each of which has to be whole."""
        if not run.export_record.exists():
            return []
        record = load_export(run)
        return [open_artifact(run.export / artifact.name).name for artifact in record.artifacts]

    started = time.monotonic()
    with start(command) as process:
        process.communicate()
    assert process.returncode == 0
    whole, duration = listed(), time.monotonic() - started
    assert len(whole) == 3
    rng, killed = random.Random(0), 0
    for _ in range(KILLS):
        with start(command) as process:
            time.sleep(rng.uniform(0, 1.05) * duration)
            killed += process.poll() is None
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        assert listed() in ([], whole)
    assert killed > KILLS / 2
    with start(command) as process:
        process.communicate()
    assert process.returncode == 0
    assert listed() == whole
    assert {path.name for path in run.path.iterdir()} == {"adapter", "data", "export", "export.json", "run.json"}
