"""The engines that a bundle can be made for, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exporter.bundle.artifact import EngineName
from exporter.engines import onnxruntime, openvino
from exporter.engines.engine import ModelEngine

OPEN: dict[EngineName, Callable[..., ModelEngine[Any]]] = {
    "onnxruntime": onnxruntime.open_engine,
    "openvino": openvino.open_engine,
}
"""Load what a folder holds without any check; see `onnxruntime.open_engine`."""
LOAD: dict[EngineName, Callable[..., ModelEngine[Any]]] = {
    "onnxruntime": onnxruntime.load_engine,
    "openvino": openvino.load_engine,
}
"""Load a bundle as whoever deploys it does; see `onnxruntime.load_bundle`."""
