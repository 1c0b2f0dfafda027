"""A folder's checksums in the format of `sha256sum`, so that they can be checked without this project, too."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.errors import UserError
from trainer.records import file_sha256, write_text

CHECKSUMS = "SHA256SUMS"

LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class IntegrityError(UserError):
    """Something is not what it says it is: never to be passed over in silence."""


def write_checksums(folder: Path) -> None:
    """Hash every file in `folder` into its `SHA256SUMS`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = (f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    write_text(folder / CHECKSUMS, "".join(lines))


def check_checksums(folder: Path) -> set[str]:
    """Check the files in `folder` against its `SHA256SUMS`. Files that it does not list are not read by anybody.

    Returns:
        The names that it lists.

    Raises:
        IntegrityError: a file is missing or was changed, the list itself was changed, or it points outside its folder.
    """
    path = folder / CHECKSUMS
    damaged = IntegrityError(f"`{path}` is missing or damaged", "copy or export the artifact again")
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise damaged from None
    *lines, rest = text.split("\n")
    if rest or not lines:
        raise damaged
    names = set()
    for line in lines:
        match = LINE.fullmatch(line)
        if not match:
            raise damaged
        recorded, name = match.groups()
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise IntegrityError(f"`{path}` points outside its folder: `{name}`", "do not trust this folder")
        if not file.is_file() or file_sha256(file) != recorded:
            raise IntegrityError(
                f"`{file}` is missing or was changed after the export", "copy or export the artifact again"
            )
        names.add(name)
    return names
