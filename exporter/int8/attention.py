"""The products of two activations inside attention, in int8.

The right side, which holds keys or values, is signed and symmetric: onnxruntime has no fast product for two unsigned
ones. A softmax lies between 0 and 1, so its scale is known; all other ranges are those of each call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto
from onnx.helper import make_node
from onnx.numpy_helper import from_array, to_array

from exporter.convert.graph import constants_of

NUMBERS = {
    "int8_share": np.float32(1 / 255),
    "int8_none": np.uint8(0),
    "int8_middle": np.int8(0),
    "int8_least": np.float32(1e-9),
}
"""Constants of the new nodes; the last one keeps a scale above 0 where all values are 0."""


def quantize_attention(model: Path, output: Path, *, reduce_range: bool) -> None:
    """Write a model whose products of two activations are in int8; those with a constant stay as they are.

    Args:
        model: the converted ONNX model, not fused.
        output: where to write the new one.
        reduce_range: whether to use 7 of the 8 bits on the right side.
    """
    loaded = onnx.load(model)
    graph, constants = loaded.graph, constants_of(loaded.graph)
    makers = {name: node for node in graph.node for name in node.output}
    products = [n for n in graph.node if n.op_type == "MatMul" and not constants.keys() & set(n.input)]
    scaled = _scaled(graph, products, constants)
    taken_in = {output for output, _ in scaled.values()}
    nodes = list[NodeProto]()
    for node in graph.node:
        if node.op_type == "MatMul" and node.output[0] in scaled:
            nodes += _product(node, *scaled[node.output[0]], makers)
        elif node.output[0] not in taken_in:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    numbers = NUMBERS | {"int8_most": np.float32(63 if reduce_range else 127)}
    graph.initializer.extend(from_array(np.asarray(value), name) for name, value in numbers.items())
    onnx.save(loaded, output)


def _scaled(
    graph: onnx.GraphProto, products: list[NodeProto], constants: Mapping[str, TensorProto]
) -> dict[str, tuple[str, str]]:
    """Return for each product what it is named after a multiplication by one number behind it, and that number.

    The scale of the int8 product takes it in; both names are the product's own and "" where there is no such node.
    """
    found = {node.output[0]: (node.output[0], "") for node in products}
    uses = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        if node.op_type == "Mul" and node.input[0] in found and uses[node.input[0]] == 1:
            constant = constants.get(node.input[1])
            if constant is not None and to_array(constant).size == 1:
                found[node.input[0]] = (node.output[0], node.input[1])
    return found


def _product(node: NodeProto, output: str, factor: str, makers: Mapping[str, NodeProto]) -> list[NodeProto]:
    """Return the nodes of one product in int8."""
    name, (left, right) = node.output[0], node.input
    codes, scale, zero = (f"{name}_int8_{part}" for part in ("codes", "scale", "zero"))
    if left in makers and makers[left].op_type == "Softmax":
        scale, zero = "int8_share", "int8_none"
        nodes = [make_node("QuantizeLinear", [left, scale, zero], [codes], codes)]
    else:
        nodes = [make_node("DynamicQuantizeLinear", [left], [codes, scale, zero], codes)]
    signed, steps = _signed(right, f"{name}_int8_right", makers)
    nodes += [*signed, make_node("Mul", [scale, steps], [f"{name}_int8_step"], f"{name}_int8_step")]
    step = f"{name}_int8_step"
    if factor:
        nodes.append(make_node("Mul", [step, factor], [f"{step}_scaled"], f"{step}_scaled"))
        step = f"{step}_scaled"
    whole, floats = f"{name}_int8_sum", f"{name}_int8_float"
    return [
        *nodes,
        make_node("MatMulInteger", [codes, f"{name}_int8_right", zero, "int8_middle"], [whole], whole),
        make_node("Cast", [whole], [floats], floats, to=TensorProto.FLOAT),
        make_node("Mul", [floats, step], [output], f"{output}_int8"),
    ]


def _signed(tensor: str, codes: str, makers: Mapping[str, NodeProto]) -> tuple[list[NodeProto], str]:
    """Return the nodes that quantize a tensor to signed codes around 0, and the name of their scale.

    Codes are transposed faster than numbers, of which they have a quarter of the bytes.
    """
    maker = makers.get(tensor)
    if maker is not None and maker.op_type == "Transpose":
        nodes, scale = _signed(maker.input[0], f"{codes}_before", makers)
        turned = NodeProto()
        turned.CopyFrom(maker)
        turned.name, turned.input[0], turned.output[0] = codes, f"{codes}_before", codes
        return [*nodes, turned], scale
    size, most, kept, scale = (f"{codes}_{part}" for part in ("size", "most", "kept", "scale"))
    nodes = [
        make_node("Abs", [tensor], [size], size),
        make_node("ReduceMax", [size], [most], most, keepdims=0),
        make_node("Max", [most, "int8_least"], [kept], kept),
        make_node("Div", [kept, "int8_most"], [scale], scale),
        make_node("QuantizeLinear", [tensor, scale, "int8_middle"], [codes], codes),
    ]
    return nodes, scale
