"""Every flag fills a field of its configuration, every field has a flag, and defaults live in the fields alone."""

from __future__ import annotations

import argparse
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import bench.__main__
import exporter.__main__
import trainer.__main__
import trainer.adopt.__main__
import trainer.pretrain.__main__
from bench.config import BenchConfig
from exporter.config import ExportConfig
from trainer.adopt.config import AdoptConfig, take_config
from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.flags import as_typed
from trainer.pretrain.config import PretrainConfig

COMMANDS = [
    (trainer.__main__.make_parser(), TrainConfig),
    (trainer.pretrain.__main__.make_parser(), PretrainConfig),
    (bench.__main__.make_parser(), BenchConfig),
]


def flags(parser: argparse.ArgumentParser) -> set[str]:
    """The names under which the help lists the flags first."""
    return {action.option_strings[0] for action in parser._actions if action.option_strings} - {"-h"}


def fields_as_flags(config: Any) -> set[str]:
    return {"--" + field.name.replace("_", "-") for field in fields(config)}


@pytest.mark.parametrize(("parser", "config"), COMMANDS)
def test_no_flags_give_the_default_configuration(parser: argparse.ArgumentParser, config: Any) -> None:
    needed = {"text": (Path("texts.txt"),)} if config is PretrainConfig else {}
    assert config(**vars(parser.parse_args([])) | needed) == config(**needed)


@pytest.mark.parametrize(("parser", "config"), COMMANDS)
def test_flags_and_fields_agree(parser: argparse.ArgumentParser, config: Any) -> None:
    assert flags(parser) == fields_as_flags(config)


def test_the_exporter_has_its_own_flags_and_those_of_adoption() -> None:
    parser = exporter.__main__.make_parser()
    assert flags(parser) == fields_as_flags(ExportConfig) | fields_as_flags(AdoptConfig)
    values = vars(parser.parse_args([]))
    assert take_config(values) is None
    assert ExportConfig(**values) == ExportConfig()


def test_several_files_are_one_value() -> None:
    parser = trainer.__main__.make_parser()
    assert parser.parse_args(["--dataset", "a b.csv"]).dataset == "a b.csv"
    assert parser.parse_args(["--dataset", "a b.csv", "c.csv"]).dataset == "'a b.csv' c.csv"


def test_adoption_is_asked_for_alike_in_both_commands() -> None:
    parser = trainer.adopt.__main__.make_parser()
    assert flags(parser) == fields_as_flags(AdoptConfig) - {"--adapter"}  # there it is the argument FOLDER
    rest = ["--dataset", "x.csv", "--run-dir", "runs/x"]
    adopted = AdoptConfig(**vars(parser.parse_args(["folder", *rest])))
    values = vars(exporter.__main__.make_parser().parse_args(["--adapter", "folder", *rest]))
    assert adopted == take_config(values) == AdoptConfig(Path("folder"), dataset="x.csv", run_dir=Path("runs/x"))
    assert ExportConfig(**values) == ExportConfig(run_dir=Path("runs/x"))


@pytest.mark.parametrize("values", [{"dataset": None}, {"max_length": 3}, {"max_eval_samples": -1}])
def test_adoption_values_that_cannot_be_used_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        AdoptConfig(**{"adapter": Path("folder"), "dataset": "x.csv"} | values)


def test_the_run_directory_is_the_same_in_all_commands() -> None:
    assert TrainConfig.run_dir == AdoptConfig.run_dir == ExportConfig().run_dir == BenchConfig().run_dir


def test_the_defaults_are_the_reference_training() -> None:
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
    assert as_typed("text", value) == expected


NEEDED: dict[type, dict[str, Any]] = {
    AdoptConfig: {"adapter": Path("folder"), "dataset": "x.csv"},
    ExportConfig: {"quantize": "auto"},
    PretrainConfig: {"text": (Path("texts.txt"),)},
}
NUMBERS = [
    (config, field.name, kind)
    for config in (TrainConfig, PretrainConfig, AdoptConfig, ExportConfig, BenchConfig)
    for field in fields(config)
    if (kind := str(field.type).removesuffix(" | None")) in ("int", "float", "tuple[int, ...]")
]


@pytest.mark.parametrize(("config", "name", "kind"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_number_refuses_what_nothing_can_take(config: Any, name: str, kind: str) -> None:
    huge = 10**400
    cases = {"int": (-1, huge), "float": (-1.0, -math.inf, math.inf, math.nan), "tuple[int, ...]": ((1, -1), (1, huge))}
    for value in cases[kind]:
        with pytest.raises(UserError, match=f"`--{name.replace('_', '-')} .* is out of range"):
            config(**NEEDED.get(config, {}) | {name: value})


@pytest.mark.parametrize("config", [TrainConfig, PretrainConfig, BenchConfig])
def test_a_seed_is_what_numpy_takes(config: Any) -> None:
    config(**NEEDED.get(config, {}), seed=2**32 - 1)
    with pytest.raises(UserError, match="`--seed 4294967296` is out of range") as error:
        config(**NEEDED.get(config, {}), seed=2**32)
    assert error.value.hint == "give `--seed` a value of at least 0 and at most 4294967295"


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
        {"text_column": ("x",)},
        {"encoding": "utf-16"},
        {"any_machine": True},
    ],
)
def test_benchmark_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        BenchConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"max_drop": 1.0},
        {"accept_undecided": True},
        {"require_int8": True},
        {"target": "portable"},
        {"no_cascade": True},
        {"stack": True},
    ],
)
def test_flags_about_int8_go_with_quantize(values: dict[str, Any]) -> None:
    ExportConfig(quantize="auto", **values)
    with pytest.raises(UserError, match="needs `--quantize`"):
        ExportConfig(**values)


@pytest.mark.parametrize("values", [{"max_drop": 0.0}, {"max_drop": float("nan")}, {"budget_minutes": -1}])
def test_export_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is out of range"):
        ExportConfig(quantize="auto", **values)


def test_stages_that_are_not_tried_are_not_stacked() -> None:
    with pytest.raises(UserError, match="`--no-cascade` leaves it out"):
        ExportConfig(quantize="auto", stack=True, no_cascade=True)


def test_int8_is_not_for_gpus() -> None:
    with pytest.raises(UserError, match="int8 is for CPUs"):
        ExportConfig(quantize="auto", target="cuda")


def test_exporting_without_texts_is_refused() -> None:
    with pytest.raises(UserError):
        ExportConfig(verify_samples=0)
