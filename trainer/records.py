"""Records: frozen dataclasses that stand on disk as JSON, written whole or not at all.

A record is the last thing a stage writes, so that it exists means that the stage finished. Reading is strict: a
file that is cut short, from another version, or changed by hand is refused, never half believed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import types
import typing
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from trainer.errors import UserError


class Record(Protocol):
    """What a dataclass states about itself to be written and read as a record."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    SCHEMA: ClassVar[int]
    """Raised whenever a field changes its name, type or meaning."""
    MADE_BY: ClassVar[str]
    """The command that writes it, for hints."""


R = TypeVar("R", bound=Record)


def write_record(path: Path, record: Record) -> None:
    """Write `record` to `path` as JSON by atomic replace.

    Raises:
        ValueError: a number in the record is NaN or infinite, which JSON cannot hold.
    """
    envelope = {"kind": type(record).__name__, "schema": record.SCHEMA, **dataclasses.asdict(record)}
    write_text(path, json.dumps(envelope, indent=2, ensure_ascii=False, allow_nan=False, default=_encode) + "\n")


def read_record(path: Path, kind: type[R]) -> R:
    """Read a record of class `kind`, checking its kind, its schema and the type of every field.

    Raises:
        UserError: the file is absent, unreadable, damaged, or from another version.
    """
    again = f"run `{kind.MADE_BY}` again"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no `{path.name}` in `{path.parent}`", f"run `{kind.MADE_BY}` first") from None
    except OSError as error:
        raise UserError(f"cannot read `{path}`: {error.strerror}", again) from None
    except ValueError:
        raise UserError(f"`{path}` is cut short or not JSON", again) from None
    if not isinstance(values, dict) or values.pop("kind", None) != kind.__name__:
        raise UserError(f"`{path}` is not a {kind.__name__}", again)
    if (schema := values.pop("schema", None)) != kind.SCHEMA:
        raise UserError(f"`{path}` has schema {schema}, this version reads {kind.SCHEMA}", again)
    try:
        return typing.cast(R, _decode(kind, values, ""))
    except _MismatchError as error:
        raise UserError(f"`{path}` is damaged: {error}", again) from None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 so that a reader finds the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a record cannot hold {type(value).__name__}")


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of those of `packages` that are installed."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


class _MismatchError(Exception):
    """A value is not of the type that its field declares."""


def _decode(hint: Any, value: Any, where: str) -> Any:
    """Turn parsed JSON into the type that `hint` describes.

    Handles what records are made of: dataclasses, `tuple[X, ...]`, `dict[str, X]`, `X | None`, `Literal`, paths and
    plain values. `where` is the dotted path of the value, for the error.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        chosen = [a for a in arguments if (a is type(None)) == (value is None)]
        if len(chosen) == 1:
            return None if value is None else _decode(chosen[0], value, where)
    if origin is typing.Literal and value in arguments:
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise _MismatchError(f"`{where}` holds {json.dumps(value)[:60]}")


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _MismatchError(f"`{where}` is not an object")
    hints = {field.name: typing.get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}
    if odd := sorted(hints.keys() ^ value.keys()):
        raise _MismatchError(f"field `{f'{where}.{odd[0]}'.lstrip('.')}` is missing or unknown")
    return kind(**{name: _decode(hint, value[name], f"{where}.{name}".lstrip(".")) for name, hint in hints.items()})
