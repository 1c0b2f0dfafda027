"""What this machine can do at most: its fastest matrix products at the model's own shapes, and its memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.results import Limit, Machine
from exporter.engines.onnxruntime import PROVIDERS, session_options
from trainer.model.architectures import architecture_of

ROWS = (64, 256, 1024)
"""Tokens in a matrix product: one text or a batch."""
REPEAT_S = 0.2
"""For how long a product is repeated, in seconds; the fastest call counts."""
PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "Attention", "MultiHeadAttention")
MIN_STREAM_BYTES = 2**20


def measure_machine(_: object, model: Path, threads: int, repeat_s: float = REPEAT_S) -> Machine | None:
    """Measure the bounds for a model, None for one whose shape is not known; runs in a process of its own.

    Args:
        model: the ONNX artifact in fp32; its `config.json` lies beside it.
        threads: how many CPU threads it may use.
        repeat_s: for how long each product is repeated, in seconds.
    """
    products = products_of(model)
    shapes = [*products.per_token, *products.per_text]
    makers = {"fp32": _fp32, "int8": _int8, "bf16": _bf16}
    limits = []
    for precision, make in makers.items():
        found = [_flops(make, rows, *shape, threads, repeat_s) for shape in set(shapes) for rows in ROWS]
        if flops := max((f for f in found if f is not None), default=None):
            limits.append(Limit(precision, flops))
    config = json.loads((model.parent / "config.json").read_text(encoding="utf-8"))
    depth = architecture_of(config.get("model_type", "")).shape(config)
    if depth is None:
        return None
    weights, weights_per_text = (sum(height * width for height, width in part) for part in (shapes, products.per_text))
    return Machine(
        limits=tuple(limits),
        bytes_per_s=_bytes_per_s(4 * weights, threads, repeat_s),
        flops_per_token=float(2 * (weights - weights_per_text)),
        flops_per_text=float(2 * weights_per_text),
        flops_per_token_squared=float(4 * (depth[0] - products.is_last_short) * depth[1]),
        product_weights=weights,
    )


@dataclass(frozen=True)
class Products:
    """The shapes of the constant matrices that a model multiplies by, once for each use."""

    per_token: tuple[tuple[int, int], ...]
    per_text: tuple[tuple[int, int], ...]
    """Those for one token of a text: for all that comes of a row that was taken out, such as the head."""
    is_last_short: bool
    """Whether the attention of the last layer has one query a text."""


def products_of(model: Path) -> Products:
    """Return the products in a model, fused ones included."""
    import onnx

    from exporter.convert.graph import constants_of

    graph = onnx.load(model, load_external_data=False).graph
    matrices = {w.name: (w.dims[0], w.dims[1]) for w in graph.initializer if len(w.dims) == 2}
    constants, taken, is_last_short = constants_of(graph), set[str](), False
    per_token: list[tuple[int, int]] = []
    per_text: list[tuple[int, int]] = []
    for node in graph.node:
        # Of a product, the left side decides: one query looks at the keys of all tokens. A look-up has it from a table.
        decisive = node.input[:1] if node.op_type in (*PRODUCTS, "Gather") else node.input
        if _takes_a_row(node, constants) or taken.intersection(decisive):
            taken.update(node.output)
        if node.op_type in PRODUCTS:
            part = per_text if node.input[0] in taken else per_token
            part += [matrices[name] for name in node.input if name in matrices]
            is_last_short |= part is per_text and not constants.keys() & set(node.input)
    return Products(tuple(per_token), tuple(per_text), is_last_short)


def _takes_a_row(node: Any, constants: Mapping[str, Any]) -> bool:
    """Tell whether a node takes one token of every text: a place on the second axis, or the first of a later one."""
    from onnx.numpy_helper import to_array

    values = [to_array(constants[name]) if name in constants else None for name in node.input[1:]]
    if node.op_type == "Gather":
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return axis == 1 and values[0] is not None and values[0].size == 1
    if node.op_type != "Slice" or len(values) < 3 or any(value is None or value.size != 1 for value in values[:3]):
        return False  # without axes, it takes texts
    start, end, axis = (value.item() for value in values[:3] if value is not None)
    return (start, end) == (0, 1) and axis > 0


def _flops(
    make: Callable[[int, int, int, int], Callable[[], object] | None],
    rows: int,
    height: int,
    width: int,
    threads: int,
    repeat_s: float,
) -> float | None:
    """Return the operations a second of one product, None where it cannot be done here."""
    product = make(rows, height, width, threads)
    return None if product is None else 2 * rows * height * width / _fastest(product, repeat_s)


def _fastest(work: Callable[[], object], repeat_s: float) -> float:
    work()
    seconds: list[float] = []
    end = time.perf_counter() + repeat_s
    while time.perf_counter() < end or len(seconds) < 3:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _fp32(rows: int, height: int, width: int, threads: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(height, width)).astype(np.float32)
    return _product("MatMul", rng.normal(size=(rows, height)).astype(np.float32), weights, threads)


def _int8(rows: int, height: int, width: int, threads: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (height, width), dtype=np.int8)
    return _product("MatMulInteger", rng.integers(0, 256, (rows, height), dtype=np.uint8), weights, threads)


def _bf16(rows: int, height: int, width: int, threads: int) -> Callable[[], object] | None:
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads)
    a, b = (torch.ones(shape, dtype=torch.bfloat16) for shape in ((rows, height), (height, width)))
    return lambda: torch.matmul(a, b)


def _product(operator: str, left: Any, weights: Any, threads: int) -> Callable[[], object]:
    """Return a call of a graph that multiplies by a constant matrix, as a model does."""
    from onnx import TensorProto, helper, numpy_helper

    integer = operator == "MatMulInteger"
    kinds = (TensorProto.UINT8, TensorProto.INT32) if integer else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", kinds[0], list(left.shape))],
        [helper.make_tensor_value_info("c", kinds[1], [left.shape[0], weights.shape[1]])],
        [numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model_bytes, options = model.SerializeToString(), session_options(threads)
    session = onnxruntime.InferenceSession(model_bytes, options, providers=[PROVIDERS["cpu"]])
    return lambda: session.run(None, {"a": left})


def _bytes_per_s(size: int, threads: int, repeat_s: float) -> float:
    """Return how fast as many bytes as the model's products hold are read: a vector times a matrix of that size.

    A model that fits into a cache is read faster than memory allows.
    """
    weights = np.ones((max(size, MIN_STREAM_BYTES) // 4 // 1024, 1024), dtype=np.float32)
    product = _product("MatMul", np.ones((1, len(weights)), dtype=np.float32), weights, threads)
    return weights.nbytes / _fastest(product, repeat_s)
