"""What a model has room for, asked of the model itself: tokens in a text, numbers of tokens, padding.

No list of architectures knows all of it: RoBERTa counts positions from its padding token, OPT from 2, Llama computes
them from any number, and XLNet reads whatever stands in the last position. So a model gets a text of a few tokens, and
what it looks up in its tables is written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.errors import UserError
from trainer.model.untrusted import first_line

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from trainer.text.encoding import Encoder

TOKENS = 5
"""In the text that a model is asked with."""
PADDING = 3
"""Tokens that it is padded with."""
CHANGE = 0.05
"""How much of its largest logit padding may change. Most models change by nothing, a few by some thousandths; one that
reads its answer from the padding changes by more than a tenth."""


@dataclass(frozen=True)
class Capacity:
    """How much a model has room for."""

    positions: int | None
    """How many tokens a text can have; None where positions are not looked up in a table."""
    tokens: int | None
    """How many tokens have a row in the table of tokens; None where they are not looked up."""


def measure_capacity(model: PreTrainedModel) -> Capacity:
    """Read what a model has room for from its tables.

    Raises:
        UserError: it cannot take a text.
    """
    ids = _probe(model)
    tokens, positions = [], []
    for rows, found in _lookups(model, ids):
        if found[: len(ids)] == ids:
            tokens.append(rows)
        elif found[: len(ids)] == list(range(found[0], found[0] + len(ids))):
            positions.append(rows - found[0])
    return Capacity(min(positions, default=None), min(tokens, default=None))


def check_length(capacity: Capacity, max_length: int) -> None:
    """Raise a UserError where a model has too few positions for a length."""
    longest = capacity.positions
    if longest is not None and max_length > longest:
        raise UserError(
            f"`--max-length {max_length}` is more than this model's {longest} positions",
            f"use `--max-length {longest}` or less",
        )


def check_tokens(capacity: Capacity, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise a UserError where a tokenizer has a token that the model has no row for; more rows than tokens are fine."""
    token, number = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if capacity.tokens is not None and number >= capacity.tokens:
        raise UserError(
            f"the tokenizer has the token `{token}` with the number {number}, and the model has {capacity.tokens} rows",
            "after adding tokens, call `model.resize_token_embeddings(len(tokenizer))`, train, and save both; or take "
            "the tokenizer that the model was trained with",
        )


def check_token_types(config: PretrainedConfig, encoder: Encoder) -> None:
    """Raise a UserError where a tokenizer gives a token a type that the model has no row for."""
    types = getattr(config, "type_vocab_size", 0)
    if 1 < types < encoder.token_types:  # a model with less is given none
        raise UserError(
            f"the tokenizer makes pairs with {encoder.token_types} token types, and the model has {types}",
            "take the tokenizer that the model was trained with",
        )


def check_padding(model: PreTrainedModel) -> None:
    """Raise a UserError where a classifier answers a text otherwise when it is padded on the right."""
    ids = _probe(model)
    alone = _logits(model, ids, len(ids))
    padded = _logits(model, [*ids, *[model.config.pad_token_id] * PADDING], len(ids))
    if (alone - padded).abs().max() > CHANGE * alone.abs().max():
        raise UserError(
            f"a `{model.config.model_type}` answers otherwise when a text is padded on the right, as in a batch",
            "use another base model",
        )


def _probe(model: PreTrainedModel) -> list[int]:
    """Return a text without padding and without a row of numbers; it ends as some models want it."""
    padding, end = model.config.pad_token_id, getattr(model.config, "eos_token_id", None)
    token = 2 if padding == 1 else 1
    if not isinstance(end, int) or end == padding or not 0 <= end < getattr(model.config, "vocab_size", 0):
        end = token
    return [*[token] * (TOKENS - 1), end]


def _logits(model: PreTrainedModel, ids: list[int], length: int) -> torch.Tensor:
    """Return the logits of a text whose first `length` tokens are no padding."""
    import torch

    mask = [int(place < length) for place in range(len(ids))]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits: torch.Tensor = model(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([mask])).logits
    except Exception as error:  # depends on what the architecture wants beside tokens
        raise UserError(
            f"a `{model.config.model_type}` cannot take a text of {len(ids)} tokens: {first_line(error)}",
            "use another base model",
        ) from None
    finally:
        model.train(was_training)
    return logits


def _lookups(model: PreTrainedModel, ids: list[int]) -> list[tuple[int, list[int]]]:
    """Return (rows of a table, rows that were read), for every table that a model reads for this one text."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    found: list[tuple[int, list[int]]] = []

    class Reading(TorchDispatchMode):
        def __torch_dispatch__(self, operator: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            if operator is torch.ops.aten.embedding.default and args[1].numel() == args[1].shape[-1]:
                found.append((len(args[0]), args[1].flatten().tolist()))  # a row for each token, not for each pair
            return operator(*args, **(kwargs or {}))

    with Reading():
        _logits(model, ids, len(ids))
    return found
