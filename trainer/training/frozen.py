"""What is frozen costs no more than it has to: it runs as at inference, and is held in the precision of the training.

Saved is none of it, so what a run leaves does not change: the adapter and the head, in fp32, on top of the checkpoint
as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel

SAME = 2e-5
"""How far logits in fp32 may be apart that are the same but for the order of sums."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def settle_frozen(model: PeftModel, device: str, precision: str) -> None:
    """Prepare a model for training: its frozen weights are cast once, and its encoder drops nothing but LoRA's inputs.

    Under autocast, frozen weights would be cast in every step. For bf16 all of them are cast, so that what flows from
    layer to layer is in bf16, too; for fp16 those of products alone, since sums could leave its range.

    A dropout in a layer that does not learn only adds noise, its masks take a CPU longer than the products beside them,
    and in attention it rules out the fast kernel.
    """
    encoder = model.get_base_model().base_model
    for module in encoder.modules():
        for weight in module.parameters(recurse=False):
            if not weight.requires_grad and (precision != "fp16" or isinstance(module, nn.Linear)):
                weight.data = weight.data.to(DTYPES[precision])
    dropouts = []
    for layer in encoder.modules():
        if inputs := getattr(layer, "lora_dropout", None):
            layer.cast_input_dtype_enabled = False  # autocast does, and fp32 on the way would be written for nothing
            if device == "cpu":
                inputs.update({name: QuickDropout(d.p) for name, d in inputs.items() if isinstance(d, nn.Dropout)})
            dropouts += inputs.values()
    encoder.eval()

    def train(mode: bool = True) -> nn.Module:
        for dropout in dropouts:
            dropout.train(mode)
        return encoder

    encoder.train = train


def shorten_last_layer(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> bool:
    """Let the last layer's feed-forward part see the first token alone, if a padded batch has the same logits then.

    Of a classifier that reads the first token, nobody reads what this part makes of the others: two thirds of the
    products of the layer. What it gives is added to each of them then, and is right for the first.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    named = max(layers, key=len)[-1].named_modules() if layers else ()
    linears = [m for name, m in named if isinstance(m, nn.Linear) and "lora_" not in name]
    if not linears:
        return False
    widest = max(linears, key=lambda linear: linear.out_features)
    with _as_if_trained(model):
        before = logits_of(model, batch)
        hook = widest.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :1], *inputs[1:]))
        try:
            is_same = bool(torch.allclose(logits_of(model, batch), before, rtol=SAME, atol=SAME))
        except (RuntimeError, ValueError, IndexError):  # a layer of another shape
            is_same = False
    if not is_same:
        hook.remove()
    return is_same


@contextmanager
def _as_if_trained(model: nn.Module) -> Iterator[None]:
    """Move the weights that learn meanwhile: LoRA's second matrices are 0 at first, and hide what goes into them."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    before, generator = [weight.detach().clone() for weight in weights], torch.Generator().manual_seed(0)
    try:
        for weight in weights:
            weight.data += 0.02 * torch.randn(weight.shape, generator=generator).to(weight)
        yield
    finally:
        for weight, own in zip(weights, before, strict=True):
            weight.data.copy_(own)


def logits_of(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return a model's logits as in evaluation, and leave it in the state in which it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():  # not inference mode: training would fail on what a model keeps from it
            logits: torch.Tensor = model(**batch).logits
    finally:
        model.train(was_training)
    return logits


class QuickDropout(nn.Module):
    """Dropout whose masks are quick to draw on a CPU: one random number for four elements, not one for each.

    What is dropped is a share of 16 bits, as near as that comes to `p`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropped = min(round(p * 2**16), 2**16 - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` with some elements 0 and the others larger for it, or as it is in evaluation."""
        if not self.training:
            return x
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = drawn[: x.numel()].view(x.shape) >= self.dropped - 2**15
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - self.dropped))
