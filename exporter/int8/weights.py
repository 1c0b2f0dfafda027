"""Are the numbers in an int8 model those of the fp32 one? Weights, what stayed in float, and ranges of activations.

Answers alone would not show it: on a small evaluation set a damaged scale of an inner layer can pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx.numpy_helper import to_array

from exporter.engines.onnxruntime import PROVIDERS, Feeds, session_options
from exporter.proof.verify import UNTOUCHED, VerificationError

HALF_STEP = 0.505
"""Rounding to the nearest step is off by half of one; the rest is for the rounding of the scale itself."""

PRODUCTS = ("MatMul", "Gemm", "Einsum")
"""What multiplies float matrices."""

LEAST_KEPT = 0.05
"""Share of an activation's measured range that clipping leaves at least: outliers may be most of the range."""

Array = npt.NDArray[np.float32]


class LeftInFloatError(Exception):
    """A quantizer passed by a product that its recipe was to quantize."""


def check_quantized(quantized: Path, leave: Collection[str]) -> None:
    """Check that of all products with a constant matrix only those of `leave` are in float.

    Quantizers pass by what they do not recognise, without a word, and the file is hardly smaller.

    Raises:
        LeftInFloatError: others are.
    """
    left = [node for node in products_in_float(onnx.load(quantized).graph) if node not in leave]
    if left:
        raise LeftInFloatError(f"left {len(left)} of the products with a constant matrix in float, such as `{left[0]}`")


def products_in_float(graph: onnx.GraphProto) -> list[str]:
    """Return the products by a matrix that follows from constants alone and is never dequantized."""
    constants = {"", *(tensor.name for tensor in graph.initializer)}  # optional inputs that are left out have no name
    for node in graph.node:
        if node.op_type != "DequantizeLinear" and constants.issuperset(node.input):
            constants.update(node.output)
    return [node.name for node in graph.node if node.op_type in PRODUCTS and node.input[1] in constants]


def check_weights(original: Path, quantized: Path, name: str) -> int:
    """Compare the weights of an int8 model with the fp32 weights that they were made from.

    Every quantized one has to lie within half a step of its original, and what stayed in float has to be unchanged.

    Args:
        original: the ONNX model in fp32.
        quantized: the int8 model, quantized by onnxruntime.
        name: what messages call it.

    Returns:
        How many matrices were compared.

    Raises:
        VerificationError: a weight is elsewhere, or nothing could be compared.
    """
    before = {tensor.name: tensor for tensor in onnx.load(original).graph.initializer}
    graph = onnx.load(quantized).graph
    after = {tensor.name: tensor for tensor in graph.initializer}
    axes = {
        node.input[0]: onnx.helper.get_attribute_value(attribute)
        for node in graph.node
        for attribute in node.attribute
        if (node.op_type, attribute.name) == ("DequantizeLinear", "axis")
    }
    compared = 0
    for tensor in after.values():
        if tensor.name.endswith("_quantized"):
            steps = _steps_off(tensor, before, after, axes.get(tensor.name, -1))
        elif tensor.name.endswith("_Q8"):
            steps = _block_steps_off(tensor, before, after)
        else:
            if tensor.name in before and not np.array_equal(_array(tensor), _array(before[tensor.name])):
                raise VerificationError(
                    f"`{name}` has a different `{tensor.name}` than the model it was made from", UNTOUCHED
                )
            continue
        compared += 1
        if not steps <= HALF_STEP:
            raise VerificationError(
                f"`{name}` does not hold the weights it was made from: `{tensor.name}` is up to {steps:.3g} steps of "
                f"its scale away from the fp32 weights, tolerance {HALF_STEP:g}",
                UNTOUCHED,
            )
    if not compared:
        raise VerificationError(f"`{name}` holds no int8 weight", UNTOUCHED)
    return compared


def check_ranges(
    original: Path, quantized: Path, calibration: Sequence[Feeds], name: str, *, clips: bool, threads: int = 1
) -> int:
    """Compare the ranges in which a statically quantized model keeps its activations with those of the fp32 model.

    Args:
        original: the ONNX model in fp32.
        quantized: the int8 model, quantized by onnxruntime.
        calibration: the inputs that its ranges were measured on.
        name: what messages call it.
        clips: whether a range may be narrower than what was measured, as an entropy's or a percentile's is.
        threads: for the calls of the fp32 model.

    Returns:
        How many activations were compared.

    Raises:
        VerificationError: a range is elsewhere, or nothing could be compared.
    """
    graph = onnx.load(quantized).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    looked_up = {node.output[0] for node in graph.node if node.op_type == "Gather"}  # in the scale of its whole table
    scales = {node.input[0]: node.input[1:3] for node in graph.node if node.op_type == "QuantizeLinear"}
    scales = {name: parts for name, parts in scales.items() if name not in values.keys() | looked_up}
    for activation, (least, most) in _measured_ranges(original, list(scales), calibration, threads).items():
        if least == most == 0:
            continue  # nothing to keep: onnxruntime takes any scale
        scale, zero = (float(_array(values[part])) for part in scales[activation])
        kept = (-zero * scale, (255 - zero) * scale)
        widest = max(-least, most)
        wanted = (
            (-widest, widest) if clips else (min(least, 0.0), max(most, 0.0))
        )  # clipping, it may take both sides alike
        step = scale + 1e-3 * (wanted[1] - wanted[0])
        is_inside = wanted[0] - step <= kept[0] < kept[1] <= wanted[1] + step
        if clips:
            is_wide_enough = kept[1] - kept[0] >= LEAST_KEPT * (most - least)
        else:
            is_wide_enough = kept[0] <= wanted[0] + step and kept[1] >= wanted[1] - step
        if not (is_inside and is_wide_enough):
            raise VerificationError(
                f"`{name}` limits `{activation}` to {kept[0]:.3g} … {kept[1]:.3g}, but {least:.3g} … {most:.3g} was "
                "measured",
                UNTOUCHED,
            )
    if not scales:
        raise VerificationError(f"`{name}` holds no quantized activation", UNTOUCHED)
    return len(scales)


def _measured_ranges(
    model: Path, names: list[str], calibration: Sequence[Feeds], threads: int
) -> dict[str, tuple[float, float]]:
    """Return the least and the largest value of intermediate results."""
    graph = onnx.load(model)
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    model_bytes, options = graph.SerializeToString(), session_options(threads)
    session = onnxruntime.InferenceSession(model_bytes, options, providers=[PROVIDERS["cpu"]])
    found = dict.fromkeys(names, (np.inf, -np.inf))
    for feeds in calibration:
        for name, values in zip(names, session.run(names, feeds), strict=True):
            least, most = found[name]
            found[name] = (min(least, float(values.min())), max(most, float(values.max())))
    return found


def _steps_off(
    tensor: onnx.TensorProto, before: dict[str, onnx.TensorProto], after: dict[str, onnx.TensorProto], axis: int
) -> float:
    """Return the largest distance of a weight from its original, in steps of its scale.

    Where each channel has a scale, `axis` tells which the channels are.
    """
    base = tensor.name.removesuffix("_quantized")
    weights = _array(before[base])
    codes = _array(tensor)
    scale, zero = _array(after[f"{base}_scale"]), _array(after[f"{base}_zero_point"])
    if scale.size > 1:
        shape = [1] * weights.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return float(np.abs((codes - zero) - weights / scale).max())


def _block_steps_off(
    tensor: onnx.TensorProto, before: dict[str, onnx.TensorProto], after: dict[str, onnx.TensorProto]
) -> float:
    """Return the same for `MatMulNBits`: codes [columns, blocks, block] around 128, scales [columns, blocks].

    Source: onnxruntime's documentation of the contrib operator `MatMulNBits`.
    """
    base = tensor.name.removesuffix("_Q8")
    weights = _array(before[base])
    codes = _array(tensor)
    scale = _array(after[f"{base}_scales"]).reshape(codes.shape[0], -1, 1)
    # A scale can be negative: its sign makes -128 the code of a block's largest weight. The code of an equally large
    # weight of the other sign would be 128, and is cut to 127.
    off = np.abs((codes - 128) * scale - _blocks(weights, codes.shape)) / np.where(scale == 0, 1, np.abs(scale))
    off[codes == 255] -= 0.5
    return float(off.reshape(codes.shape[0], -1)[:, : weights.shape[0]].max())


def _blocks(weights: Array, shape: tuple[int, ...]) -> Array:
    """Cut columns into blocks; the last one is filled up."""
    columns = np.zeros((shape[0], shape[1] * shape[2]), dtype=np.float32)
    columns[:, : weights.shape[0]] = weights.T
    return columns.reshape(shape)


def _array(tensor: onnx.TensorProto) -> Array:
    return np.asarray(to_array(tensor), dtype=np.float32)
