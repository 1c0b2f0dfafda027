"""Records: frozen dataclasses that stand on disk as JSON, written whole or not at all.

A record is the last thing a stage writes, so that it exists means that the stage finished. Records age: a field that is
added has a default, an older file is brought up to date by small named functions, and a newer one is refused. What is
cut short or changed by hand is never half believed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from trainer.errors import UserError
from trainer.limits import MAX_JSON_BYTES, open_regular, read_regular

Values = dict[str, Any]
"""Parsed JSON of a record or of a part of one."""
Upgrade = Callable[[Values], Values]
"""Turns the values of one schema into those of the next; a missing field that has a default may stay missing."""


class Record(Protocol):
    """What a dataclass states about itself to be written and read as a record."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    SCHEMA: ClassVar[int]
    """Raised whenever a field is added, removed, or changes its name, type or meaning; a test holds it to that."""
    UPGRADES: ClassVar[Mapping[int, Upgrade]]
    """By the schema that each one reads. Schemas without one differ from the next by fields with defaults alone."""
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
    """Read a record of class `kind` of this or any earlier schema, checking its kind and the type of every field.

    Raises:
        UserError: the file is absent, unreadable, damaged, or from a newer version.
    """
    again = f"run `{kind.MADE_BY}` again"
    try:
        values = json.loads(read_regular(path, MAX_JSON_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"no `{path.name}` in `{path.parent}`", f"run `{kind.MADE_BY}` first") from None
    except OSError as error:
        raise UserError(f"cannot read `{path}`: {error.strerror}", again) from None
    except (ValueError, RecursionError):
        raise UserError(f"`{path}` is cut short or not JSON", again) from None
    if not isinstance(values, dict) or values.pop("kind", None) != kind.__name__:
        raise UserError(f"`{path}` is not a {kind.__name__}", again)
    schema = values.pop("schema", None)
    if type(schema) is not int or schema < 1:
        raise UserError(f"`{path}` is damaged: `schema` holds {json.dumps(schema)[:60]}", again)
    if schema > kind.SCHEMA:
        raise UserError(
            f"`{path}` has schema {schema}, and this version of lora2onnx reads up to {kind.SCHEMA}", "update lora2onnx"
        )
    try:
        return typing.cast(R, _decode(kind, _upgraded(values, schema, kind), ""))
    except (_MismatchError, RecursionError) as error:
        raise UserError(f"`{path}` is damaged: {error}", again) from None


def _upgraded(values: Values, schema: int, kind: type[R]) -> Values:
    """Bring the values of an older schema up to date."""
    for old in range(schema, kind.SCHEMA):
        upgrade = kind.UPGRADES.get(old)
        try:
            values = upgrade(values) if upgrade else values
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise _MismatchError(f"it is not of schema {schema}: {type(error).__name__} {error}") from None
    return values


def renamed(values: Any, names: Mapping[str, str]) -> Any:
    """Return parsed JSON with every key that is in `names` called otherwise, at any depth."""
    if isinstance(values, dict):
        return {names.get(key, key): renamed(value, names) for key, value in values.items()}
    return [renamed(value, names) for value in values] if isinstance(values, list) else values


def without(values: Values, *names: str) -> Values:
    """Return the values but for those fields, which a later schema does not have."""
    return {key: value for key, value in values.items() if key not in names}


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 so that a reader finds the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")  # one that a kill left is replaced by the next
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes, in hexadecimal."""
    with open_regular(path) as file:
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
    """Turn parsed JSON into the type that `hint` describes; `where` is the dotted path of the value, for the error."""
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
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # not NaN, nor 10**400
        return float(value)
    if hint is not float and isinstance(hint, type) and type(value) is hint:
        return value
    raise _MismatchError(f"`{where}` holds {json.dumps(value)[:60]}")


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    """Make a dataclass without its own checks: a record says what was asked for then, by the rules of then."""
    if not isinstance(value, dict):
        raise _MismatchError(f"`{where}` is not an object")
    hints, fields = typing.get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    made: Any = object.__new__(kind)
    for name, field in fields.items():
        if name in value:
            item = _decode(hints[name], value[name], f"{where}.{name}".lstrip("."))
        elif field.default is not dataclasses.MISSING:
            item = field.default
        elif field.default_factory is not dataclasses.MISSING:
            item = field.default_factory()
        else:
            raise _MismatchError(f"field `{f'{where}.{name}'.lstrip('.')}` is missing")
        object.__setattr__(made, name, item)
    if unknown := sorted(value.keys() - fields.keys()):
        raise _MismatchError(f"field `{f'{where}.{unknown[0]}'.lstrip('.')}` is unknown")
    return made
