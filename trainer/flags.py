"""From the fields of a configuration to flags, and from flags to a configuration."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from trainer.errors import UserError

C = TypeVar("C")

MAX_INT = 2**31 - 1
"""The largest number that every library below takes as a count."""


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


class JoinNames(argparse.Action):
    """Takes one or several names as one value, which stand in it as on a command line."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:  # noqa: ARG002
        """Set the value."""
        setattr(namespace, self.dest, values[0] if len(values) == 1 else shlex.join(values))


def add_column_flags(add: Callable[..., object], label_names: str) -> None:
    """Add the flags that say how labelled texts are read; `label_names` is the help text of the flag for them."""
    add_text_column_flag(add)
    add("--label-column", nargs="+", metavar="NAME", help="column with the labels (by default the first with a usual "
        "name); for `multi-label` it has lists of them, or there are several, of 0 and 1")  # fmt: skip
    add("--label-separator", metavar="X", help="what separates the labels of a text, such as `;` (by default found)")
    add("--label-names", nargs="+", metavar="NAME", help=label_names)
    add_reading_flags(add)


def add_text_column_flag(add: Callable[..., object]) -> None:
    """Add the flag that names the column of the texts, or the two of pairs."""
    add("--text-column", nargs="+", metavar="NAME", help="column with the texts (by default the first with a usual "
        "name), or the two with pairs of texts")  # fmt: skip


def check_text_column(names: tuple[str, ...] | None) -> None:
    """Raise a UserError for names that are neither one column of texts nor two of pairs."""
    if names and len(names) > 2:
        raise UserError(f"`--text-column` names {len(names)} columns", "name one with texts, or two with pairs")
    if names and len(set(names)) < len(names):
        raise UserError(f"`--text-column` names `{names[0]}` twice", "name another column for the second texts")


def add_reading_flags(add: Callable[..., object]) -> None:
    """Add the flags that say how text files are read."""
    add("--encoding", metavar="NAME", help="encoding of text files, such as utf-16 or windows-1252")
    add("--no-header", action="store_true", help="CSV and TSV files begin with data; columns are called 1, 2, …")


class Range(NamedTuple):
    """The values that a number may have."""

    low: float
    high: float = MAX_INT
    excludes: Literal["", "low", "high", "both"] = ""
    """The ends that do not belong to it."""

    def __contains__(self, value: Any) -> bool:
        """Return whether a number, or each of a tuple, is in the range; NaN is in none."""
        if isinstance(value, tuple):
            return all(item in self for item in value)
        is_above = value > self.low if self.excludes in ("low", "both") else value >= self.low
        is_below = value < self.high if self.excludes in ("high", "both") else value <= self.high
        return bool(is_above and is_below)

    def __str__(self) -> str:
        low = "above" if self.excludes in ("low", "both") else "of at least"
        high = "below" if self.excludes in ("high", "both") else "at most"
        return f"{low} {self.low} and {high} {self.high}"


SEED = Range(0, 2**32 - 1)
"""What numpy takes."""
LEARNING_RATE = Range(0, 1e37, "low")
"""AdamW's first step is ten times as long, and has to be a number in single precision."""
WEIGHT_DECAY = Range(0, 1000)
SHARE = Range(0, 1, "high")


def check_numbers(config: object, ranges: Mapping[str, Range]) -> None:
    """Raise a UserError where a field of `config` has a value outside of its range; None is no value."""
    for field, allowed in ranges.items():
        value = getattr(config, field)
        if value is not None and value not in allowed:
            raise out_of_range(field, value, str(allowed))


def out_of_range(field: str, value: object, allowed: str) -> UserError:
    """Return the error for a field whose value is not `allowed`."""
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return UserError(f"`{flag_of(field)} {shown}` is out of range", f"give `{flag_of(field)}` a value {allowed}")


def run_dir_flag(run_dir: Path, default: Path) -> str:
    """Return the flag that a printed command needs for `run_dir`, quoted for a shell; empty for the default."""
    return "" if run_dir == default else f" --run-dir {shlex.quote(str(run_dir))}"
