"""CUDA graphs of onnxruntime: one text a call, without the time that it takes to start each kernel.

The kernels of a width are recorded in its first call, and started together from then on. Buffers stay where they are,
as a recording asks for: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

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
    """Runs one text at a time. Calls must not overlap, nor with others of the session.

    Args:
        session: opened with `CAN_CAPTURE`.
        labels: how many logits there are for a text.
        device: where it runs.
    """

    def __init__(self, session: InferenceSession, labels: int, device: Device = "cuda") -> None:
        self.session, self._labels, self._device = session, labels, device
        self._not_recorded = _numbered(-1)
        self._slots: dict[int, _Slot] = {}

    def run(self, feeds: dict[str, IntArray]) -> FloatArray:
        """Return the logits of one text, [1, classes].

        Args:
            feeds: the model's inputs, each [1, width].
        """
        width = next(iter(feeds.values())).shape[1]
        slot = self._slots.get(width)
        if slot is None:
            slot = self._slots[width] = self._slot(width, feeds)
        for name, array in feeds.items():
            slot.inputs[name].update_inplace(array)
        self.session.run_with_iobinding(slot.binding, slot.options)
        return np.array(slot.logits.numpy(), dtype=np.float32)  # what lies in the buffer is overwritten next time

    def run_several(self, feeds: dict[str, IntArray]) -> FloatArray:
        """Return the logits of several texts, [texts, classes], without recording anything."""
        return np.asarray(self.session.run(["logits"], feeds, self._not_recorded)[0], dtype=np.float32)

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
