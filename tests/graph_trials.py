"""Trials of the int8 graph, timed in turns on this machine: `PYTHONPATH=. python tests/graph_trials.py CHECKPOINT`.

The checkpoint is a merged DistilBERT, such as `export/pytorch-fp32`. What is tried and lost is here and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, NodeProto, helper
from onnx.numpy_helper import from_array, to_array
from onnxruntime.quantization import QuantType, quantize_dynamic

from exporter.convert.graph import finish_conversion
from exporter.convert.shortcut import shorten
from exporter.convert.to_onnx import convert
from exporter.engines.onnxruntime import NOT_ON_CPU, session_options
from exporter.int8.recipes import RECIPES, Ingredients
from exporter.proof.timing import speed_ratio
from trainer.tasks import SingleLabel

PRODUCT = "product"
FUSIONS, LEFT_OUT = NOT_ON_CPU
OPTIONS = {
    "sums fused with layer normalisations": {FUSIONS: ""},
    "quantization apart from products": {FUSIONS: f"{LEFT_OUT};DynamicQuantizeMatMulFusion"},
    "GELU in parts": {FUSIONS: f"{LEFT_OUT};GeluFusionL1;GeluFusionL2"},
    "GELU by tanh": {"optimization.enable_gelu_approximation": "1"},
    "denormals as zero": {"session.set_denormal_as_zero": "1"},
    "weights not packed": {"session.disable_prepacking": "1"},
}
ATTRIBUTES = {"no memory arena": {"enable_cpu_mem_arena": False}, "no memory pattern": {"enable_mem_pattern": False}}


def without_mask(graph: GraphProto) -> None:
    """The most that leaving the mask out could bring: right only for texts without padding."""
    for add, softmax in _masked(graph):
        softmax.input[0] = add.input[0]
        graph.node.remove(add)


def mask_if_padded(graph: GraphProto) -> None:
    """Add the mask only where there is padding: exact."""
    least = helper.make_node("ReduceMin", ["attention_mask"], ["least"], keepdims=0)
    is_full = helper.make_node("Cast", ["least"], ["is_full"], to=onnx.TensorProto.BOOL)
    for add, softmax in _masked(graph):
        scores, mask, out = *add.input, softmax.output[0]
        bare = helper.make_node("Softmax", [scores], [f"{out}_bare"], axis=-1)
        masked = [
            helper.make_node("Add", [scores, mask], [f"{out}_sum"]),
            helper.make_node("Softmax", [f"{out}_sum"], [f"{out}_masked"], axis=-1),
        ]
        branches = {"then_branch": _branch([bare]), "else_branch": _branch(masked)}
        softmax.CopyFrom(helper.make_node("If", ["is_full"], [out], f"{out}_if", **branches))
        graph.node.remove(add)
    _put_first(graph, [least, is_full])


def packed(graph: GraphProto) -> None:
    """One product for queries, keys and values: exact, since every column has a scale of its own."""
    values = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    for first in [node for node in graph.node if node.op_type == "DynamicQuantizeLinear"]:
        products = [node for node in graph.node if node.op_type == "MatMulInteger" and node.input[0] == first.output[0]]
        if len(products) != 3:
            continue
        chains = [_to_bias(graph, product, values) for product in products]
        name = products[0].name
        parts = [("weights", 1, [p.input[1] for p in products]), ("zeros", 0, [p.input[3] for p in products])]
        parts += [("scales", 0, [c[4] for c in chains]), ("biases", 0, [c[5] for c in chains])]
        for part, axis, names in parts:
            joined = np.concatenate([values[n] for n in names], axis)
            graph.initializer.append(from_array(joined, f"{name}_{part}"))
        widths = [values[product.input[1]].shape[1] for product in products]
        graph.initializer.append(from_array(np.array(widths), f"{name}_widths"))
        nodes = [
            helper.make_node("MatMulInteger", [*_both(first, name)], [f"{name}_whole"], f"{name}_whole"),
            helper.make_node("Cast", [f"{name}_whole"], [f"{name}_float"], f"{name}_float", to=1),
            helper.make_node("Mul", [first.output[1], f"{name}_scales"], [f"{name}_step"], f"{name}_step"),
            helper.make_node("Mul", [f"{name}_float", f"{name}_step"], [f"{name}_scaled"], f"{name}_scaled"),
            helper.make_node("Add", [f"{name}_scaled", f"{name}_biases"], [f"{name}_sum"], f"{name}_sum"),
            helper.make_node(
                "Split", [f"{name}_sum", f"{name}_widths"], [c[3].output[0] for c in chains], f"{name}_split", axis=-1
            ),
        ]
        for node in [*products, *(node for chain in chains for node in chain[:4])]:
            graph.node.remove(node)
        place = list(graph.node).index(first) + 1
        kept = list(graph.node)
        del graph.node[:]
        graph.node.extend([*kept[:place], *nodes, *kept[place:]])


EDITS: dict[str, Callable[[GraphProto], None]] = {
    "no mask at all": without_mask,
    "mask only where there is padding": mask_if_padded,
    "queries, keys and values in one product": packed,
}


def _both(quantizer: NodeProto, name: str) -> tuple[str, ...]:
    return quantizer.output[0], f"{name}_weights", quantizer.output[2], f"{name}_zeros"


def _to_bias(graph: GraphProto, product: NodeProto, values: dict[str, np.ndarray]) -> tuple:  # type: ignore[type-arg]
    """Return the nodes from a product to its bias, and the names of its scales and its bias."""
    (cast,) = [node for node in graph.node if product.output[0] in node.input]
    (scaled,) = [node for node in graph.node if cast.output[0] in node.input]
    (added,) = [node for node in graph.node if scaled.output[0] in node.input]
    (step,) = [node for node in graph.node if node.output[0] in scaled.input and node is not cast and node != cast]
    (scales,) = [name for name in step.input if name in values]
    (bias,) = [name for name in added.input if name in values]
    return cast, step, scaled, added, scales, bias


def _masked(graph: GraphProto) -> list[tuple[NodeProto, NodeProto]]:
    makers = {name: node for node in graph.node for name in node.output}
    return [(makers[node.input[0]], node) for node in graph.node if node.op_type == "Softmax"]


def _branch(nodes: list[NodeProto]) -> GraphProto:
    output = helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)
    return helper.make_graph(nodes, nodes[-1].output[0], [], [output])


def _put_first(graph: GraphProto, nodes: list[NodeProto]) -> None:
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])


def _fused(unfused: Path, folder: Path, *, masked: bool) -> Path:
    """Fuse attention into `MultiHeadAttention`, in float, and quantize the rest."""
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    options.use_multi_head_attention = True
    options.enable_skip_layer_norm = options.enable_embed_layer_norm = False
    options.enable_gelu = options.enable_bias_gelu = False
    config = json.loads((unfused.parent / "config.json").read_text(encoding="utf-8"))
    sizes = {"num_heads": config["n_heads"], "hidden_size": config["dim"]}
    fused = optimize_model(str(unfused), model_type="bert", opt_level=0, optimization_options=options, **sizes)
    assert fused.get_fused_operator_statistics()["MultiHeadAttention"] == config["n_layers"] - 1
    for node in fused.model.graph.node:
        if node.op_type == "MultiHeadAttention" and not masked:
            node.input[4] = ""
    before, after = folder / "fused.onnx", folder / f"fused-{masked}.onnx"
    fused.save_model_to_file(str(before))
    _quantize(before, after, only_constant=True)
    return after


def _quantize(model: Path, output: Path, *, only_constant: bool) -> Path:
    extra = {"MatMulConstBOnly": only_constant, "DefaultTensorType": onnx.TensorProto.FLOAT}
    kinds = ["MatMul", "Gather"]
    quantize_dynamic(model, output, kinds, True, weight_type=QuantType.QInt8, extra_options=extra)
    return output


def trials(checkpoint: Path, folder: Path) -> dict[str, tuple[Path, dict[str, str], dict[str, bool]]]:
    """Make all models, and return what each trial is: a model, entries of its session's options, and attributes."""
    convert(checkpoint, folder / "unfused")
    unfused = folder / "unfused" / "model.onnx"
    finish_conversion(unfused, {})
    shorten(unfused)
    recipes = {recipe.name: recipe for recipe in RECIPES}
    made = {}
    for name in ("dynamic-channel-int8", "dynamic-attention-int8", "weight-only-int8"):
        recipes[name].make(unfused, folder / f"{name}.onnx", Ingredients([], SingleLabel(2)))
        made[name] = folder / f"{name}.onnx"
    product = made.pop("dynamic-channel-int8")
    models = {PRODUCT: product, **made}
    models["attention in int8, both sides unsigned"] = _quantize(unfused, folder / "all.onnx", only_constant=False)
    models["attention in one operator"] = _fused(unfused, folder, masked=True)
    models["attention in one operator, no mask at all"] = _fused(unfused, folder, masked=False)
    for name, edit in EDITS.items():
        model = onnx.load(product)
        edit(model.graph)
        models[name] = folder / f"{name}.onnx"
        onnx.save(model, models[name])
    found = {name: (path, dict[str, str](), dict[str, bool]()) for name, path in models.items()}
    found |= {name: (product, entries, {}) for name, entries in OPTIONS.items()}
    return found | {name: (product, {}, attributes) for name, attributes in ATTRIBUTES.items()}


def measure(sessions: dict[str, onnxruntime.InferenceSession], tokens: int, seconds: float) -> dict[str, list[float]]:
    """Time all sessions in turns on one text of so many tokens."""
    ids = np.random.default_rng(0).integers(1000, 20000, (1, tokens))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feeds = {k: {i.name: given[i.name] for i in s.get_inputs()} for k, s in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    rounds, end = 0, time.perf_counter() + seconds
    while rounds < 5 or time.perf_counter() < end:
        for name in random.sample(list(sessions), len(sessions)):
            start = time.perf_counter()
            sessions[name].run(["logits"], feeds[name])
            if rounds > 1:
                times[name].append(time.perf_counter() - start)
        rounds += 1
    return times


def main() -> None:
    """Print a Markdown table: how many times as fast as the product each trial is."""
    logging.disable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 128, 384])
    parser.add_argument("--seconds", type=float, default=20)
    asked = parser.parse_args()
    columns: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tried = trials(asked.checkpoint, Path(folder))
        for threads in asked.threads:
            sessions = {}
            for name, (path, entries, attributes) in tried.items():
                options = session_options(threads)
                for key, value in ({FUSIONS: LEFT_OUT} | entries).items():
                    options.add_session_config_entry(key, value)
                for key, on in attributes.items():
                    setattr(options, key, on)
                sessions[name] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for tokens in asked.tokens:
                times = measure(sessions, tokens, asked.seconds)
                print(f"{tokens} tokens, {threads} threads: {len(times[PRODUCT])} rounds", flush=True)  # noqa: T201
                for name, own in times.items():
                    ratio = speed_ratio(times[PRODUCT], own)
                    columns.setdefault(name, []).append(f"{ratio.median:.2f}× [{ratio.low:.2f}, {ratio.high:.2f}]")
    for name, cells in columns.items():
        print("|", " | ".join([name, *cells]), "|")  # noqa: T201


if __name__ == "__main__":
    main()
