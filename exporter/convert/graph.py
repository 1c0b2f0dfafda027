"""The fp32 graph: one kind of matrix product for the quantizers, fused and counted layers for the target."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx

from trainer.architectures import architecture_of
from trainer.errors import UserError


def finish_conversion(model: Path, metadata: dict[str, str]) -> None:
    """Split products from sums, so that each quantizer finds all of them, and write what running the model takes.

    A head left in fp32 because it is a `Gemm`, not a `MatMul` and an `Add`, costs DistilBERT 1.8 MB. The metadata is
    for runtimes that get nothing but the file; fusing and quantizing keep it.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    graph = ONNXModel(onnx.load(model))
    graph.replace_gemm_with_matmul()
    graph.clean_initializers()
    onnx.helper.set_model_props(graph.model, metadata)
    onnx.save(graph.model, model)


def fuse(model: Path, output: Path, checkpoint: Path, *, half: bool = False) -> dict[str, int]:
    """Fuse attention and activation functions; for CPUs, or for GPUs in half precision.

    On CPUs, residual sums stay apart from their layer normalisations: fused, they made the graph slower in every case
    measured (6 layers of 384 and 4 of 256, fp32: 0.87 to 0.97 of the unfused graph's speed, against 0.96 to 1.08
    without).

    Args:
        model: the converted ONNX model.
        output: where to write the fused one.
        checkpoint: the checkpoint that it was converted from.
        half: whether to write it in half precision, with all that onnxruntime fuses for GPUs.

    Returns:
        How many operators of each kind came out; empty, and nothing written, where onnxruntime cannot fuse this
        architecture's attention.

    Raises:
        UserError: it can, but did not find every attention layer in this graph.
    """
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
    counts = {name: count for name, count in fused.get_fused_operator_statistics().items() if count}
    attention = counts.get("Attention", 0) + counts.get("MultiHeadAttention", 0)
    if attention != config.num_hidden_layers:
        raise UserError(
            f"onnxruntime fused {attention} of the {config.num_hidden_layers} attention layers of this "
            f"`{config.model_type}`",
            "add `--no-fuse`, and report this as a bug",
        )
    if half:
        fused.convert_float_to_float16(keep_io_types=True)
    fused.save_model_to_file(str(output))
    return counts


def to_half(model: Path, output: Path, checkpoint: Path, *, fuse_graph: bool) -> dict[str, int]:
    """Write a model in half precision, fused where onnxruntime can; logits stay fp32.

    Returns:
        What was fused, as `fuse` counts it.

    Raises:
        UserError: see `fuse`.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    fused = fuse(model, output, checkpoint, half=True) if fuse_graph else {}
    if not fused:
        onnx.save(convert_float_to_float16(onnx.load(model), keep_io_types=True), output)
    return fused
