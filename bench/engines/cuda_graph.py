"""PyTorch with captured CUDA graphs: one text at a time, without the time that it takes to start each kernel.

A graph is for one shape. So there is one for each of few widths, captured when the model is loaded, and a text is
padded to the next of them. Several texts at a time run as usual.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, IntArray

if TYPE_CHECKING:
    from exporter.proof.reference import TorchModel
    from trainer.run import RunDir

STEP = 32
"""Tokens from one width to the next, at least."""
MOST_WIDTHS = 32
"""Each is captured when the model is loaded, and holds its own activations."""
WARM_UP = 3
"""Runs before a capture, in which libraries allocate what they keep, as PyTorch's documentation asks for."""

Replay = Callable[[IntArray], FloatArray]
"""Returns the logits, [1, classes], of the inputs of one text, [inputs, 1, width]."""


class GraphModel:
    """A model with a graph for each width.

    Args:
        eager: the same model, for several texts.
        capture: makes what runs one text of a width.
    """

    def __init__(self, eager: TorchModel, capture: Callable[[TorchModel, int], Replay] | None = None) -> None:
        self._eager, self.encoder = eager, eager.encoder
        self._widths = widths_of(self.encoder.max_length)
        capture = capture or _Capture()
        self._replays = {width: capture(eager, width) for width in reversed(self._widths)}

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of one batch, [len(batch), classes]; one text is padded to the next width."""
        place = bisect_left(self._widths, max(len(batch[0]), length or 0))
        if len(batch) > 1 or place == len(self._widths):
            return self._eager.run(batch, length)
        arrays = self.encoder.pad(batch, self._widths[place])
        return self._replays[self._widths[place]](np.stack([arrays[name] for name in self._eager.inputs]))


def widths_of(max_length: int) -> list[int]:
    """Return the widths in ascending order: multiples of one step, and the longest that a text can have."""
    step = STEP * -(-max_length // (STEP * MOST_WIDTHS))
    return [*range(step, max_length, step), max_length]


class _Capture:
    """Captures graphs that share one pool of memory: no two of them run at a time, and the widest comes first."""

    def __init__(self) -> None:
        import torch

        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def __call__(self, eager: TorchModel, width: int) -> Replay:
        import torch

        with torch.inference_mode():
            host = torch.ones((len(eager.inputs), 1, width), dtype=torch.int64).pin_memory()
            rows = host.to("cuda")
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP):
                    eager.forward(rows)
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                logits = eager.forward(rows)

        def replay(arrays: IntArray) -> FloatArray:
            with torch.inference_mode():
                host.copy_(torch.from_numpy(arrays))
                rows.copy_(host, non_blocking=True)
                graph.replay()
                return np.asarray(logits.cpu().numpy(), dtype=np.float32)  # this copy waits for the device

        return replay


def without_capturing(_: RunDir) -> str | None:
    """Return why graphs cannot be captured here, None where they can."""
    if int(version("transformers").partition(".")[0]) < 5:
        return "before transformers 5, models look at the mask's values, which no captured graph can"
    return None
