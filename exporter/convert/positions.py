"""Rows of a table of positions, cut out of it at once: on a GPU, the way over their numbers goes through the host."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.helper import get_attribute_value, make_node
from onnx.numpy_helper import from_array, to_array

from exporter.convert.graph import constants_of


def slice_positions(model: Path) -> bool:
    """Turn each `Gather` of a constant table at a part of constant numbers into that part of the table; exact.

    A model without such a step stays as it is, and a CUDA graph can be captured of it only if none of its steps runs on
    the host: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html

    Returns:
        Whether there was one.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    wrapped = ONNXModel(onnx.load(model))
    graph = wrapped.model.graph
    constants = constants_of(graph)
    made_by = {output: node for node in graph.node for output in node.output}
    found: list[onnx.NodeProto] = []
    for place, node in enumerate(graph.node):
        if node.op_type != "Gather" or node.input[0] not in constants or _axis(node) != 0:
            continue
        part = made_by.get(node.input[1])
        if part is None or not _cuts_a_constant(part, constants):
            continue
        rows = from_array(to_array(constants[node.input[0]])[to_array(constants[part.input[0]])], f"{node.name}_rows")
        graph.initializer.append(rows)
        graph.node[place].CopyFrom(make_node("Slice", [rows.name, *part.input[1:]], node.output, node.name))
        found.append(part)
    if found:
        read = {name for node in graph.node for name in node.input}
        wrapped.remove_nodes([part for part in found if part.output[0] not in read])
        wrapped.clean_initializers()
        onnx.save(wrapped.model, model)
    return bool(found)


def _cuts_a_constant(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Tell whether a node is a `Slice` of a constant along axes that are counted from the first."""
    if (
        node.op_type != "Slice"
        or node.input[0] not in constants
        or len(node.input) < 4
        or node.input[3] not in constants
    ):
        return False
    return bool((to_array(constants[node.input[3]]) >= 0).all())


def _axis(node: onnx.NodeProto) -> int:
    return next((int(get_attribute_value(a)) for a in node.attribute if a.name == "axis"), 0)
