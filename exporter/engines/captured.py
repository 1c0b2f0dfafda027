"""CUDA graphs of onnxruntime: one text a call, without the time that it takes to start each kernel.

The kernels of a width are recorded in its first call, and started together from then on. Buffers stay where they are,
as a recording asks for: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.engines.spec import Device
from trainer.tasks import FloatArray
from trainer.text.encoding import IntArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions

CAN_CAPTURE = {"enable_cuda_graph": "1"}
"""The provider's option. A session cannot be opened with it if a step of the model runs on the CPU."""
NUMBER = "gpu_graph_id"


@dataclass(frozen=True)
class _Slot:
    """What a recording reads and writes."""

    inputs: dict[str, Any]
    logits: Any
    binding: Any
    options: RunOptions


class Captured:
    """Runs a session in a thread of its own, whoever asks: recordings belong to the thread that made them.

    Args:
        open_session: opens it with `CAN_CAPTURE`.
        labels: how many logits there are for a text; what the model says where None.
        device: where it runs.

    Raises:
        Exception: whatever onnxruntime raises.
    """

    def __init__(
        self, open_session: Callable[[], InferenceSession], labels: int | None, device: Device = "cuda"
    ) -> None:
        self._thread = ThreadPoolExecutor(1, "cuda-graphs")
        self.session = self._thread.submit(open_session).result()
        self._labels, self._device = labels or int(self.session.get_outputs()[0].shape[-1]), device
        self._not_recorded = _numbered(-1)
        self._slots: dict[int, _Slot | None] = {}

    def record(self, feeds: dict[str, IntArray]) -> None:
        """Run one text of a width that nobody has asked for yet, and raise what onnxruntime raises."""
        self._thread.submit(self._run_one, feeds).result()

    def run(self, feeds: dict[str, IntArray]) -> FloatArray:
        """Return the logits of texts, [texts, classes].

        Args:
            feeds: the model's inputs, each [texts, width].
        """
        return self._thread.submit(self._run, feeds).result()

    def _run(self, feeds: dict[str, IntArray]) -> FloatArray:
        texts, width = next(iter(feeds.values())).shape
        is_new = width not in self._slots
        if texts == 1 and (is_new or self._slots[width]):
            try:
                return self._run_one(feeds)
            except Exception:  # whatever onnxruntime raises of a width that it cannot record
                if not is_new:
                    raise
                self._slots[width] = None
        return np.asarray(self.session.run(["logits"], feeds, self._not_recorded)[0], dtype=np.float32)

    def _run_one(self, feeds: dict[str, IntArray]) -> FloatArray:
        width = next(iter(feeds.values())).shape[1]
        slot = self._slots.get(width) or self._slot(width, feeds)
        for name, array in feeds.items():
            slot.inputs[name].update_inplace(array)
        self.session.run_with_iobinding(slot.binding, slot.options)
        self._slots[width] = slot
        return np.array(slot.logits.numpy(), dtype=np.float32)  # what lies in the buffer is overwritten next time

    def _slot(self, width: int, feeds: dict[str, IntArray]) -> _Slot:
        from onnxruntime import OrtValue

        on_device = {name: OrtValue.ortvalue_from_numpy(array, self._device, 0) for name, array in feeds.items()}
        empty = np.zeros((1, self._labels), dtype=np.float32)
        logits = OrtValue.ortvalue_from_numpy(empty, self._device, 0)
        binding = self.session.io_binding()
        for name, value in on_device.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output("logits", logits)
        return _Slot(on_device, logits, binding, _numbered(width))


def _numbered(number: int) -> RunOptions:
    """Return the options of a run that is recorded under a number, or started again; -1 does neither."""
    from onnxruntime import RunOptions

    options = RunOptions()
    options.add_run_config_entry(NUMBER, str(number))
    return options
