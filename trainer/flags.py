"""How the fields of a configuration become flags, and flags a configuration."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path
from typing import Any, TypeVar

from trainer.errors import UserError

C = TypeVar("C")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells a default where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def take_defaults(parser: argparse.ArgumentParser, config: type[Any]) -> argparse.ArgumentParser:
    """Give `parser` the defaults of a configuration class, their only home."""
    parser.set_defaults(**{field.name: field.default for field in dataclasses.fields(config)})
    return parser


def parse(parser: argparse.ArgumentParser, config: type[C]) -> C:
    """Read the command line into a configuration; a flag without a field fails at once."""
    values = vars(parser.parse_args()).items()
    return config(**{name: tuple(value) if isinstance(value, list) else value for name, value in values})


def flag_of(field: str) -> str:
    """Return the flag that fills a field."""
    return "--" + field.replace("_", "-")


def typed(field: str, value: object) -> str:
    """Return how a person gives a field its value, for a message."""
    flag = flag_of(field)
    if value is None or value == () or value is False:
        return f"no `{flag}`"
    words = [] if value is True else value if isinstance(value, tuple) else [value]
    return f"`{' '.join([flag, *(shlex.quote(str(word)) for word in words)])}`"


def check_at_least(config: object, least: dict[str, int]) -> None:
    """Refuse fields of `config` that are below their least value.

    Raises:
        UserError: one of them is.
    """
    for field, bound in least.items():
        value = getattr(config, field)
        if value is not None and not value >= bound:
            raise out_of_range(field, value, f"at least {bound}")


def out_of_range(field: str, value: object, allowed: str) -> UserError:
    """Return the error for a field whose value is not `allowed`."""
    return UserError(f"`{flag_of(field)} {value}` is out of range", f"give `{flag_of(field)}` a value {allowed}")


def run_dir_flag(run_dir: Path, default: Path) -> str:
    """Return what a printed command has to add to mean `run_dir`, quoted for a shell."""
    return "" if run_dir == default else f" --run-dir {shlex.quote(str(run_dir))}"
