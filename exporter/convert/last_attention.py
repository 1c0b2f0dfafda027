"""The attention of a shortened last layer, as one operator: onnxruntime's own fusion knows layers of all tokens only.

`MultiHeadAttention` takes fewer queries than keys, and the same mask of padding as the layers before. Once it stands
there, nothing asks for the mask of all pairs of tokens any more, nor for the sizes that it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto, ModelProto, NodeProto
from onnx.helper import make_node

DOMAIN = "com.microsoft"
BACK_TO_PRODUCT = ("Add", "Mul", "Div")
"""Between the product of queries and keys and its softmax: the mask and the scale."""
INTO_HEADS = ("Transpose", "Reshape", "Mul", "Div")
"""Between what a matrix product gives and the heads that attend."""
OUT_OF_HEADS = ("Transpose", "Reshape")


def fuse_last_attention(model: ModelProto, heads: int) -> bool:
    """Put one operator in the place of the only attention that is not fused yet.

    Whether it computes the same is for the proof to see.

    Args:
        model: fused by onnxruntime but for its last layer.
        heads: of the attention.

    Returns:
        Whether it was found; the model is unchanged otherwise.
    """
    graph = model.graph
    masks = {node.input[3] for node in graph.node if node.op_type == "Attention" and len(node.input) > 3}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    found = _Attention.around(graph, softmaxes[0]) if len(softmaxes) == 1 and len(masks) == 1 else None
    if found is None:
        return False
    inputs = [found.query, found.key, found.value, "", masks.pop()]
    name = f"{found.last.name}_fused"
    node = make_node("MultiHeadAttention", inputs, [found.last.output[0]], name, domain=DOMAIN, num_heads=heads)
    place = list(graph.node).index(found.last)
    graph.node.remove(found.last)
    graph.node.insert(place, node)
    return True


class _Attention:
    """The outputs that the parts of an attention are made from, and the node that joins its heads."""

    def __init__(self, query: str, key: str, value: str, last: NodeProto) -> None:
        self.query, self.key, self.value, self.last = query, key, value, last

    @classmethod
    def around(cls, graph: GraphProto, softmax: NodeProto) -> _Attention | None:
        """Find it by its softmax, None where it is built otherwise."""
        makers = {name: node for node in graph.node for name in node.output}
        users = [node for node in graph.node if softmax.output[0] in node.input]
        scores = _back(makers, softmax.input[0], BACK_TO_PRODUCT)
        if len(users) != 1 or {users[0].op_type, scores and scores.op_type} != {"MatMul"} or scores is None:
            return None
        parts = [_source(makers, name) for name in (*scores.input, users[0].input[1])]
        last = _forward(graph, users[0])
        if last is None or not all(parts):
            return None
        query, key, value = parts
        return cls(query, key, value, last)


def _back(makers: dict[str, NodeProto], name: str, kinds: Sequence[str]) -> NodeProto | None:
    """Return what made a tensor, behind operators of some kinds; of their inputs, the one that leads to a product."""
    node = makers.get(name)
    while node is not None and node.op_type in kinds:
        ways = [makers[name] for name in node.input if name in makers]
        node = next((way for way in ways if way.op_type in (*kinds, "MatMul")), None)
    return node


def _source(makers: dict[str, NodeProto], name: str) -> str:
    """Return the tensor that was taken apart into heads, an empty name where none was."""
    seen = set()
    while (node := makers.get(name)) is not None and node.op_type in INTO_HEADS:
        seen.add(node.op_type)
        name = node.input[0]
    return name if {"Transpose", "Reshape"} <= seen else ""


def _forward(graph: GraphProto, node: NodeProto) -> NodeProto | None:
    """Return the reshape that joins the heads after a product, None where something else follows."""
    for kind in OUT_OF_HEADS:
        following = [user for user in graph.node if node.output[0] in user.input]
        if len(following) != 1 or following[0].op_type != kind:
            return None
        node = following[0]
    return node
