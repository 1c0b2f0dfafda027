"""What this machine can do at most: its fastest matrix products at the model's own shapes, and its memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.results import Limit, Machine

ROWS = (64, 256, 1024)
"""Tokens in a matrix product: one text or a batch."""
LEAST_S = 0.2
"""For how long a product is repeated; the fastest repetition counts."""
PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "Attention")
LEAST_STREAM = 2**20


def measure_machine(_: object, model: Path, threads: int) -> Machine | None:
    """Measure the bounds for a model, None for one whose shape is not known; runs in a process of its own.

    Args:
        model: the ONNX artifact in fp32; its `config.json` lies beside it.
        threads: that it may use.
    """
    shapes = product_shapes(model)
    makers = {"fp32": _fp32, "int8": _int8, "bf16": _bf16}
    limits = []
    for precision, make in makers.items():
        found = [_flops(make, rows, *shape, threads) for shape in set(shapes) for rows in ROWS]
        if flops := max((f for f in found if f is not None), default=None):
            limits.append(Limit(precision, flops))
    depth = _depth(model.parent / "config.json")
    if depth is None:
        return None
    weights = sum(height * width for height, width in shapes)
    return Machine(
        limits=tuple(limits),
        bytes_per_s=_bytes_per_s(4 * weights, threads),
        flops_per_token=float(2 * weights),
        flops_per_token_squared=float(4 * depth[0] * depth[1]),
        product_weights=weights,
    )


def product_shapes(model: Path) -> list[tuple[int, int]]:
    """Return the shape of the constant matrix of every product in a model, fused ones included, once for each use."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    matrices = {w.name: (w.dims[0], w.dims[1]) for w in graph.initializer if len(w.dims) == 2}
    used = [name for node in graph.node if node.op_type in PRODUCTS for name in node.input]
    return [matrices[name] for name in used if name in matrices]


def _depth(config: Path) -> tuple[int, int] | None:
    """Return layers and width, None where the configuration calls them otherwise."""
    values = json.loads(config.read_text(encoding="utf-8"))
    layers = values.get("num_hidden_layers") or values.get("n_layers")
    width = values.get("hidden_size") or values.get("dim")
    return (int(layers), int(width)) if layers and width else None


def _flops(
    make: Callable[[int, int, int, int], Callable[[], object] | None], rows: int, height: int, width: int, threads: int
) -> float | None:
    """Return the operations a second of one product, None where it cannot be done here."""
    product = make(rows, height, width, threads)
    return None if product is None else 2 * rows * height * width / _fastest(product)


def _fastest(work: Callable[[], object]) -> float:
    work()
    taken: list[float] = []
    end = time.perf_counter() + LEAST_S
    while time.perf_counter() < end or len(taken) < 3:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


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
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": left})


def _bytes_per_s(size: int, threads: int) -> float:
    """Return how fast as many bytes as the model's products hold are read: a vector times a matrix of that size.

    A model that fits into a cache is read faster than memory allows.
    """
    weights = np.ones((max(size, LEAST_STREAM) // 4 // 1024, 1024), dtype=np.float32)
    product = _product("MatMul", np.ones((1, len(weights)), dtype=np.float32), weights, threads)
    return weights.nbytes / _fastest(product)
