"""What the project knows about each model architecture, in one table; `docs/architectures.md` says how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """What differs between models of one `model_type` and those of another. The defaults hold for unknown ones."""

    lora_targets: tuple[str, ...] = ()
    """The layers that LoRA adapts by default: query and value, as in Hu et al. 2021, section 4.2. Empty: unknown."""
    fused_as: str | None = None
    """The `model_type` under which onnxruntime's optimizer fuses its attention, None where it cannot."""
    layers_key: str = "num_hidden_layers"
    """What its `config.json` calls the number of layers."""
    width_key: str = "hidden_size"
    """What its `config.json` calls the width of the hidden states."""
    takes_token_types: bool = True
    """Whether its forward pass accepts `token_type_ids`."""

    def shape(self, config: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the number of layers and the width, None where a parsed `config.json` does not have them."""
        layers, width = config.get(self.layers_key), config.get(self.width_key)
        return (int(layers), int(width)) if layers and width else None


_QUERY_VALUE = ("query", "value")

ARCHITECTURES = {
    "albert": Architecture(_QUERY_VALUE),
    "bert": Architecture(_QUERY_VALUE, fused_as="bert"),
    "camembert": Architecture(_QUERY_VALUE, fused_as="bert"),
    "deberta": Architecture(("in_proj",)),  # query, key and value are one matrix
    "deberta-v2": Architecture(("query_proj", "value_proj")),
    "distilbert": Architecture(
        ("q_lin", "v_lin"), fused_as="bert", layers_key="n_layers", width_key="dim", takes_token_types=False
    ),
    "electra": Architecture(_QUERY_VALUE, fused_as="bert"),
    "modernbert": Architecture(("Wqkv",), takes_token_types=False),  # query, key and value are one matrix
    "mpnet": Architecture(("attn.q", "attn.v"), takes_token_types=False),
    "roberta": Architecture(_QUERY_VALUE, fused_as="bert"),
    "xlm-roberta": Architecture(_QUERY_VALUE, fused_as="bert"),
}
"""By the `model_type` in `config.json`."""


def architecture_of(model_type: str) -> Architecture:
    """Return what is known about an architecture; for an unknown one, what holds for most."""
    return ARCHITECTURES.get(model_type, Architecture())
