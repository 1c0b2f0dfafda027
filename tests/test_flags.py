"""Every flag fills a field of its configuration, every field has a flag, and defaults live in the fields alone."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import bench.__main__
import exporter.__main__
import trainer.__main__
import trainer.pretrain.__main__
from bench.config import BenchConfig
from exporter.config import ExportConfig
from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.flags import typed
from trainer.pretrain.config import PretrainConfig

COMMANDS = [
    (trainer.__main__.make_parser(), TrainConfig),
    (trainer.pretrain.__main__.make_parser(), PretrainConfig),
    (exporter.__main__.make_parser(), ExportConfig),
    (bench.__main__.make_parser(), BenchConfig),
]


@pytest.mark.parametrize(("parser", "config"), COMMANDS)
def test_no_flags_give_the_default_configuration(parser: argparse.ArgumentParser, config: Any) -> None:
    needed = {"text": (Path("reviews.txt"),)} if config is PretrainConfig else {}
    assert config(**vars(parser.parse_args([])) | needed) == config(**needed)


@pytest.mark.parametrize(("parser", "config"), COMMANDS)
def test_flags_and_fields_agree(parser: argparse.ArgumentParser, config: Any) -> None:
    flags = {action.option_strings[0] for action in parser._actions} - {"-h"}
    assert flags == {"--" + field.name.replace("_", "-") for field in fields(config)}


def test_the_run_directory_is_the_same_in_all_commands() -> None:
    assert TrainConfig().run_dir == ExportConfig().run_dir == BenchConfig().run_dir


def test_the_recipe_is_the_reference_recipe() -> None:
    config = TrainConfig()
    assert (config.epochs, config.batch_size, config.lora_r, config.max_train_samples) == (3, 16, 8, 10_000)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (64, "`--text 64`"),
        (("a.txt", "my reviews.csv"), "`--text a.txt 'my reviews.csv'`"),
        (Path("a.txt"), "`--text a.txt`"),
        (True, "`--text`"),
        (False, "no `--text`"),
        (None, "no `--text`"),
        ((), "no `--text`"),
        (0, "`--text 0`"),
    ],
)
def test_a_message_writes_a_value_as_a_person_types_it(value: object, expected: str) -> None:
    assert typed("text", value) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"warmup_ratio": 1.0},
        {"lora_dropout": -0.1},
        {"max_length": 3},
        {"resume": True, "overwrite": True},
    ],
)
def test_training_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"calls": 1},
        {"grid_batches": (1, 0)},
        {"threads": 0},
        {"restarts": 0},
        {"restarts": 7},
        {"max_p95_ms": 0.0},
        {"text_column": "x"},
        {"any_machine": True},
    ],
)
def test_benchmark_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        BenchConfig(**values)


@pytest.mark.parametrize(
    "values",
    [{"max_drop": 1.0}, {"accept_undecided": True}, {"require_int8": True}, {"target": "portable"}],
)
def test_flags_about_int8_go_with_quantize(values: dict[str, Any]) -> None:
    ExportConfig(quantize="auto", **values)
    with pytest.raises(UserError, match="is about int8"):
        ExportConfig(**values)


@pytest.mark.parametrize("values", [{"max_drop": 0.0}, {"max_drop": float("nan")}, {"budget_minutes": -1}])
def test_export_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is out of range"):
        ExportConfig(quantize="auto", **values)


def test_exporting_without_texts_is_refused() -> None:
    with pytest.raises(UserError):
        ExportConfig(verify_samples=0)
