"""A folder's checksums in the format of `sha256sum`, so that they can be checked without this project, too."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from trainer.errors import UserError
from trainer.limits import MAX_BUNDLE_BYTES, MAX_CHECKSUMS_BYTES, open_regular, read_regular
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


def check_checksums(folder: Path, require_sha256: str | None = None) -> set[str]:
    """Check the files in `folder` against its `SHA256SUMS`. Files that it does not list are not read by anybody.

    Args:
        folder: the folder.
        require_sha256: the checksum that `SHA256SUMS` itself must have, where it is known: it stands for all files.

    Returns:
        The names that it lists.

    Raises:
        IntegrityError: a file is missing or was changed, the list itself was changed or is not the required one, or it
            points outside its folder.
    """
    path = folder / CHECKSUMS
    content = _read_checksums(path)
    found = hashlib.sha256(content).hexdigest()
    if require_sha256 is not None and found != require_sha256.strip().lower():
        raise IntegrityError(f"`{path}` is not the required one: its SHA-256 is {found}", "do not trust this folder")
    listed = {}
    for line in content.decode("utf-8").split("\n")[:-1]:
        if not (match := LINE.fullmatch(line)) or match[2] in listed:
            raise _damaged(path, f"the line `{line[:100]}`")
        listed[match[2]] = match[1]
    left = MAX_BUNDLE_BYTES
    for name, recorded in listed.items():
        left -= _check_file(folder, name, recorded, left)
    return set(listed)


def manifest_sha256(folder: Path) -> str:
    """Return the checksum of a folder's `SHA256SUMS`, which stands for all files that it lists."""
    return hashlib.sha256(_read_checksums(folder / CHECKSUMS)).hexdigest()


def _read_checksums(path: Path) -> bytes:
    try:
        content = read_regular(path, MAX_CHECKSUMS_BYTES)
        content.decode("utf-8")
    except OSError as error:
        raise _damaged(path, error.strerror) from None
    except UnicodeDecodeError:
        raise _damaged(path, "it is not UTF-8") from None
    if not content.endswith(b"\n"):
        raise _damaged(path, "it is cut short")
    return content


def _damaged(path: Path, reason: str | None) -> IntegrityError:
    return IntegrityError(f"`{path}` is missing or damaged: {reason}", "copy or export the artifact again")


def _check_file(folder: Path, name: str, recorded: str, limit: int) -> int:
    """Check one file, and return its size."""
    file = folder / name
    try:
        is_plain = str(Path(name)) == name and not Path(name).is_absolute()
        if not is_plain or file.resolve() != folder.resolve() / name:
            raise IntegrityError(
                f"`{folder / CHECKSUMS}` points outside its folder, or to a link: `{name}`", "do not trust this folder"
            )
        with open_regular(file, limit) as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
            size = content.tell()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, with a NUL byte, or a loop of links
        found, size = "", 0
    if found != recorded:
        raise IntegrityError(
            f"`{file}` is missing or was changed after the export", "copy or export the artifact again"
        )
    return size
