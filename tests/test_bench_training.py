"""Training is timed beside a plain Trainer on the same texts, in turns, and the run stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_train import files

import bench.training.__main__
from bench.training.compare import FILE, take_turns
from bench.training.record import TrainingSpeed
from trainer.records import file_sha256, read_record
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]


def test_a_run_is_measured_and_stays_as_it_is(
    trained: RunDir, copy_of: Callable[[RunDir], RunDir], command: Command
) -> None:
    run = copy_of(trained)
    before = {name: file_sha256(run.path / name) for name in files(run.path)}
    status, out, _ = command(bench.training.__main__.main, "--run-dir", run.path, "--minutes", 0.0001)
    assert status == 0
    speed = read_record(run.path / FILE, TrainingSpeed)
    assert {name: file_sha256(run.path / name) for name in files(run.path) - {FILE}} == before
    assert speed.run_sha256 == before["run.json"]
    assert (speed.texts, speed.batch_size, len(speed.ours_s)) == (64, 8, 2)
    assert f"{sorted(speed.ratios)[0]:.2f}" in out
    assert speed.environment.cpu in out
    assert json.loads((run.path / FILE).read_text())["precision"] == "fp32"


class FakeSide:
    def __init__(self, name: str, text_s: float, log: list[str], clock: list[float]) -> None:
        self.name, self.text_s, self.log, self.clock = name, text_s, log, clock
        self.texts: list[list[int]] = []

    def seconds(self, chosen: list[int]) -> float:
        self.log.append(self.name)
        self.texts.append(list(chosen))
        self.clock[0] += len(chosen) * self.text_s
        return len(chosen) * self.text_s


@pytest.mark.parametrize(("text_s", "rounds", "size"), [(0.25, 5, 128), (0.001, 10, 2_000), (5.0, 2, 128)])
def test_rounds_fill_the_time_and_each_side_begins_every_other_one(text_s: float, rounds: int, size: int) -> None:
    """By a clock that only training moves: a slow machine, a fast one, and one where two rounds are too many."""
    log: list[str] = []
    clock = [0.0]
    plain, ours = FakeSide("plain", text_s, log, clock), FakeSide("ours", text_s / 4, log, clock)
    texts, seconds = take_turns((plain, ours), 2_000, 16, minutes=4, clock=lambda: clock[0])  # type: ignore[arg-type]
    assert (texts, len(seconds)) == (size, rounds)
    assert plain.texts == ours.texts
    assert log[2:6] == ["plain", "ours", "ours", "plain"]
    assert all(p / o == pytest.approx(4) for p, o in seconds)


def test_without_a_run_there_is_nothing_to_measure(command: Command, tmp_path: Path) -> None:
    status, _, err = command(bench.training.__main__.main, "--run-dir", tmp_path / "none")
    assert status == 2
    assert "no trained run" in err
