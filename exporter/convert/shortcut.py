"""The last layer for the one row that is read of it: what it computes for all other tokens is left out.

A classifier that reads the first token alone (`hidden[:, 0]`) needs the other tokens of the last layer only as keys and
values. The graph is walked backwards from its outputs. A tensor of which nothing but the first row along one axis is
needed is computed for that row, if its operator works row by row; if not, the row is cut out of the whole. Each rule is
exact by itself, whatever the architecture: where none fits, the way ends.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, NodeProto
from onnx.helper import get_attribute_value, make_node
from onnx.numpy_helper import from_array, to_array

from exporter.convert.graph import constants_of

OPSET = 13
"""The first in which Softmax works along one axis."""

Dims = tuple[int | str, ...]
"""A size, or the symbol of one: equal symbols are equal sizes."""
Needs = Sequence[int | None]
"""For each input of a node: the axis along which its first row is enough, None for the whole."""
Given = Sequence[npt.NDArray[np.generic] | None]
"""The inputs of a node that are constant, None for the others."""


def shorten(model: Path) -> bool:
    """Let a model's last layer work for the first token alone, if that is all that is read of it.

    Args:
        model: the converted ONNX model, not fused. It is written anew if it changes.

    Returns:
        Whether it changed: at least one product with a constant matrix is done once a text now, not once a token.
    """
    loaded = onnx.load(model)
    shapes = _shapes(loaded)
    if shapes is None or next(o.version for o in loaded.opset_import if o.domain in ("", "ai.onnx")) < OPSET:
        return False
    if not _Walk(loaded.graph, shapes).back():
        return False
    del loaded.graph.value_info[:]  # shapes from before
    onnx.save(loaded, model)
    return True


def _shapes(model: onnx.ModelProto) -> dict[str, Dims] | None:
    """Return the dimensions of all tensors, in symbols where they depend on the inputs; None if they are not found.

    Two sizes that one tensor is added to another with are taken for equal, as they are in a model that runs.
    """
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    logging.getLogger("onnxruntime.tools.symbolic_shape_infer").setLevel(logging.CRITICAL)
    # Its `infer_shapes` does the same, but leaves a file in the working directory where it does not know an operator.
    try:
        inference, is_complete = SymbolicShapeInference(2**31 - 1, True, False, 0), False
        inference._preprocess(model)
        while inference.run_:
            is_complete = inference._infer_impl()
        inference._update_output_from_vi()
        graph = inference.out_mp_.graph
    except Exception:  # it raises just that; and another version may call its steps otherwise
        return None
    if not is_complete:
        return None
    found: dict[str, Dims] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(d.dim_param or d.dim_value or f"{value.name}.{i}" for i, d in enumerate(dims))
    return found


class _Walk:
    """One way through a graph, from its outputs back to its inputs, that changes it in place."""

    def __init__(self, graph: GraphProto, shapes: Mapping[str, Dims]) -> None:
        self._graph, self._shapes, self._constants = graph, shapes, constants_of(graph)
        self._whole = {output.name for output in graph.output}
        self._readers = defaultdict[str, dict[int, list[tuple[NodeProto, int]]]](lambda: defaultdict(list))
        """By tensor, and the axis along which its first row is enough: who reads it, as which input."""
        self._measurers = defaultdict[str, list[NodeProto]](list)
        """By tensor, the nodes that need its shape alone."""
        self._sizes: dict[int | str, str] = {}
        self._first: list[NodeProto] = []
        """New nodes that read nothing but inputs of the graph."""
        self._shorter = 0

    def back(self) -> int:
        """Walk, and return how many products with a constant matrix are done for one row now."""
        kept: list[NodeProto] = []
        for node in reversed(self._graph.node):  # what is needed of a tensor is known when its maker is reached
            if not any(name in need for name in node.output for need in (self._whole, self._readers, self._measurers)):
                continue
            needs = self._by_row(node) if self._is_read_by_row(node) else None
            if needs is None:
                kept += [cut for name in node.output for cut in self._cut(name)]
                needs = self._chosen(node)
            kept.append(node)
            self._ask(node, needs)
        made = {name for node in kept for name in node.output}
        kept += [cut for name in [*self._readers] if name not in made for cut in self._cut(name)]
        del self._graph.node[:]
        self._graph.node.extend([*self._first, *reversed(kept)])
        return self._shorter

    def _is_read_by_row(self, node: NodeProto) -> bool:
        """Tell whether one output of a node is needed, of that the first row along one axis, and else its shape."""
        name, *others = node.output
        needed = (self._whole, self._readers, self._measurers)
        return (
            name not in self._whole
            and len(self._readers.get(name, ())) == 1
            and not any(other in need for other in others for need in needed)
            and (name not in self._measurers or all(self._is_known(size) for size in self._shapes.get(name, ("",))))
        )

    def _by_row(self, node: NodeProto) -> Needs | None:
        """Change a node so that it makes the first row alone, and return what it needs for that; None if it cannot."""
        name = node.output[0]
        (axis,) = self._readers[name]
        if name not in self._shapes or not all(tensor in self._shapes for tensor in node.input if tensor):
            return None
        shapes = [self._shapes[tensor] if tensor else () for tensor in node.input]
        if node.op_type == "Reshape":
            needs = self._reshape(node, axis, shapes[0], self._shapes[name])
        else:
            rule = RULES.get(node.op_type)
            needs = rule(node, axis, shapes, len(self._shapes[name]), self._given(node)) if rule else None
        if needs is None:
            return None
        for measurer in self._measurers.pop(name, ()):  # the shape that it had
            self._spell(measurer, self._shapes[name])
        multiplies = node.op_type == "MatMul" and node.input[1] in self._constants
        self._shorter += multiplies and axis == len(self._shapes[name]) - 2
        return needs

    def _chosen(self, node: NodeProto) -> Needs:
        """Return what a node that stays as it is needs: of a hidden state whose first token it takes, just that."""
        whole = [None] * len(node.input)
        shape = self._shapes.get(node.input[0], ()) if node.input else ()
        if node.op_type not in ("Gather", "Slice") or len(shape) != 3 or isinstance(shape[1], int):
            return whole
        _, *given = self._given(node)
        if node.op_type == "Gather":
            is_first = _attribute(node, "axis", 0) == 1 and _hold(given, 0)
        else:
            is_first = _hold(given, 0, 1, 1) or _hold(given, 0, 1, 1, 1)
        return [1, *whole[1:]] if is_first else whole

    def _given(self, node: NodeProto) -> Given:
        constants = [self._constants.get(name) for name in node.input]
        return [None if constant is None else to_array(constant) for constant in constants]

    def _ask(self, node: NodeProto, needs: Needs) -> None:
        """Note what a node needs of its inputs, and everything that its branches read."""
        if node.op_type == "Shape" and not node.attribute:
            self._measurers[node.input[0]].append(node)
            return
        self._whole |= {name for attribute in node.attribute for name in _read_inside(attribute)}
        for i, (name, axis) in enumerate(zip(node.input, needs, strict=True)):
            if axis is None:
                self._whole |= {name} - {""}
            else:
                self._readers[name][axis].append((node, i))

    def _cut(self, name: str) -> list[NodeProto]:
        """Return nodes that cut the rows that are needed out of a whole tensor, and let their readers read them."""
        cuts = []
        for axis, readers in self._readers.pop(name, {}).items():
            row = f"{name}_first_{axis}"
            bounds = [self._constant(f"shortcut_{n}", [n]) for n in (0, 1, axis)]
            cuts.append(make_node("Slice", [name, *bounds], [row], f"{row}_Slice"))
            for reader, i in readers:
                reader.input[i] = row
        return cuts

    def _reshape(self, node: NodeProto, axis: int, before: Dims, after: Dims) -> Needs | None:
        """Reshape the first row along an axis that is the same before and after: so is all left, or right, of it."""
        behind = len(before) - (len(after) - axis)
        if before[: axis + 1] == after[: axis + 1]:
            own = axis
        elif behind >= 0 and before[behind:] == after[axis:]:
            own = behind
        else:
            return None
        same = [i != own and i < len(before) and before[i] == size for i, size in enumerate(after)]
        sizes = [1 if i == axis else self._wanted(size, same[i]) for i, size in enumerate(after)]
        if sizes.count(-1) > 1 or _attribute(node, "allowzero", 0):
            return None
        if all(isinstance(size, int) for size in sizes):
            node.input[1] = self._constant(f"{node.output[0]}_first_shape", sizes)
        else:
            node.input[1] = f"{node.output[0]}_first_shape"
            self._first.append(
                make_node("Concat", [self._size(s) for s in sizes], [node.input[1]], node.input[1], axis=0)
            )
        return [own, None]

    def _wanted(self, size: int | str, is_same: bool) -> int | str:
        """Return how a `Reshape` is asked for a size: 0 keeps that of the same place, and one may be left to it: -1."""
        if isinstance(size, int):
            return size
        if is_same:
            return 0
        return size if self._is_known(size) else -1

    def _spell(self, node: NodeProto, dims: Dims) -> None:
        """Turn a `Shape` into the sizes that it gave."""
        sizes = [self._size(size) for size in dims]
        node.CopyFrom(make_node("Concat", sizes, node.output, node.name, axis=0))

    def _is_known(self, size: int | str) -> bool:
        return isinstance(size, int) or any(size in self._shapes[value.name] for value in self._graph.input)

    def _size(self, size: int | str) -> str:
        """Return a tensor [1] that holds a size, read from an input of the graph if need be."""
        if isinstance(size, int):
            return self._constant(f"shortcut_{size}", [size])
        if size not in self._sizes:
            source = next(value.name for value in self._graph.input if size in self._shapes[value.name])
            index = self._constant(f"shortcut_{self._shapes[source].index(size)}", [self._shapes[source].index(size)])
            self._sizes[size] = f"shortcut_{size}"
            self._first += [
                make_node("Shape", [source], [f"shortcut_{size}_shape"], f"shortcut_{size}_Shape"),
                make_node("Gather", [f"shortcut_{size}_shape", index], [self._sizes[size]], f"shortcut_{size}_Gather"),
            ]
        return self._sizes[size]

    def _constant(self, name: str, values: Sequence[int | str]) -> str:
        if name not in self._constants:
            self._constants[name] = from_array(np.array(values, np.int64), name)
            self._graph.initializer.append(self._constants[name])
        return name


Rule = Callable[[NodeProto, int, Sequence[Dims], int, Given], Needs | None]
"""Takes a node, the axis of its output along which the first row is needed, the shapes of its inputs, the rank of its
output and its constant inputs, and returns what it needs to make that row unchanged; None if it could not."""


def _broadcast(_: NodeProto, axis: int, shapes: Sequence[Dims], rank: int, __: Given) -> Needs:
    """A row of each input; those that are repeated along the axis stay whole, since they have no more than one."""
    own = [axis - rank + len(shape) for shape in shapes]
    return [a if a >= 0 and shape[a] != 1 else None for a, shape in zip(own, shapes, strict=True)]


def _matmul(node: NodeProto, axis: int, shapes: Sequence[Dims], rank: int, given: Given) -> Needs | None:
    left, right = shapes
    if min(len(left), len(right)) < 2:
        return None
    if axis < rank - 2:
        return _broadcast(node, axis, shapes, rank, given)
    return [len(left) - 2, None] if axis == rank - 2 else [None, len(right) - 1]


def _along(node: NodeProto, axis: int, shapes: Sequence[Dims], rank: int, __: Given) -> Needs | None:
    """Of an operator that looks along one axis of its first input, or from there on, and keeps the shape."""
    from_here_on = node.op_type == "LayerNormalization"
    looked = _attribute(node, "axis", -1) % rank
    if axis == looked or (from_here_on and axis > looked) or len(shapes[0]) != rank:
        return None
    if any(len(shape) > rank - looked for shape in shapes[1:]):  # a scale that reaches over other axes
        return None
    return [axis, *[None] * (len(shapes) - 1)]


def _reduce(node: NodeProto, axis: int, shapes: Sequence[Dims], rank: int, given: Given) -> Needs | None:
    axes = _axes(node, given, rank)
    if not axes or axis in axes or not _attribute(node, "keepdims", 1):
        return None
    return [axis, *[None] * (len(shapes) - 1)]


def _transpose(node: NodeProto, axis: int, _: Sequence[Dims], __: int, ___: Given) -> Needs | None:
    order = _attribute(node, "perm", None)
    return [order[axis]] if order else None


def _squeeze(node: NodeProto, axis: int, shapes: Sequence[Dims], _: int, given: Given) -> Needs | None:
    axes = _axes(node, given, len(shapes[0]))
    if axes is None:
        return None
    return [[i for i in range(len(shapes[0])) if i not in axes][axis], *[None] * (len(given) - 1)]


def _unsqueeze(node: NodeProto, axis: int, _: Sequence[Dims], rank: int, given: Given) -> Needs | None:
    axes = _axes(node, given, rank)
    if axes is None or axis in axes:
        return None
    return [[i for i in range(rank) if i not in axes].index(axis), *[None] * (len(given) - 1)]


def _slice(_: NodeProto, axis: int, shapes: Sequence[Dims], rank: int, given: Given) -> Needs | None:
    """Other axes are cut as they were."""
    axes = given[3] if len(given) > 3 else None
    if axes is None or axis in [int(a) % rank for a in axes.ravel()]:
        return None
    return [axis, *[None] * (len(shapes) - 1)]


def _concat(node: NodeProto, axis: int, shapes: Sequence[Dims], rank: int, _: Given) -> Needs | None:
    return None if axis == _attribute(node, "axis", 0) % rank else [axis] * len(shapes)


def _gather_elements(node: NodeProto, axis: int, _: Sequence[Dims], rank: int, __: Given) -> Needs:
    return [None if axis == _attribute(node, "axis", 0) % rank else axis, axis]


_ELEMENTWISE = ("Add", "And", "Cast", "Div", "Equal", "Erf", "Exp", "Gelu", "Greater", "GreaterOrEqual", "Identity",
                "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Sigmoid",
                "Sqrt", "Sub", "Tanh", "Where")  # fmt: skip
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _broadcast),
    **dict.fromkeys(("LayerNormalization", "LogSoftmax", "Softmax"), _along),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    "Concat": _concat,
    "GatherElements": _gather_elements,
    "MatMul": _matmul,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}


def _axes(node: NodeProto, given: Given, rank: int) -> list[int] | None:
    """Return the axes of a node, as an attribute or a constant input, counted from the left; None if unknown."""
    axes = _attribute(node, "axes", None)
    if axes is None and len(given) > 1 and given[1] is not None:
        axes = given[1].ravel().tolist()
    return None if axes is None else [int(axis) % rank for axis in axes]


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _hold(given: Given, *values: int) -> bool:
    """Tell whether constants are these numbers, each alone."""
    return len(given) == len(values) and all(
        array is not None and array.size == 1 and array.item() == value
        for array, value in zip(given, values, strict=True)
    )


def _read_inside(attribute: onnx.AttributeProto) -> set[str]:
    """Return all names that the branches of an `If` or the body of a `Loop` read."""
    found = set()
    for graph in (*attribute.graphs, attribute.g):
        for node in graph.node:
            found |= {*node.input}.union(*map(_read_inside, node.attribute))
        found |= {output.name for output in graph.output}
    return found
