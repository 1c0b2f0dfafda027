"""From the fields of a configuration to flags, and from flags to a configuration."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path
from typing import Any, TypeVar

from trainer.errors import UserError

C = TypeVar("C")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one, and numbers as N and X."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        named = "N" if action.type is int else "X" if action.type is float else None
        return named or super()._get_default_metavar_for_optional(action)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        return action.help if default is None or default is False or default == () else super()._get_help_string(action)


def take_defaults(parser: argparse.ArgumentParser, config: type[Any]) -> argparse.ArgumentParser:
    """Give `parser` the defaults of a configuration class, their only home."""
    fields = dataclasses.fields(config)
    parser.set_defaults(**{f.name: f.default for f in fields if f.default is not dataclasses.MISSING})
    return parser


def parse(parser: argparse.ArgumentParser, config: type[C]) -> C:
    """Read the command line into a configuration; a flag without a field fails at once."""
    return config(**parse_values(parser))


def parse_values(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Read the command line into values by field."""
    values = vars(parser.parse_args()).items()
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values}


def flag_of(field: str) -> str:
    """Return the flag that fills a field."""
    return "--" + field.replace("_", "-")


def as_typed(field: str, value: object) -> str:
    """Return how a person types a field's value on the command line, for a message."""
    flag = flag_of(field)
    if value is None or value == () or value is False:
        return f"no `{flag}`"
    words = [] if value is True else value if isinstance(value, tuple) else [value]
    return f"`{' '.join([flag, *(shlex.quote(str(word)) for word in words)])}`"


def check_at_least(config: object, minimums: dict[str, int]) -> None:
    """Raise a UserError where a field of `config` is below its minimum."""
    for field, minimum in minimums.items():
        value = getattr(config, field)
        if value is not None and not value >= minimum:
            raise out_of_range(field, value, f"at least {minimum}")


def out_of_range(field: str, value: object, allowed: str) -> UserError:
    """Return the error for a field whose value is not `allowed`."""
    return UserError(f"`{flag_of(field)} {value}` is out of range", f"give `{flag_of(field)}` a value {allowed}")


def run_dir_flag(run_dir: Path, default: Path) -> str:
    """Return the flag that a printed command needs for `run_dir`, quoted for a shell; empty for the default."""
    return "" if run_dir == default else f" --run-dir {shlex.quote(str(run_dir))}"
