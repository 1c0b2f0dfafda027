"""The pretraining run: text in; a checkpoint for `python -m trainer --model`, and a record, out."""

from __future__ import annotations

import math
import os
import shutil
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from trainer.errors import UserError
from trainer.model import check_length, load_tokenizer
from trainer.pretrain.config import (
    HEAD_WIDTH,
    Evaluation,
    PretrainConfig,
    PretrainRecord,
    UnfinishedPretraining,
)
from trainer.pretrain.corpus import (
    POSITIONS,
    SHORT_SHARE,
    Batches,
    Corpus,
    learn_vocabulary,
    read_corpus,
    stream_of,
    tokenize,
    whole,
)
from trainer.pretrain.objective import (
    PROJECTION,
    SUMMARY,
    MaskedLanguageTrainer,
    Summary,
    Teacher,
    add_projection,
    load_masked_lm,
)
from trainer.pretrain.terms import IdArray, Terms
from trainer.pretrain.vectors import word_vectors
from trainer.records import file_sha256, installed_versions, read_record, write_record
from trainer.sources import Base, locate_base
from trainer.train import (
    PACKAGES,
    check_same,
    choose_device,
    choose_precision,
    device_name,
    keep_stdout_clean,
    last_checkpoint,
    say,
    say_source,
    training_arguments,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

RECORD = "pretrain.json"
EVALUATIONS = 10
"""How often a run tells its evaluation loss and leaves a checkpoint to resume from."""
MOST_EVALUATION_TOKENS = 200_000

SCALE = 0.05
"""Root mean square of the elements of word and position vectors at the start."""


@dataclass(frozen=True)
class Origin:
    """The checkpoints that a run starts from or learns from."""

    base: Base | None
    teacher: Base | None

    def unfinished(self, config: PretrainConfig, corpus: Corpus) -> UnfinishedPretraining:
        """Return what has to be the same where the run is resumed."""
        return UnfinishedPretraining(
            config,
            corpus.sha256(),
            self.base.sha256() if self.base else None,
            self.teacher.sha256() if self.teacher else None,
        )


def pretrain(config: PretrainConfig) -> PretrainRecord | None:
    """Train a masked language model as `config` asks and leave it in `config.output_dir`.

    Returns:
        The record, or None in every process but the first of a distributed run.

    Raises:
        UserError: anything about the input or the machine that the user can mend.
    """
    started = time.monotonic()
    transformers.logging.set_verbosity_error()
    transformers.set_seed(config.seed)
    folder = config.output_dir
    _check_output(folder, config)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    corpus = read_corpus(config.text, config.text_column, config.seed)
    origin = Origin(*(locate_base(name) if name else None for name in (config.model, config.teacher)))
    tokenizer, model, documents = _start(config, corpus, origin)
    teacher = Teacher(origin.teacher.folder, tokenizer, device) if origin.teacher else None
    terms = None
    if teacher:
        add_projection(model, teacher)
    if config.summary_weight:
        terms = Terms(stream_of(documents, tokenizer.sep_token_id), len(tokenizer), tokenizer.all_special_ids)
        model.add_module(SUMMARY, Summary(terms, model.get_input_embeddings().weight))
    train, held_out = _batches(config, corpus, tokenizer, documents, terms)
    trainer = _make_trainer(config, model, teacher, train, held_out, device, precision)
    if trainer.is_world_process_zero():
        _begin(folder, config, corpus, origin)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "mtime may not be reliable")  # said of checkpoints a second apart
        trainer.train(resume_from_checkpoint=last_checkpoint(_checkpoints(folder)) if config.resume else None)
    if trainer.state.global_step % trainer.args.eval_steps:
        trainer.evaluate()
    if not trainer.is_world_process_zero():
        return None
    evaluations = _evaluations(trainer.state.log_history, train, trainer.args.world_size)
    _save(folder, model, tokenizer, config)
    record = _record(config, corpus, origin, model, documents, evaluations, device, precision, started)
    write_record(folder / RECORD, record)
    shutil.rmtree(_checkpoints(folder))
    return record


def _checkpoints(folder: Path) -> Path:
    return folder / "checkpoints"


def _unfinished(folder: Path) -> Path:
    return _checkpoints(folder) / "config.json"


def _check_output(folder: Path, config: PretrainConfig) -> None:
    """Refuse to write where nothing can be written, over anything but a pretraining, and over one unless told to."""
    nearest = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    finished, unfinished = (folder / RECORD).is_file(), _unfinished(folder).is_file()
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"cannot write to `{nearest}`", "name another `--output-dir`")
    if folder.exists() and any(folder.iterdir()) and not finished and not unfinished:
        raise UserError(f"`{folder}` holds something else than a pretraining", "name another `--output-dir`")
    if config.resume:
        if finished or not unfinished:
            raise UserError(f"no interrupted run in `{folder}`", "leave out `--resume`")
        check_same(read_record(_unfinished(folder), UnfinishedPretraining).config, config, free=("output_dir",))
    elif (finished or unfinished) and not config.overwrite:
        what = "a pretrained model" if finished else "an interrupted run, which `--resume` continues"
        raise UserError(f"`{folder}` holds {what}", "add `--overwrite`, or name another `--output-dir`")


def _begin(folder: Path, config: PretrainConfig, corpus: Corpus, origin: Origin) -> None:
    """Make room and write down what the run was given; on `--resume` check that it is given the same."""
    now = origin.unfinished(config, corpus)
    if not config.resume:
        (folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(_checkpoints(folder), ignore_errors=True)
        write_record(_unfinished(folder), now)
        return
    before = read_record(_unfinished(folder), UnfinishedPretraining)
    if (before.text_sha256, before.base_sha256, before.teacher_sha256) != (
        now.text_sha256,
        now.base_sha256,
        now.teacher_sha256,
    ):
        raise UserError(
            "the text, the base model or the teacher is not that of the interrupted run",
            "restore them, or start again with `--overwrite`",
        )


def _start(
    config: PretrainConfig, corpus: Corpus, origin: Origin
) -> tuple[PreTrainedTokenizerFast, PreTrainedModel, list[IdArray]]:
    """Return the tokenizer, the model to train, and the token ids of the training texts."""
    if origin.base:
        say_source("base model", origin.base.source)
        tokenizer = load_tokenizer(origin.base.folder)
        model, missing = load_masked_lm(origin.base.folder)
        if missing:
            say(f"the checkpoint has no head to predict masked tokens; a new one is trained ({len(missing)} weights)")
        check_length(model.config, config.max_length)
        return tokenizer, model, tokenize(tokenizer, corpus.train)
    if origin.teacher:
        tokenizer = load_tokenizer(origin.teacher.folder)
    else:
        tokenizer = learn_vocabulary(corpus.train, config.vocabulary)
    documents = tokenize(tokenizer, corpus.train)
    model = transformers.DistilBertForMaskedLM._from_config(
        transformers.DistilBertConfig(
            vocab_size=len(tokenizer),
            dim=config.width,
            hidden_dim=4 * config.width,
            n_layers=config.layers,
            n_heads=config.width // HEAD_WIDTH,
            max_position_embeddings=POSITIONS,
            pad_token_id=tokenizer.pad_token_id,
            # Fine-tuning takes the checkpoint's word on dropout. LoRA leaves so few weights free that it gains nothing
            # by it, and on a CPU drawing the masks takes longer than all the rest.
            dropout=0.0,
            attention_dropout=0.0,
        ),
        attn_implementation="sdpa" if torch.cuda.is_available() else "eager",
    )
    check_length(model.config, config.max_length)
    _set_positions(model)
    if config.word_vectors == "cooccurrence" and not config.resume:
        say("word vectors: factorising co-occurrence counts")
        _set_word_vectors(model, torch.from_numpy(word_vectors(documents, len(tokenizer), config.width)))
    return tokenizer, model, documents


def _set_word_vectors(model: PreTrainedModel, vectors: torch.Tensor) -> None:
    """Start the embeddings from unit vectors; tokens whose vector is zero, special ones for instance, stay random."""
    weight = model.get_input_embeddings().weight
    known = vectors.norm(dim=1) > 0
    weight.data[known] = vectors[known] * (SCALE * math.sqrt(vectors.shape[1]))


def _set_positions(model: PreTrainedModel) -> None:
    """Start the position embeddings from sinusoids (Vaswani et al. 2017, section 3.5); they are trained on.

    From random ones it takes millions of tokens until attention finds its neighbours, and until then the loss stays
    where predicting by frequency alone puts it.
    """
    weight = model.base_model.embeddings.position_embeddings.weight
    positions, width = weight.shape
    angles = torch.arange(positions)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    weight.data = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1) * (SCALE * math.sqrt(2))


def _batches(
    config: PretrainConfig,
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    documents: list[IdArray],
    terms: Terms | None,
) -> tuple[Batches, Batches]:
    long, short = config.max_length, config.max_length // 2
    held_out = tokenize(tokenizer, corpus.held_out)
    lengths = ((short, SHORT_SHARE), (long, 1 - SHORT_SHARE)) if short >= 32 else ((long, 1.0),)
    common: dict[str, Any] = {"batch_tokens": config.batch_tokens, "mask_ratio": config.mask_ratio, "seed": config.seed}
    tokens = sum(map(len, documents)) * config.epochs
    train = Batches(documents, tokenizer, tokens=tokens, lengths=lengths, terms=terms, **common)
    seen = min(sum(map(len, held_out)), MOST_EVALUATION_TOKENS)
    evaluation = Batches(held_out, tokenizer, tokens=seen, lengths=[(_fitting(long, held_out), 1.0)], **common)
    say(f"{len(corpus.train):,} texts, {sum(map(len, documents)):,} tokens; training on {tokens:,.0f}")
    return train, evaluation


def _fitting(length: int, documents: list[IdArray]) -> int:
    """Return the longest sequence, at most `length`, that the held-out text fills."""
    return max(min(length, sum(len(ids) + 1 for ids in documents)), 3)


def _make_trainer(
    config: PretrainConfig,
    model: PreTrainedModel,
    teacher: Teacher | None,
    train: Batches,
    held_out: Batches,
    device: str,
    precision: str,
) -> MaskedLanguageTrainer:
    say(f"training {model.base_model.num_parameters():,} parameters and a head in {precision} on {device}")
    trainer = MaskedLanguageTrainer(
        teacher,
        config.summary_weight,
        model=model,
        args=_arguments(config, len(train), device, precision),
        train_dataset=train,
        eval_dataset=held_out,
        data_collator=whole,
        callbacks=[_Report()],
    )
    keep_stdout_clean(trainer)
    return trainer


def _arguments(config: PretrainConfig, batches: int, device: str, precision: str) -> transformers.TrainingArguments:
    return training_arguments(
        device,
        precision,
        output_dir=str(_checkpoints(config.output_dir)),
        num_train_epochs=1,  # of the list of batches, which holds every pass over the text
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        learning_rate=config.peak_learning_rate,
        warmup_ratio=config.warmup_ratio,
        weight_decay=config.weight_decay,
        adam_beta2=0.98,
        seed=config.seed,
        eval_strategy="steps",
        eval_steps=max(1, math.ceil(batches / EVALUATIONS)),
        save_strategy="steps",
        save_steps=max(1, math.ceil(batches / EVALUATIONS)),
        prediction_loss_only=True,
        label_names=["labels"],
        dataloader_num_workers=2 if device == "cuda" else 0,  # so that masking never keeps a GPU waiting
    )


def _evaluations(log: list[dict[str, Any]], train: Batches, processes: int) -> tuple[Evaluation, ...]:
    found = tuple(
        Evaluation(entry["step"], train.tokens_before(entry["step"] * processes), entry["eval_loss"])
        for entry in log
        if "eval_loss" in entry
    )
    if odd := [evaluation for evaluation in found if not math.isfinite(evaluation.loss)]:
        raise UserError(
            f"training diverged: the evaluation loss after step {odd[0].step} is {odd[0].loss}",
            "lower `--learning-rate`, or train with `--precision fp32`",
        )
    return found


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, config: PretrainConfig) -> None:
    for name in (PROJECTION, SUMMARY):  # only training needs them
        if hasattr(model, name):
            delattr(model, name)
    if config.save_precision == "fp16":
        model.half()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _record(
    config: PretrainConfig,
    corpus: Corpus,
    origin: Origin,
    model: PreTrainedModel,
    documents: list[IdArray],
    evaluations: tuple[Evaluation, ...],
    device: str,
    precision: str,
    started: float,
) -> PretrainRecord:
    given = origin.unfinished(config, corpus)
    return PretrainRecord(
        config=config,
        base=origin.base.source if origin.base else None,
        base_sha256=given.base_sha256,
        teacher=origin.teacher.source if origin.teacher else None,
        teacher_sha256=given.teacher_sha256,
        text_sha256=given.text_sha256,
        texts=len(corpus.train),
        held_out_texts=len(corpus.held_out),
        tokens=sum(map(len, documents)),
        parameters=model.base_model.num_parameters(),
        learning_rate=config.peak_learning_rate,
        evaluations=evaluations,
        device=device_name(device),
        precision=precision,
        duration_s=round(time.monotonic() - started, 1),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=installed_versions(PACKAGES),
        weights_sha256=file_sha256(config.output_dir / "model.safetensors"),
    )


class _Report(transformers.TrainerCallback):
    """Tells the evaluation loss as the run goes on, and how long it still has to go."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._first, self._started = state.global_step, time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            each = (time.monotonic() - self._started) / max(state.global_step - self._first, 1)
            left = each * (state.max_steps - state.global_step) / 60
            say(
                f"step {state.global_step:,} of {state.max_steps:,}: evaluation loss {metrics['eval_loss']:.3f}, "
                f"about {left:.0f} minutes left"
            )
