"""What is in an ONNX file, seen before any runtime opens it.

A tensor can name another file that holds its values, any file of the machine, which no checksum covers. A deployed
classifier has no `onnx` package, so the protobuf wire format is read here: far enough to find every tensor.
Sources: the encoding at protobuf.dev/programming-guides/encoding, the field numbers in `onnx/onnx.proto3`.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from exporter.checksums import IntegrityError
from trainer.errors import UserError
from trainer.limits import MAX_ONNX_DEPTH, MAX_ONNX_FIELDS, open_regular

MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Training": {1: "Graph", 2: "Graph"},
    "Tensor": {},
}
"""By the number of the field: the messages in which tensors can be."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of a tensor: where its values are in another file, and whether they are."""

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5


class _MalformedError(Exception):
    """The file is not what the protobuf library writes."""


def check_onnx_file(path: Path) -> None:
    """Refuse an ONNX file with a tensor whose values are in another file, or that is malformed.

    Raises:
        IntegrityError: it has such a tensor.
        UserError: it cannot be read.
    """
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            external = _names_another_file(content)
    except (_MalformedError, IndexError, ValueError, OSError) as error:
        raise UserError(f"`{path}` is not an ONNX model: {error}", "copy or export the artifact again") from None
    if external:
        raise IntegrityError(f"`{path}` keeps values in another file, which no checksum covers", "do not trust it")


def _names_another_file(content: mmap.mmap) -> bool:
    """Return whether any tensor in the file says that its values are elsewhere.

    It is stricter than a parser: what a parser might read in two ways, such as groups, is malformed.
    """
    waiting = [("Model", 0, len(content), 0)]
    fields = 0
    while waiting:
        message, position, end, depth = waiting.pop()
        while position < end:
            fields += 1
            number, wire_type, start, position = _field(content, position, end)
            if message == "Tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and content[start])):
                return True
            if wire_type == BYTES and (inner := MESSAGES[message].get(number)):
                waiting.append((inner, start, position, depth + 1))
            if depth > MAX_ONNX_DEPTH or fields > MAX_ONNX_FIELDS:
                raise _MalformedError("too many or too deeply nested fields")
    return False


def _field(content: mmap.mmap, position: int, end: int) -> tuple[int, int, int, int]:
    """Return a field's number and wire type, and where its value begins and ends."""
    tag, start = _varint(content, position, longest=5)
    number, wire_type = tag >> 3, tag & 7
    if wire_type == VARINT:
        _, stop = _varint(content, start, longest=10)
    elif wire_type == BYTES:
        length, start = _varint(content, start, longest=5)
        stop = start + length
    elif wire_type in (EIGHT_BYTES, FOUR_BYTES):
        stop = start + (8 if wire_type == EIGHT_BYTES else 4)
    else:
        raise _MalformedError(f"wire type {wire_type} at byte {position}")
    if not 0 < number < 2**29 or stop > end:
        raise _MalformedError(f"field {number} at byte {position}")
    return number, wire_type, start, stop


def _varint(content: mmap.mmap, position: int, *, longest: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and the position behind it."""
    value = 0
    for i in range(longest):
        byte = content[position + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    raise _MalformedError(f"a number too long at byte {position}")
