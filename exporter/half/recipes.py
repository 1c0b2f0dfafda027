"""fp32 to half precision for GPUs, one recipe a line; inputs and logits stay as they are.

bf16 is not among them: onnxruntime's fused attention takes fp16 and fp32 alone, and its converter knows no bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exporter.bundle.artifact import MODEL
from exporter.convert.graph import to_half
from exporter.convert.merge import copy_around_model

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


@dataclass(frozen=True)
class Source:
    """What half precision is made from; each recipe leaves a folder of its name beside it."""

    unfused: Path
    """The folder of the model to convert, and the name of its step in the proof."""
    checkpoint: Path
    """What that was converted from."""
    shortened: bool
    """Whether its last layer works for the first token alone."""
    pairs: bool
    """Whether it reads pairs of texts."""

    def folder_of(self, recipe: HalfRecipe) -> Path:
        """Return the recipe's folder."""
        return self.unfused.with_name(recipe.name)

    def prepare(self, recipe: HalfRecipe) -> Callable[[], dict[str, int]]:
        """Make the recipe's folder, and return what writes the model there; see `HalfRecipe.make`."""
        folder = self.folder_of(recipe)
        copy_around_model(self.unfused, folder)
        return partial(recipe.make, self.unfused / MODEL, folder / MODEL, self.checkpoint, shortened=self.shortened)


HALF_RECIPES = (
    HalfRecipe("fp16-fused", fuses=True),
    HalfRecipe("fp16-fused-norms-fp32", fuses=True, in_fp32=NORMALISATIONS),
    HalfRecipe("fp16-unfused", fuses=False),
)
