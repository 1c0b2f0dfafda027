"""What pretraining minimises: the losses of masked tokens, of a summary of each sequence and of a teacher's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from trainer.errors import UserError
from trainer.model.load import load_tokenizer
from trainer.pretrain.start import load_masked_lm
from trainer.pretrain.terms import Terms

TEMPERATURE = 2.0
SOFT_WEIGHT, MASKED_WEIGHT, HIDDEN_WEIGHT = 5.0, 2.0, 1.0
"""Temperature and weights with which DistilBERT was distilled: Sanh et al. 2019, and its published training command.
Its teacher's answers counted at all positions, here only at masked ones."""

PROJECTION = "distillation_projection"
SUMMARY = "summary"


class Tap:
    """Shows the head of a masked language model only the masked positions, which saves most of the head's work.

    It hooks into the encoder, so it works with every architecture and every wrapper around the model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.positions = torch.empty(0)
        """Of the next call: which of the flattened batch's positions the head gets, [masked]."""
        self.hidden = torch.empty(0)
        """Of the last call: the encoder's last hidden states, [rows, length, width]."""
        model.base_model.register_forward_hook(self._pick)

    def _pick(self, module: torch.nn.Module, inputs: object, output: Any) -> Any:  # noqa: ARG002
        self.hidden = output.last_hidden_state
        output.last_hidden_state = self.hidden.flatten(0, 1)[self.positions].unsqueeze(0)
        return output


class Teacher:
    """A larger masked language model whose answers and hidden states a student learns.

    Args:
        folder: its checkpoint. One without a masked-language-model head teaches only its hidden states.
        tokenizer: the student's, which must give every token the same number.
        max_length: of the sequences.
        device: where to run it.

    Raises:
        UserError: it cannot be loaded, cannot take the sequences, or has another vocabulary.
    """

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerFast, max_length: int, device: str) -> None:
        if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
            raise UserError(
                "teacher and student number their tokens differently",
                "leave out `--model`, and the student uses the teacher's vocabulary",
            )
        self.model, self.has_head = load_masked_lm(folder, tokenizer, max_length, device)
        self.model.eval().requires_grad_(False).to(device)
        self._tap = Tap(self.model)

    def loss(self, logits: torch.Tensor, hidden: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted distance of a student from this teacher.

        Args:
            logits: the student's at the masked positions, [masked, vocabulary].
            hidden: the student's hidden states, projected to the teacher's width, [rows, length, width].
            batch: `input_ids` and `positions`.
        """
        self._tap.positions = batch["positions"]
        with torch.no_grad():
            answer = self.model(input_ids=batch["input_ids"]).logits[0].float()
        target = self._tap.hidden.flatten(0, 1).float()
        loss = HIDDEN_WEIGHT * (1 - functional.cosine_similarity(hidden.flatten(0, 1).float(), target).mean())
        if self.has_head:
            known = min(logits.shape[1], answer.shape[1])  # some models have rows beyond their vocabulary
            student = functional.log_softmax(logits[:, :known] / TEMPERATURE, dim=-1)
            teacher = functional.log_softmax(answer[:, :known] / TEMPERATURE, dim=-1)
            kl = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
            loss = loss + SOFT_WEIGHT * TEMPERATURE**2 * kl
        return loss


class Summary(torch.nn.Module):
    """Predicts from a sequence's first vector alone which terms occur in the sequence.

    Args:
        terms: the corpus' words and phrases.
        words: the model's word embeddings, [vocabulary, embedding width]. Phrases start as sums of them.
        width: of the hidden states.
    """

    def __init__(self, terms: Terms, words: torch.Tensor, width: int) -> None:
        super().__init__()
        self.transform = torch.nn.Linear(width, words.shape[1])
        sums = [words[list(phrase)].sum(dim=0) / len(phrase) ** 0.5 for phrase in terms.phrases]
        self.phrases = torch.nn.Parameter(torch.stack(sums).detach() if sums else words[:0].detach().clone())
        self.bias = torch.nn.Parameter(torch.from_numpy(terms.shares).clamp(min=1e-7).log().float())
        self.register_buffer("weights", torch.from_numpy(terms.weights()), persistent=False)

    def loss(self, first: torch.Tensor, words: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean cross-entropy of the terms that occur, weighted by how much each of them counts.

        Args:
            first: the hidden states of the first tokens, [rows, width].
            words: the model's word embeddings, [vocabulary, embedding width].
            batch: `term_rows` and `terms`.
        """
        logits = functional.linear(self.transform(first), torch.cat([words, self.phrases]), self.bias)
        weights = self.weights[batch["terms"]]
        log_likelihoods = functional.log_softmax(logits.float(), dim=-1)[batch["term_rows"], batch["terms"]]
        return -(log_likelihoods * weights).sum() / weights.sum()


class MaskedLanguageTrainer(transformers.Trainer):
    """A Trainer for the batches of `Batches`: whole, masked, and in an order of their own.

    `summary_weight` is that of the loss of the model's Summary, which it has where this is not 0.
    """

    def __init__(self, teacher: Teacher | None, summary_weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._teacher = teacher
        self._summary_weight = summary_weight
        self._tap = Tap(self.accelerator.unwrap_model(self.model))

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Return the loss; in evaluation, that of the masked tokens alone."""
        # No dropout: from scratch a token is seen once or twice, so there is nothing to overfit (Lan et al. 2020,
        # "ALBERT"), and on a CPU drawing the masks takes longer than all the rest.
        model.eval()
        self._tap.positions = inputs["positions"]
        logits = model(input_ids=inputs["input_ids"]).logits[0].float()
        loss = functional.cross_entropy(logits, inputs["labels"])
        if torch.is_grad_enabled():
            with self.accelerator.autocast():
                loss = self._with_other_losses(loss, logits, self.accelerator.unwrap_model(model), inputs)
        return (loss, {}) if return_outputs else loss

    def _with_other_losses(
        self, loss: torch.Tensor, logits: torch.Tensor, model: PreTrainedModel, inputs: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Add the losses of the teacher and the summary to that of the masked tokens."""
        hidden = self._tap.hidden
        if self._teacher:
            distance = self._teacher.loss(logits, getattr(model, PROJECTION)(hidden), inputs)
            weights = MASKED_WEIGHT + HIDDEN_WEIGHT + (SOFT_WEIGHT if self._teacher.has_head else 0)
            loss = (MASKED_WEIGHT * loss + distance) / weights
        if self._summary_weight:
            words = model.get_input_embeddings().weight
            loss = loss + self._summary_weight * getattr(model, SUMMARY).loss(hidden[:, 0], words, inputs)
        return loss

    def _get_train_sampler(self, *_: Any) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def add_projection(student: PreTrainedModel, teacher: Teacher) -> None:
    """Give the student a layer that projects its hidden states to the teacher's width, trained along with it."""
    own, wanted = student.config.hidden_size, teacher.model.config.hidden_size
    student.add_module(PROJECTION, torch.nn.Identity() if own == wanted else torch.nn.Linear(own, wanted))
