"""The classifier's file: safetensors, written and read without its library, which a deployed classifier lacks.

The format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from trainer.errors import UserError
from trainer.lexical.model import MOST_BITS, MOST_BYTES, Lexical
from trainer.limits import read_regular

NAMES = {"weights": ("F16", np.float16), "bias": ("F32", np.float32)}
MOST_HEADER = 4096
MOST_BIAS = 1e4


def to_bytes(lexical: Lexical) -> bytes:
    """Return the file of a classifier."""
    header, start = {}, 0
    arrays = {name: np.ascontiguousarray(getattr(lexical, name), kind) for name, (_, kind) in NAMES.items()}
    for name, array in arrays.items():
        offsets = [start, start := start + array.nbytes]
        header[name] = {"dtype": NAMES[name][0], "shape": [*array.shape], "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values())


def read_lexical(path: Path, classes: int) -> Lexical:
    """Read the classifier in a file, of so many classes.

    Raises:
        UserError: there is none, it is damaged, or it is for another number of classes.
    """
    try:
        lexical = _parse(read_regular(path, MOST_BYTES + 4 * classes + MOST_HEADER + 8))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"`{path}` cannot be read: {error}", "copy or make the folder again") from None
    if problem := _problem(lexical, 1 if classes == 2 else classes):
        raise UserError(f"`{path}` is damaged: {problem}", "copy or make the folder again")
    return lexical


def _parse(content: bytes) -> Lexical:
    size = int.from_bytes(content[:8], "little")
    if not 2 <= size <= min(MOST_HEADER, len(content) - 8):
        raise ValueError("it does not begin as a safetensors file does")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    found = {}
    for name, (dtype, kind) in NAMES.items():
        start, end = header[name]["data_offsets"]
        if header[name]["dtype"] != dtype or not 0 <= start <= end <= len(data):
            raise ValueError(f"`{name}` is not {dtype}, or not in the file")
        found[name] = np.frombuffer(data[start:end], kind).reshape(header[name]["shape"])
    return Lexical(**found)


def _problem(lexical: Lexical, columns: int) -> str | None:
    shape = lexical.weights.shape
    if len(shape) != 2 or shape[1] != columns or lexical.bias.shape != (columns,):
        return "it is for another number of classes"
    if not 1 <= lexical.bits <= MOST_BITS or shape[0] != 1 << lexical.bits:
        return "its number of buckets is no power of two, or too large"
    if not (np.isfinite(lexical.weights).all() and (np.abs(lexical.bias) <= MOST_BIAS).all()):
        return "a weight is not a finite number, or a bias too large"
    return None
