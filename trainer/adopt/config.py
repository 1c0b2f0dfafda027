"""AdoptConfig: the only home of the defaults of adoption, and its flags, here and in the exporter."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from trainer.config import TaskName, TrainConfig, Truncation
from trainer.errors import UserError
from trainer.flags import Range, add_column_flags, check_numbers, check_text_column, flag_of, take_defaults


@dataclass(frozen=True)
class AdoptConfig:
    """What was asked of an adoption, as `python -m trainer.adopt --help` explains; misuse is a UserError."""

    adapter: Path
    model: str | None = None
    dataset: str | None = None
    eval_dataset: str | None = None
    task: TaskName | None = None
    """None for what the configuration beside the weights says."""
    text_column: tuple[str, ...] | None = None
    label_column: tuple[str, ...] | None = None
    label_separator: str | None = None
    label_names: tuple[str, ...] | None = None
    encoding: str = "utf-8"
    no_header: bool = False
    max_eval_samples: int = 0
    max_length: int | None = None
    truncation: Truncation = "head"
    run_dir: Path = TrainConfig.run_dir

    def __post_init__(self) -> None:
        check_numbers(self, {"max_eval_samples": Range(0), "max_length": Range(4)})
        check_text_column(self.text_column)
        if self.dataset is None:
            raise UserError(
                "an adapter from elsewhere needs texts to be checked on",
                "add `--dataset` with labelled texts that it was not trained on",
            )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of adoption to another command's parser, which has `--run-dir` already, with their defaults."""
    group = parser.add_argument_group("an adapter from elsewhere, as in `python -m trainer.adopt`")
    group.add_argument("--adapter", type=Path, metavar="FOLDER", help="peft adapter or merged checkpoint to export")
    add_data_flags(group)
    take_defaults(parser, AdoptConfig)


def add_data_flags(group: argparse._ActionsContainer) -> None:
    """Add the flags that say what an adapter was trained from and which texts it is checked on."""
    add = group.add_argument
    add("--model", help="its base model, if not the one that the adapter names")
    add("--dataset", help="labelled texts it was not trained on: a file, a saved dataset, or a Hub id")
    add("--eval-dataset", help="the same; then --dataset may be its training texts")
    add("--task", choices=get_args(TaskName), help="whether a text has one label, or any number of them (by default "
        "what its configuration says)")  # fmt: skip
    add_column_flags(add, "names of its labels, in its own order")
    add("--max-eval-samples", type=int, help="maximum number of evaluation texts; 0 for all")
    add("--max-length", type=int, help="maximum number of tokens in a text (by default the model's, up to 512)")
    add("--truncation", choices=get_args(Truncation), help="which tokens of a longer text are kept")


def take_config(values: dict[str, Any]) -> AdoptConfig | None:
    """Take the values of `add_flags` out of a command's parsed values, which keep `run_dir`.

    Returns:
        The configuration, None where `--adapter` was not given.

    Raises:
        UserError: another of these flags was given without `--adapter`, or the values cannot be used.
    """
    run_dir = values["run_dir"]
    defaults = {field.name: field.default for field in fields(AdoptConfig) if field.name != "run_dir"}
    asked = {name: values.pop(name) for name in defaults}
    if asked["adapter"] is not None:
        return AdoptConfig(**asked, run_dir=run_dir)
    for name, value in asked.items():
        if name != "adapter" and value != defaults[name]:
            raise UserError(f"`{flag_of(name)}` needs `--adapter`", f"add `--adapter`, or leave out `{flag_of(name)}`")
    return None
