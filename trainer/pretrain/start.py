"""What a pretraining starts from: a checkpoint, or random weights and a vocabulary of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import accelerate
import torch
from accelerate.utils import broadcast_object_list
from transformers import AutoModelForMaskedLM, DistilBertConfig, PreTrainedModel, PreTrainedTokenizerFast

from trainer.data.sources import Base, locate_base
from trainer.errors import UserError
from trainer.model.capacity import check_length, check_tokens, measure_capacity
from trainer.model.load import check_size, load_tokenizer
from trainer.model.untrusted import first_line
from trainer.pretrain.config import HEAD_WIDTH, LAYERS, VOCABULARY, WIDTH, PretrainConfig, UnfinishedPretraining
from trainer.pretrain.corpus import POSITIONS, Corpus, learn_pieces, make_tokenizer
from trainer.pretrain.terms import IdArray
from trainer.pretrain.vectors import word_vectors
from trainer.progress import say, say_source

SCALE = 0.05
"""Root mean square of the elements of word and position vectors at the start."""


@dataclass(frozen=True)
class Origin:
    """The checkpoints that a run starts from or learns from."""

    base: Base | None
    teacher: Base | None

    @classmethod
    def locate(cls, config: PretrainConfig) -> Origin:
        """Find both, or raise a UserError if there is no such checkpoint, or the run would write over it."""
        bases = [locate_base(name) if name else None for name in (config.model, config.teacher)]
        if any(base and base.folder.resolve() == config.output_dir.resolve() for base in bases):
            raise UserError(
                f"`--output-dir {config.output_dir}` is a checkpoint that the run learns from",
                "choose another `--output-dir`",
            )
        return cls(*bases)

    def given(self, config: PretrainConfig, corpus: Corpus) -> UnfinishedPretraining:
        """Return what has to be the same when the run is resumed."""
        hashes = (base.sha256() if base else None for base in (self.base, self.teacher))
        return UnfinishedPretraining(config, corpus.sha256(), *hashes)


def choose_tokenizer(origin: Origin, corpus: Corpus, size: int | None, kept: Path | None) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the base model or the teacher, or else one of `size` pieces learnt from the corpus.

    A resumed run takes the one that it `kept`: another release of the library might learn a different one.
    """
    if base := origin.base or origin.teacher:
        return load_tokenizer(base.folder)
    if kept and kept.is_dir():
        return load_tokenizer(kept)
    is_first = accelerate.PartialState().is_main_process
    pieces = learn_pieces(corpus.train, size or VOCABULARY) if is_first else None
    return make_tokenizer(broadcast_object_list([pieces])[0])


def make_model(
    config: PretrainConfig, base: Base | None, tokenizer: PreTrainedTokenizerFast, documents: list[IdArray], device: str
) -> PreTrainedModel:
    """Load the checkpoint to continue from, or make a DistilBERT from scratch.

    All its weights are random, but for position vectors, and word vectors where there are documents to count in.

    Raises:
        UserError: the checkpoint cannot be loaded, or the model cannot take sequences of `config.max_length`.
    """
    if base is None:
        return _from_scratch(config, tokenizer, documents, device)
    say_source("base model", base.source)
    model, has_head = load_masked_lm(base.folder, tokenizer, config.max_length, device)
    if not has_head:
        say("the checkpoint has no head to predict masked tokens; a new one is trained")
    return model


def _from_scratch(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, documents: list[IdArray], device: str
) -> PreTrainedModel:
    width = config.width or WIDTH
    architecture = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=width,
        hidden_dim=4 * width,
        n_layers=config.layers or LAYERS,
        n_heads=width // HEAD_WIDTH,
        max_position_embeddings=POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        # Fine-tuning uses the checkpoint's dropout. On a CPU, drawing its masks can take longer than all the rest:
        # without any, in LoRA too, a step at 256 tokens was 2.4 times as fast.
        dropout=0.0,
        attention_dropout=0.0,
    )
    model: PreTrainedModel = AutoModelForMaskedLM.from_config(architecture, attn_implementation=_attention(device))
    check_length(measure_capacity(model), config.max_length)
    _set_positions(model)
    if documents and config.word_vectors != "random":
        say("word vectors: factorising co-occurrence counts")
        _set_word_vectors(model, torch.from_numpy(word_vectors(documents, len(tokenizer), width)))
    return model


def load_masked_lm(
    folder: Path, tokenizer: PreTrainedTokenizerFast, max_length: int, device: str
) -> tuple[PreTrainedModel, bool]:
    """Load a checkpoint as a masked language model in fp32.

    Returns:
        The model, and whether the checkpoint has a head that predicts masked tokens; otherwise its head is random.

    Raises:
        UserError: it cannot be loaded, is incomplete, or does not fit the tokenizer or `max_length`.
    """
    try:
        check_size(folder, AutoModelForMaskedLM)
        model, loading = AutoModelForMaskedLM.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            attn_implementation=_attention(device),
            trust_remote_code=False,
        )
    except UserError:
        raise
    except Exception as error:  # depends on what is missing or odd
        raise UserError(f"cannot load `{folder}`: {first_line(error)}", "check the checkpoint") from None
    if missing := [name for name in loading["missing_keys"] if name.startswith(model.base_model_prefix + ".")]:
        raise UserError(f"`{folder}` lacks weights of its encoder, such as `{missing[0]}`", "check the checkpoint")
    capacity = measure_capacity(model)
    check_tokens(capacity, tokenizer)
    check_length(capacity, max_length)
    return model, not loading["missing_keys"]


def _attention(device: str) -> str | None:
    """With short sequences on a CPU, plain matrix products are faster than the fused kernel's backward pass."""
    return "eager" if device == "cpu" else None


def _set_word_vectors(model: PreTrainedModel, vectors: torch.Tensor) -> None:
    """Start the embeddings from unit vectors; tokens whose vector is zero, special ones for instance, stay random."""
    weight = model.get_input_embeddings().weight
    known = vectors.norm(dim=1) > 0
    weight.data[known] = vectors[known] * (SCALE * math.sqrt(vectors.shape[1]))


def _set_positions(model: PreTrainedModel) -> None:
    """Start the position embeddings from sinusoids (Vaswani et al. 2017, section 3.5); they are trained on."""
    weight = model.base_model.embeddings.position_embeddings.weight
    positions, width = weight.shape
    angles = torch.arange(positions)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    weight.data = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1) * (SCALE * math.sqrt(2))
