"""ONNX to int8, one recipe a function."""

from __future__ import annotations

import logging
from pathlib import Path


def dynamic_int8(model: Path, output: Path) -> None:
    """Quantize weights to int8 per output channel; activations are quantized when the model runs.

    Only products with a constant matrix are quantized, and the embeddings, which are most of a small model's bytes.
    The products of two activations inside attention stay in float: there, quantizing costs accuracy. Optimum's
    quantizer cannot leave them out (it does not pass `MatMulConstBOnly` on), hence onnxruntime's own.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().addFilter(_is_not_advice)
    try:
        quantize_dynamic(
            model,
            output,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.getLogger().removeFilter(_is_not_advice)


def _is_not_advice(record: logging.LogRecord) -> bool:
    """Drop the quantizer's advice, given on every call, to run its pre-processing first."""
    return "pre-processing before quantization" not in record.getMessage()
