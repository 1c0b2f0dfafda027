"""Uneven labels are seen in the scores, and can be weighed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toys import make_texts, write_csv
from transformers import EvalPrediction

from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.tasks import SingleLabel, Task
from trainer.training.loop import EpochReport, scores_of
from trainer.training.resume import check_same
from trainer.training.train import train

STATE = SimpleNamespace(is_world_process_zero=True, epoch=1.0, num_train_epochs=3)


def report(labels: list[int], truth: list[int], answers: list[int], names: tuple[str, ...]) -> None:
    """Say what is said after an epoch."""
    scores = scores_of(SingleLabel(len(names)), is_balanced=False)(
        EvalPrediction(np.eye(len(names))[answers], np.array(truth))
    )
    said = EpochReport(SingleLabel(len(names)), names, labels, "; try this")
    said.on_evaluate(None, STATE, None, {f"eval_{key}": value for key, value in (scores | {"loss": 1.0}).items()})


def test_uneven_labels_are_scored_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    report([0] * 9 + [1] * 3 + [2], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1], ("fine", "fault", "rare"))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  macro F1 76.2%; recall: `fault` 50.0%, `fine` 100.0%",
        "  class `rare` is never answered; try this",
    ]


def test_even_labels_are_scored_together_and_those_never_answered_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    report([0, 1, 2] * 5, [0, 1, 2], [0, 1, 2], ("a", "b", "c"))
    assert len(capsys.readouterr().err.splitlines()) == 1
    report([0, 1, 2] * 5, [0, 1, 2], [0, 0, 0], ("a", "b", "c"))
    assert capsys.readouterr().err.splitlines()[1:] == ["  classes `b`, `c` are never answered; try this"]


def test_of_many_labels_the_worst_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    truth = list(range(30))
    report([*truth, 0, 0], truth, [0] * 15 + truth[15:], tuple(f"n{i:02}" for i in truth))
    scores, never = capsys.readouterr().err.splitlines()[1:]
    assert "the lowest of 30 recalls: `n01` 0.0%" in scores
    assert never.endswith("and 4 more are never answered; try this")


def test_balanced_weights_make_labels_count_alike() -> None:
    """The mean over the texts of a step, each weighed so that all labels of the training texts count as much."""
    loss = SingleLabel(3).training_loss([0] * 6 + [1] * 2)
    logits, labels = torch.tensor([[2.0, -1.0, 0], [0.3, 0.4, 0], [1.0, 1.0, 0]]), torch.tensor([0, 1, 1])
    weights = torch.tensor([8 / (2 * 6), 8 / (2 * 2), 8 / (2 * 2)])
    single = torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weights
    torch.testing.assert_close(loss({"logits": logits}, labels), single.sum() / 3)
    torch.testing.assert_close(loss({"logits": logits}, labels, num_items_in_batch=torch.tensor(12)), single.sum() / 12)


def test_balanced_weights_let_a_rare_label_be_answered(
    toy_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(text, "rare" if topic == "food" else "usual") for text, topic in make_texts(240)]
    kept = [row for i, row in enumerate(rows) if row[1] == "usual" or i % 12 == 0]
    config = replace(toy_config, dataset=str(write_csv(tmp_path / "a.csv", kept)), run_dir=tmp_path / "equal", epochs=1)
    train(config)
    assert "class `rare` is never answered; `--class-weights balanced` may help" in capsys.readouterr().err
    asked = []

    def spy(task: Task, *, is_balanced: bool) -> Any:
        asked.append(is_balanced)
        return scores_of(task, is_balanced=is_balanced)

    monkeypatch.setattr("trainer.training.train.scores_of", spy)
    result = train(replace(config, class_weights="balanced", run_dir=tmp_path / "balanced", epochs=8))
    assert asked == [True]
    said = capsys.readouterr().err
    assert "never answered" not in said.split("epoch 8/8")[1]
    assert [line.endswith(" left") for line in said.splitlines() if line.startswith("epoch ")] == [True] * 7 + [False]
    assert result is not None
    assert result.training.config.class_weights == "balanced"


def test_a_run_is_resumed_with_the_same_weights() -> None:
    before = TrainConfig(class_weights="balanced")
    check_same(before, replace(before, resume=True), free=())
    with pytest.raises(UserError, match="had `--class-weights balanced`, not `--class-weights equal`"):
        check_same(before, TrainConfig(resume=True), free=())
