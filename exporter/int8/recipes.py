"""ONNX to int8, one recipe a function.

All but one quantize the products with a constant matrix, and the embeddings, which are most of a small model's bytes; a
recipe says which matrices it leaves in float all the same. The products of two activations inside attention stay in
float, where quantizing costs accuracy, except in a recipe of its own. So do convolutions, of which onnxruntime has none
with signed weights. All start from the unfused graph: with int8 weights, fused attention was the slower one (6 layers
of 384: 1.9 to 2.3 times as fast as fp32, unfused 2.1 to 2.6; 4 layers of 256 alike).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from exporter.bundle.artifact import EngineName, Precision
from exporter.config import Quantize
from exporter.engines import openvino
from exporter.engines.onnxruntime import PROVIDERS, Feeds, session_options
from exporter.engines.spec import is_installed
from exporter.int8.attention import quantize_attention
from exporter.int8.weights import PRODUCTS, products_in_float
from exporter.records import Family
from trainer.tasks import FloatArray, Task

TYPES = ["MatMul", "Gather"]
ONLY_CONSTANT = {"MatMulConstBOnly": True}
BLOCKS = (256, 128, 64, 32)
"""How many weights may share a scale in the weight-only recipe: the most that fill whole blocks."""
MOST_SENSITIVE = 0.25
"""At most this share of the matrices stays in float in the mixed recipe."""
SENSITIVE_DIVERGENCE = 0.5
"""And no more than cause this share of the divergence, the most sensitive first."""


@dataclass(frozen=True)
class Ingredients:
    """What a recipe may use besides the model."""

    calibration: Sequence[Feeds]
    """The model's inputs for some training texts, one text each, unpadded."""
    task: Task
    """What the model's logits mean."""
    threads: int = 1
    """For the calls of a model that a recipe makes itself."""
    reduce_range: bool = False
    """Use 7 of the 8 bits: without VNNI, x86 adds products of bytes in 16 bits, and the sum can overflow."""
    deadline: float = math.inf
    """When to give up a search, by the monotonic clock."""


Make = Callable[[Path, Path, Ingredients], Sequence[str]]


@dataclass(frozen=True)
class Recipe:
    """One way to quantize: `make(model, output, ingredients)` writes the int8 model to `output`.

    It returns the nodes whose constant matrix it leaves in float on purpose.
    """

    name: str
    family: Family
    make: Make
    needs: str | None = None
    """A package that has to be installed for it."""
    keeps_weights: bool = True
    """Whether its weights are those of the model, rounded: SmoothQuant rescales them first."""
    clips: bool = False
    """Whether it lets rare activations fall out of their range."""
    reduces_range: bool = True
    """Whether it can keep weights to 7 bits, or does not need to."""
    engine: EngineName = "onnxruntime"
    """What its model is for: what proves and measures it here, and runs it where it is deployed."""

    @property
    def precision(self) -> Precision:
        """What its model computes in."""
        return "bf16" if self.family == "bf16" else "int8"

    def is_usable(self) -> bool:
        """Tell whether what it needs is installed."""
        return self.needs is None or is_installed(self.needs)


def dynamic(
    model: Path,
    output: Path,
    ingredients: Ingredients,
    *,
    per_channel: bool,
    weight_type: QuantType,
    leave: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Sequence[str]:
    """Quantize weights ahead of time, and activations when the model runs, by the range that each call has.

    Optimum's quantizer cannot leave the products of activations out (it does not pass `MatMulConstBOnly` on), hence
    onnxruntime's own.
    """
    with _without_advice():
        quantize_dynamic(
            model,
            output,
            op_types_to_quantize=TYPES,
            per_channel=per_channel,
            reduce_range=ingredients.reduce_range,
            weight_type=weight_type,
            nodes_to_exclude=list(leave),
            nodes_to_quantize=list(only),
            extra_options=ONLY_CONSTANT,
        )
    return leave


def with_attention(model: Path, output: Path, ingredients: Ingredients) -> Sequence[str]:
    """Quantize dynamically per channel, the products of two activations too."""
    half_done = output.with_suffix(".attention.onnx")
    quantize_attention(model, half_done, reduce_range=ingredients.reduce_range)
    left = dynamic(half_done, output, ingredients, per_channel=True, weight_type=QuantType.QInt8)
    half_done.unlink()
    return left


def mixed(
    model: Path, output: Path, ingredients: Ingredients, *, quantize: Callable[..., Sequence[str]]
) -> Sequence[str]:
    """Quantize with another recipe, but leave the most sensitive matrices in float."""
    products = constant_products(model)
    spared = most_sensitive(sensitivities(model, output.with_suffix(".probe.onnx"), ingredients))
    leave = [node for matrix in spared for node in products[matrix]]
    return quantize(model, output, ingredients, leave=leave)


def static(
    model: Path,
    output: Path,
    ingredients: Ingredients,
    *,
    method: CalibrationMethod,
    keeps_sums: bool = False,
    leave: Sequence[str] = (),
) -> Sequence[str]:
    """Quantize weights per channel and activations by ranges measured on training texts, in QDQ format.

    Unsigned activations and signed weights are what x86 multiplies fastest. What a product returns is not rounded:
    that costs accuracy and time. In this format, onnxruntime's quantizer ignores `MatMulConstBOnly`. With `keeps_sums`,
    the sums that run past each layer are not rounded either, which is more accurate; onnxruntime is slower with it.
    """
    with _without_advice():
        quantize_static(
            model,
            output,
            _Reader(ingredients.calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=TYPES,
            per_channel=True,
            reduce_range=ingredients.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            nodes_to_exclude=[*products_of_activations(model), *leave],
            # Text by text: they differ in length, and their activations do not have to fit into memory together.
            extra_options={"CalibStridedMinMax": 1, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
    if keeps_sums:
        round_only_for_products(output)
    return leave


def round_only_for_products(path: Path) -> None:
    """Let everything but the products of a model in QDQ format take activations as they were before rounding.

    onnxruntime's quantizer hands the rounded ones to all, the sums that run past each layer among them.
    """
    model = onnx.load(path)
    graph = model.graph
    before = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    rounded = {
        node.output[0]: before[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in before
    }
    for node in graph.node:
        if node.op_type not in PRODUCTS:
            node.input[:] = [rounded.get(name, name) for name in node.input]
    for operator in ("DequantizeLinear", "QuantizeLinear"):  # those that nobody reads any more
        used = {name for node in graph.node for name in node.input}
        for node in [n for n in graph.node if n.op_type == operator and n.output[0] not in used]:
            graph.node.remove(node)
    onnx.save(model, path)


def smooth_quant(model: Path, output: Path, ingredients: Ingredients) -> Sequence[str]:
    """Quantize statically after moving outliers from activations to weights, as NNCF does for transformers.

    Source: Xiao et al. 2023, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
    Models".
    """
    os.environ["NNCF_CI"] = "1"  # its switch for sending no usage statistics; read when it is imported
    import nncf

    nncf.set_log_level(logging.ERROR)
    with _without_advice():
        quantized = nncf.quantize(
            onnx.load(model),
            nncf.Dataset(ingredients.calibration),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(ingredients.calibration),
        )
    onnx.save(quantized, output)
    return ()


def weight_only(model: Path, output: Path, ingredients: Ingredients) -> Sequence[str]:  # noqa: ARG001
    """Quantize weights in blocks, and activations, if at all, row by row, so that no answer depends on its batch."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with _without_advice():
        quantize_dynamic(model, output, op_types_to_quantize=["Gather"], weight_type=QuantType.QInt8)
        quantizer = MatMulNBitsQuantizer(
            onnx.load(output), bits=8, block_size=block_size(model), is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
    onnx.save(quantizer.model.model, output)
    return ()


def as_it_is(model: Path, output: Path, ingredients: Ingredients) -> Sequence[str]:  # noqa: ARG001
    """Copy the model: what it is computed in is the engine's business."""
    shutil.copyfile(model, output)
    return products_in_float(onnx.load(model).graph)


def block_size(model: Path) -> int:
    """Return how many weights share a scale: the largest block that leaves none half filled, the smallest otherwise."""
    multiplied = constant_products(model)
    initializers = onnx.load(model, load_external_data=False).graph.initializer
    heights = [weights.dims[0] for weights in initializers if weights.name in multiplied]
    return next((block for block in BLOCKS if not any(height % block for height in heights)), BLOCKS[-1])


DYNAMIC = partial(dynamic, per_channel=True, weight_type=QuantType.QInt8)
STATIC = partial(static, method=CalibrationMethod.MinMax)
STATIC_OPENVINO = partial(STATIC, keeps_sums=True)
SMOOTHQUANT = Recipe(
    "static-smoothquant", "static", smooth_quant, needs="nncf", keeps_weights=False, reduces_range=False
)

RECIPES = (
    Recipe("dynamic-channel-int8", "dynamic", DYNAMIC),
    Recipe("static-minmax-openvino", "static", STATIC_OPENVINO, engine="openvino"),
    Recipe("bf16-openvino", "bf16", as_it_is, keeps_weights=False, engine="openvino"),
    Recipe("weight-only-int8", "weight-only", weight_only),
    Recipe("static-minmax", "static", STATIC),
    Recipe("dynamic-tensor-int8", "dynamic", partial(dynamic, per_channel=False, weight_type=QuantType.QInt8)),
    Recipe("dynamic-channel-uint8", "dynamic", partial(dynamic, per_channel=True, weight_type=QuantType.QUInt8)),
    Recipe("dynamic-tensor-uint8", "dynamic", partial(dynamic, per_channel=False, weight_type=QuantType.QUInt8)),
    Recipe("static-percentile", "static", partial(static, method=CalibrationMethod.Percentile), clips=True),
    Recipe("static-entropy", "static", partial(static, method=CalibrationMethod.Entropy), clips=True),
    SMOOTHQUANT,
    replace(SMOOTHQUANT, name="static-smoothquant-openvino", engine="openvino"),
    Recipe("dynamic-attention-int8", "dynamic", with_attention),
    Recipe("dynamic-mixed", "dynamic", partial(mixed, quantize=DYNAMIC)),
    Recipe("static-mixed-openvino", "static", partial(mixed, quantize=STATIC_OPENVINO), engine="openvino"),
)
"""The ladder, the most promising first: a search that runs out of time has tried those. The mixed ones try every matrix
alone and take the longest."""


def of_family(recipes: Sequence[Recipe], family: Quantize, *, reduce_range: bool) -> list[Recipe]:
    """Return the recipes of a family, or all; only those that can keep weights to 7 bits where that is asked for.

    Those for an engine that is not installed are left out.
    """
    of_it = [r for r in recipes if family in ("auto", r.family) and (r.reduces_range or not reduce_range)]
    return [r for r in of_it if r.engine == "onnxruntime" or _is_for_this_machine(r)]


def _is_for_this_machine(recipe: Recipe) -> bool:
    return is_installed(recipe.engine) and (recipe.family != "bf16" or openvino.computes_in_bf16())


def sensitivities(model: Path, probe: Path, ingredients: Ingredients) -> dict[str, float]:
    """Measure how far quantizing one matrix alone, wherever it is multiplied by, moves the answers.

    Args:
        model: the ONNX model in fp32.
        probe: where to keep the model under test; removed afterwards.
        ingredients: the texts to measure on.

    Returns:
        For each constant matrix: mean KL divergence of the probabilities from fp32's, in nats.

    Raises:
        TimeoutError: the deadline came first.
    """
    reference = _logits(model, ingredients)
    found = {}
    for matrix, nodes in constant_products(model).items():
        if time.monotonic() > ingredients.deadline:
            probe.unlink(missing_ok=True)
            raise TimeoutError
        dynamic(model, probe, ingredients, per_channel=True, weight_type=QuantType.QInt8, only=nodes)
        found[matrix] = ingredients.task.divergence(reference, _logits(probe, ingredients))
    probe.unlink(missing_ok=True)
    return found


def most_sensitive(found: dict[str, float]) -> list[str]:
    """Choose the matrices to leave in float: those that together cause half of the divergence, but not too many."""
    ranked = sorted(found, key=lambda matrix: -found[matrix])
    chosen: list[str] = []
    for matrix in ranked[: max(1, int(MOST_SENSITIVE * len(ranked)))]:
        if sum(found[name] for name in chosen) >= SENSITIVE_DIVERGENCE * sum(found.values()):
            break
        chosen.append(matrix)
    return chosen


def constant_products(model: Path) -> dict[str, list[str]]:
    """Return the constant matrices with the nodes that multiply by each, in the order of the graph.

    More than one node does where layers share their weights.
    """
    graph = onnx.load(model, load_external_data=False).graph
    constants = {weights.name for weights in graph.initializer}
    found: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            found.setdefault(node.input[1], []).append(node.name)
    return found


def products_of_activations(model: Path) -> list[str]:
    """Return the products of two activations: those inside attention."""
    graph = onnx.load(model, load_external_data=False).graph
    constant = {*products_in_float(graph)}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.name not in constant]


def _logits(model: Path, ingredients: Ingredients) -> FloatArray:
    session = onnxruntime.InferenceSession(model, session_options(ingredients.threads), providers=[PROVIDERS["cpu"]])
    return np.concatenate([session.run(["logits"], feeds)[0] for feeds in ingredients.calibration])


class _Reader(CalibrationDataReader):
    """Hands texts to a calibrator, a slice at a time."""

    def __init__(self, texts: Sequence[Feeds]) -> None:
        self._texts = texts
        self._left: Iterator[Feeds] = iter(texts)

    def __len__(self) -> int:
        return len(self._texts)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._texts[start_index:end_index])

    def get_next(self) -> Any:
        return next(self._left, None)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keep the quantizers' remarks, hundreds of lines, off the terminal; what fails is raised all the same."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(before)
