"""Which kernel computes the attention of an ONNX model on a GPU: onnxruntime says so where it is asked to."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from exporter.engines.engine import ONE_BY_ONE, Batching, Engine
from trainer.text.texts import Text

ASKS = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"
"""Read when a session is opened. Then every call of an attention prints a line."""
SAID = re.compile(r"SdpaKernel=([A-Z_]+)")


def open_telling(load: Callable[[], Engine]) -> Engine:
    """Load an engine that says which kernels it uses."""
    os.environ[ASKS] = "1"
    try:
        with _printed():  # its golden answers say so, too
            return load()
    finally:
        del os.environ[ASKS]


def kernels_of(engine: Engine, texts: Sequence[Text], batching: Batching) -> tuple[str, ...]:
    """Return the kernels that answer texts, alone and together; none where it says nothing.

    Args:
        engine: of `open_telling`.
        texts: what to ask.
        batching: how to ask them together.
    """
    with _printed() as read:
        engine.logits(texts, ONE_BY_ONE)
        engine.logits(texts, batching)
        return tuple(sorted({name.lower().replace("_", "-") for name in SAID.findall(read())}))


@contextmanager
def _printed() -> Iterator[Callable[[], str]]:
    """Give what is printed to stdout meanwhile: by C++ too, which knows nothing of Python's `sys.stdout`."""
    sys.stdout.flush()
    before = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)

        def read() -> str:
            file.seek(0)
            return file.read().decode("utf-8", "replace")

        try:
            yield read
        finally:
            os.dup2(before, 1)
            os.close(before)
