"""A smaller model out of a larger one: some of its layers, and everything around them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from torch import nn

from trainer.errors import UserError
from trainer.model.untrusted import first_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def evenly(layers: int, kept: int) -> list[int]:
    """Return which of so many layers are kept, at even distances, the first and the last among them.

    Of 12 layers 6 are 0, 2, 4, 7, 9, 11, those from which DistilBERT was started (Sanh et al. 2019).
    """
    return [round(i * (layers - 1) / max(kept - 1, 1)) for i in range(kept)]


def take_layers(model: PreTrainedModel, kept: int | None = None) -> PreTrainedModel:
    """Return a classifier of some layers of a larger one, and of its embeddings and its head.

    Args:
        model: the larger one, which stays as it is.
        kept: how many layers; half of them where None.

    Raises:
        UserError: it has too few layers, or its layers cannot be taken out.
    """
    layers: int = model.config.num_hidden_layers
    kept = max(1, layers // 2) if kept is None else kept
    if kept >= layers:
        raise UserError(
            f"a student of {kept} layers is not smaller than its teacher, which has {layers}",
            "give fewer with `--student-layers`, or another `--model`",
        )
    prefix, chosen = _prefix(model, layers), evenly(layers, kept)
    config = _config(model.config, chosen)
    if config is None:
        raise _unfit(model, "with this version of transformers, some would look at other tokens than before")
    small = type(model)(config)
    weights = {}
    for name, weight in model.state_dict().items():
        number, dot, rest = name.removeprefix(prefix).partition(".")
        if not (name.startswith(prefix) and dot and number.isdecimal()):
            weights[name] = weight
        elif int(number) in chosen:
            weights[f"{prefix}{chosen.index(int(number))}.{rest}"] = weight
    try:
        small.load_state_dict(weights)
    except RuntimeError as error:
        raise _unfit(model, first_line(error)) from None
    return small


def _prefix(model: PreTrainedModel, layers: int) -> str:
    """Return what the names of the weights of all layers begin with."""
    found = [name for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
    if len(found) != 1:
        raise _unfit(model, "it has no one list of layers")
    return f"{found[0]}."


def _config(config: PretrainedConfig, chosen: Sequence[int]) -> PretrainedConfig | None:
    """Return the configuration of a model of the chosen layers; None where some would not look at the same tokens."""
    own = deepcopy(config)
    own.num_hidden_layers = len(chosen)
    kinds, every = getattr(own, "layer_types", None), getattr(own, "global_attn_every_n_layers", None)
    if isinstance(kinds, list):  # of models whose layers look at all tokens or at near ones
        own.layer_types = [kinds[i] for i in chosen]
    elif every and any((i % every == 0) != (place % every == 0) for place, i in enumerate(chosen)):
        return None
    return own


def _unfit(model: PreTrainedModel, reason: str) -> UserError:
    return UserError(
        f"layers cannot be taken out of a `{model.config.model_type}`: {reason}",
        "give a smaller checkpoint with `--model`",
    )
