"""fp32 to half precision for GPUs, one recipe a line; inputs and logits stay as they are.

bf16 is not among them: onnxruntime's fused attention takes fp16 and fp32 alone, and its converter knows no bf16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.convert.graph import to_half

NORMALISATIONS = ("LayerNormalization", "SkipLayerNormalization")
"""They sum squares, which is where half precision overflows first."""


@dataclass(frozen=True)
class HalfRecipe:
    """One way to half precision."""

    name: str
    fuses: bool
    """Whether attention, normalisations and activations become one operator each, where onnxruntime can."""
    in_fp32: Sequence[str] = ()
    """Operators that stay in fp32."""

    def make(self, model: Path, output: Path, checkpoint: Path, *, shortened: bool) -> dict[str, int]:
        """Write the model to `output`; see `to_half`.

        Returns:
            What was fused.
        """
        return to_half(model, output, checkpoint, fuse_graph=self.fuses, shortened=shortened, in_fp32=self.in_fp32)


HALF_RECIPES = (
    HalfRecipe("fp16-fused", fuses=True),
    HalfRecipe("fp16-fused-norms-fp32", fuses=True, in_fp32=NORMALISATIONS),
    HalfRecipe("fp16-unfused", fuses=False),
)
