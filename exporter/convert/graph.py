"""The fp32 graph: one kind of matrix product for the quantizers, fused and counted layers for the target."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnx.numpy_helper import from_array, to_array
from onnx.reference import ReferenceEvaluator

from exporter.convert.last_attention import fuse_last_attention
from trainer.errors import UserError
from trainer.model.architectures import architecture_of

VIEWS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast")
"""Operators that give the same numbers another shape or type."""


def finish_conversion(model: Path, metadata: dict[str, str]) -> None:
    """Bring every product with a constant into the form that quantizers look for: a `MatMul` by an initializer.

    A head left in fp32 because it is a `Gemm`, not a `MatMul` and an `Add`, costs DistilBERT 1.8 MB. The metadata says
    what running the model takes, for runtimes that get nothing but the file; fusing and quantizing keep it.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    graph = ONNXModel(onnx.load(model))
    fold_views(graph.model)
    graph.replace_gemm_with_matmul()
    graph.clean_initializers()
    share_equals(graph.model.graph)
    onnx.helper.set_model_props(graph.model, metadata)
    onnx.save(graph.model, model)


def fold_views(model: onnx.ModelProto) -> None:
    """Put in the place of each view of a constant what it shows, so that a product's constant is an initializer.

    A weight that several layers share stands behind an `Identity` from its second use on, as in all layers of ALBERT
    but the first; others stand behind a `Transpose` or a `Cast`.
    """
    graph, opsets = model.graph, {opset.domain: opset.version for opset in model.opset_import}
    constants, outputs = constants_of(graph), {value.name for value in graph.output}
    kept, same = [], dict[str, str]()
    for node in graph.node:
        inputs = [same.get(name, name) for name in node.input]
        if node.op_type not in ("Identity", *VIEWS) or node.output[0] in outputs or not constants.keys() >= set(inputs):
            kept.append(node)
        elif node.op_type == "Identity":
            same[node.output[0]] = inputs[0]
        else:
            values = {name: to_array(constants[now]) for name, now in zip(node.input, inputs, strict=True)}
            shown = from_array(ReferenceEvaluator(node, opsets).run(None, values)[0], node.output[0])
            graph.initializer.append(shown)
            constants[shown.name] = shown
    del graph.node[:]
    graph.node.extend(kept)
    _rename(graph, same)


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the initializers, and what `Constant` nodes hold."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return constants


def share_equals(graph: onnx.GraphProto) -> None:
    """Keep one of all initializers that hold the same, so that what layers share is stored once."""
    first, same, kept = dict[object, str](), dict[str, str](), []
    for tensor in graph.initializer:
        digest = hashlib.sha256(to_array(tensor).tobytes()).digest()
        name = first.setdefault((tensor.data_type, tuple(tensor.dims), digest), tensor.name)
        if name == tensor.name:
            kept.append(tensor)
        else:
            same[tensor.name] = name
    del graph.initializer[:]
    graph.initializer.extend(kept)
    _rename(graph, same)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give inputs of nodes other names, also in the branches of an `If`."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for attribute in node.attribute:
            for branch in (*attribute.graphs, attribute.g):
                _rename(branch, names)


def fuse(
    model: Path,
    output: Path,
    checkpoint: Path,
    *,
    half: bool = False,
    shortened: bool = False,
    in_fp32: Sequence[str] = (),
) -> dict[str, int]:
    """Fuse attention and activation functions; for CPUs, or for GPUs in half precision.

    On CPUs, residual sums stay apart from their layer normalisations: fused, they made the graph slower in every case
    measured (6 layers of 384 and 4 of 256, fp32: 0.87 to 0.97 of the unfused graph's speed, against 0.96 to 1.08
    without).

    Args:
        model: the converted ONNX model.
        output: where to write the fused one.
        checkpoint: the checkpoint that it was converted from.
        half: whether to write it in half precision, with all that onnxruntime fuses for GPUs.
        shortened: whether its last layer works for the first token alone, an attention that is fused here.
        in_fp32: operators that stay in fp32 where all others are written in half precision.

    Returns:
        How many operators of each kind came out; empty, and nothing written, where onnxruntime cannot fuse this
        architecture's attention.

    Raises:
        UserError: it can, but did not find every attention layer in this graph.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    fused_as = architecture_of(config.model_type).fused_as
    if fused_as is None:
        return {}
    options = FusionOptions(fused_as)
    options.enable_skip_layer_norm = half
    options.enable_embed_layer_norm = False
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    fused = optimize_model(
        str(model),
        model_type=fused_as,
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=0,
        optimization_options=options,
    )
    counts, layers = _fused(fused), config.num_hidden_layers
    if shortened and _attention(counts) == layers - 1 and fuse_last_attention(fused.model, config.num_attention_heads):
        fused.prune_graph()
        counts = _fused(fused)
    if _attention(counts) not in (layers - shortened, layers):
        raise UserError(
            f"onnxruntime fused {_attention(counts)} of the {layers} attention layers of this `{config.model_type}`",
            "add `--no-fuse`, and report this as a bug",
        )
    if half:
        fused.convert_float_to_float16(keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *in_fp32])
        drop_repeats(fused.model.graph)
    fused.save_model_to_file(str(output))
    return counts


def _fused(model: Any) -> dict[str, int]:
    """Return how many operators of each kind a model has that onnxruntime's optimizer made."""
    return {name: count for name, count in model.get_fused_operator_statistics().items() if count}


def _attention(counts: Mapping[str, int]) -> int:
    return counts.get("Attention", 0) + counts.get("MultiHeadAttention", 0)


def to_half(
    model: Path, output: Path, checkpoint: Path, *, fuse_graph: bool, shortened: bool, in_fp32: Sequence[str] = ()
) -> dict[str, int]:
    """Write a model in half precision, fused where onnxruntime can; logits stay fp32. See `fuse`.

    Returns:
        What was fused, as `fuse` counts it.

    Raises:
        UserError: see `fuse`.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    making = partial(fuse, half=True, shortened=shortened, in_fp32=in_fp32)
    fused = making(model, output, checkpoint) if fuse_graph else {}
    if not fused:
        blocked = [*DEFAULT_OP_BLOCK_LIST, *in_fp32]
        halved = convert_float_to_float16(onnx.load(model), keep_io_types=True, op_block_list=blocked)
        drop_repeats(halved.graph)
        onnx.save(halved, output)
    return fused


def drop_repeats(graph: onnx.GraphProto) -> None:
    """Keep the first of all nodes that make the same tensor.

    Before 1.32, onnxruntime's converter adds the same cast, under the same name, for each operator that stays in fp32.
    """
    seen, kept = set[tuple[str, ...]](), []
    for node in graph.node:
        if tuple(node.output) not in seen:
            kept.append(node)
        seen.add(tuple(node.output))
    del graph.node[:]
    graph.node.extend(kept)
