"""Limits on what is read from files that strangers made, and the door through which such files are opened."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_CHECKSUMS_BYTES = 2**20
"""Of a `SHA256SUMS`: thousands of files."""
MAX_JSON_BYTES = 2**28
"""Of a record, a configuration or a tokenizer; the largest tokenizers in use take some 40 MB."""
MAX_BUNDLE_BYTES = 2**35
"""Of all files in a bundle together, and of any one file."""
MAX_TOKENS = 2**17
"""In one text, whatever a manifest says."""
MAX_TEXT_CHARACTERS = 2**28
"""In one text, field or line of a file of texts, which may be packed a thousand times smaller."""
MAX_LABELS = 2**17
MAX_LABEL_CHARACTERS = 1000
MAX_GOLDEN_TEXTS = 1000
MAX_GOLDEN_CHARACTERS = 2**20
"""Of all golden texts together."""
MAX_GROWTH = 1000
"""How many times longer a tokenizer's replacements may make a text, one after the other; most make it shorter."""
MAX_WORD_CHARACTERS = 500
"""That WordPiece may look for pieces in: its time grows with their cube. Those in use have 100."""
MAX_ONNX_FIELDS = 2_000_000
"""That are looked at in an ONNX file: some seconds. A model in use has some ten thousand."""
MAX_ONNX_DEPTH = 100
"""Of nested messages, as in the protobuf library."""
ADAPTER_SECONDS = 30.0
"""For peft to make an adapter, whose settings can be regular expressions; a usual one takes a second."""
MODEL_SECONDS = 30.0
"""For transformers to make the layers of a model, without their weights: a second or two."""
NEW_WEIGHTS = 2**24
"""That a model may have beside twice those of its checkpoint."""
ENCODING_SECONDS = 60.0
"""For a few hundred thousand characters, if the tokenizer has regular expressions of its own."""


def open_regular(path: Path, limit: int = MAX_BUNDLE_BYTES) -> BufferedReader:
    """Open a file to read it; never wait for a pipe, and never read a device.

    Raises:
        OSError: it cannot be opened, is not a regular file, or has more than `limit` bytes.
    """
    _check_regular(os.stat(path), path, limit)  # noqa: PTH116  opening a device may already do something
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        _check_regular(os.fstat(descriptor), path, limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """Read a whole file; see `open_regular`."""
    with open_regular(path, limit) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1)
    if len(content) != size:  # or its size is not known, as in /proc
        raise OSError(errno.EIO, "it changes while it is read", str(path))
    return content


def _check_regular(status: os.stat_result, path: Path, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, _too_large(limit), str(path))


def _too_large(limit: int) -> str:
    return f"it has more than {limit:,} bytes"
