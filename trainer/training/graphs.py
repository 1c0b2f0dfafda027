"""A training step as a CUDA graph: one launch in the place of some hundred, for which a small model's GPU would wait.

There is a graph for each width of a batch, so these have to be few, and a batch that is not full goes the usual way.
Where a model cannot be captured, or gives other answers then, all batches do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainer.progress import say
from trainer.training.frozen import SAME, logits_of

Batch = Mapping[str, torch.Tensor]

KERNELS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
"""Those for attention that take any shape at once. cuDNN's, which PyTorch prefers on newer GPUs, is a little faster and
plans each new shape for 40 ms: that pays in a graph."""


def for_attention(mask: torch.Tensor) -> torch.Tensor:
    """Return a mask, [rows, tokens], as transformers hands it on: into others it looks, and so waits for the device."""
    return mask[:, None, None, :].bool()


class Step(nn.Module):
    """What is captured: a batch's tensors in, in the order of `names`; its loss and logits out."""

    def __init__(self, model: nn.Module, names: Sequence[str], dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.names, self.dtype = model, names, dtype

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss, and logits in fp32, [texts, classes]."""
        batch = dict(zip(self.names, tensors, strict=True))
        batch["attention_mask"] = for_attention(batch["attention_mask"])
        device = batch["attention_mask"].device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32, cache_enabled=False):
            output = self.model(**batch)
        return output.loss.float(), output.logits.float()


Capture = Callable[[Step, tuple[torch.Tensor, ...], Any], Step]
"""Takes a step, the tensors of a batch, and the memory that all graphs share; returns the step that is replayed."""


def takes_wide_mask(model: nn.Module, batch: Batch) -> bool:
    """Return whether a model in fp32 gives a padded batch the same logits when its mask comes ready for attention."""
    expected = logits_of(model, batch)
    try:
        logits = logits_of(model, {**batch, "attention_mask": for_attention(batch["attention_mask"])})
    except Exception:  # whatever a model does with a mask that it does not expect
        return False
    return bool(torch.allclose(logits, expected, rtol=SAME, atol=SAME))


def capture(step: Step, tensors: tuple[torch.Tensor, ...], pool: Any) -> Step:
    """Capture a step on a CUDA device, forwards and backwards, with every kernel of attention to choose from.

    Raises:
        RuntimeError: it waits for the device somewhere, which a graph cannot, or takes too much memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that this check may miss something: then the capture fails
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(*tensors)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    with sdpa_kernel([*KERNELS, SDPBackend.CUDNN_ATTENTION]):
        graphed: Step = torch.cuda.make_graphed_callables(step, tensors, allow_unused_input=True, pool=pool)
    return graphed


class GraphTrainer(transformers.Trainer):
    """A Trainer whose steps are graphs where batches have one of the captured shapes."""

    steps: dict[torch.Size, Step]
    """By the shape of `input_ids`."""

    def __init__(self, **kwargs: Any) -> None:
        self.steps = {}
        super().__init__(**kwargs)

    def capture(self, batches: Iterable[Batch], dtype: torch.dtype, capture: Capture = capture) -> None:
        """Capture a step for the shape of each batch, if there is a single device and no accumulation.

        A graph's gradients are written to where they were before, so that none could be added to them.
        """
        if self.args.world_size > 1 or self.args.n_gpu > 1 or self.args.gradient_accumulation_steps > 1:
            return
        pool = torch.cuda.graph_pool_handle() if self.args.device.type == "cuda" else None
        self.model.train()
        try:
            for batch in sorted(batches, key=lambda batch: -batch["input_ids"].numel()):  # the others use its memory
                inputs = {name: tensor.to(self.args.device) for name, tensor in batch.items()}
                step = Step(self.model, list(inputs), dtype)
                self.steps[inputs["input_ids"].shape] = capture(step, tuple(inputs.values()), pool)
        except RuntimeError as error:
            self.steps = {}
            say(f"training without CUDA graphs: {str(error).splitlines()[0]}")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a batch, and what else its model gives where asked."""
        step = self.steps.get(inputs["input_ids"].shape) if torch.is_grad_enabled() else None
        if step is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, logits = step(*(inputs[name] for name in step.names))
        outputs = {"loss": loss, "logits": logits}
        if self.compute_loss_func:
            loss = self.compute_loss_func(outputs, inputs["labels"], num_items_in_batch=num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002
        """Count none: nobody reads them, and counting walks through the model in every step."""
        return 0
