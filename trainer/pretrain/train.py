"""The pretraining run: text in; a checkpoint for `python -m trainer --model`, and a record, out."""

from __future__ import annotations

import math
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import accelerate
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from trainer.data.sources import Base
from trainer.errors import UserError
from trainer.files.tables import Reading
from trainer.locks import hold
from trainer.model.architectures import architecture_of
from trainer.pretrain.config import Evaluation, PretrainConfig, PretrainRecord, SavePrecision, UnfinishedPretraining
from trainer.pretrain.corpus import SHORT_SHARE, Batches, Corpus, read_corpus, stream_of, tokenize, whole
from trainer.pretrain.objective import PROJECTION, SUMMARY, MaskedLanguageTrainer, Summary, Teacher, add_projection
from trainer.pretrain.output import OutputDir
from trainer.pretrain.start import Origin, choose_tokenizer, make_model
from trainer.pretrain.terms import IdArray, Terms
from trainer.progress import left_text, quiet_libraries, say, say_source
from trainer.records import file_sha256, installed_versions, write_record
from trainer.run import discard
from trainer.training.hardware import Hardware, choose_hardware
from trainer.training.loop import (
    PACKAGES,
    CheckpointKeeper,
    keep_stdout_clean,
    run_loop,
    training_arguments,
)
from trainer.training.resume import check_writable, last_checkpoint

EVALUATIONS = 10
"""How often a run evaluates and saves a checkpoint to resume from."""
MAX_EVALUATION_TOKENS = 200_000
EVALUATION_SHARE = 0.02
"""The maximum share of an evaluation in the tokens trained on, so that ten take a tenth of the time or less."""


def pretrain(config: PretrainConfig) -> PretrainRecord | None:
    """Train a masked language model as `config` asks and leave it in `config.output_dir`.

    Returns:
        The record, or None in every process but the first of a distributed run.
    """
    check_writable(config.output_dir, "--output-dir")
    with hold(config.output_dir):
        return _pretrain(config, OutputDir(config.output_dir))


def _pretrain(config: PretrainConfig, output: OutputDir) -> PretrainRecord | None:
    started = time.monotonic()
    quiet_libraries()
    transformers.set_seed(config.seed)
    output.settle()
    output.check(config)
    hardware = choose_hardware(config.device, config.precision)
    accelerate.PartialState(cpu=hardware.device == "cpu")  # several processes find each other
    corpus = read_corpus(config.text, config.text_column, config.seed, Reading(config.encoding, config.no_header))
    origin = Origin.locate(config)
    given = origin.given(config, corpus)
    checkpoint = last_checkpoint(output.checkpoints) if config.resume else None
    tokenizer = choose_tokenizer(origin, corpus, config.vocabulary, output.tokenizer if checkpoint else None)
    documents = tokenize(tokenizer, corpus.train)
    counted = [] if checkpoint else documents  # a checkpoint brings its word vectors, and counting takes a while
    model = make_model(config, origin.base, tokenizer, counted, hardware.device)
    trainer = _make_trainer(config, origin, corpus, tokenizer, documents, model, hardware)
    if trainer.is_world_process_zero():
        output.begin(given)
        if not (checkpoint or origin.base or origin.teacher):
            tokenizer.save_pretrained(output.tokenizer)
    _train(trainer, checkpoint)
    if not trainer.is_world_process_zero():
        return None
    new = output.new_results()
    _save(new.path, model, tokenizer, config.save_precision)
    record = _describe(given, origin, corpus, documents, trainer, hardware, file_sha256(new.weights), started)
    write_record(new.record, record)
    output.settle()
    discard(output.checkpoints)
    return record


def _make_trainer(
    config: PretrainConfig,
    origin: Origin,
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    documents: list[IdArray],
    model: PreTrainedModel,
    hardware: Hardware,
) -> MaskedLanguageTrainer:
    """Put the model, what it learns besides masked tokens, and its batches together."""
    parameters = model.base_model.num_parameters()
    teacher = _load_teacher(origin.teacher, tokenizer, config.max_length, hardware.device) if origin.teacher else None
    if teacher:
        add_projection(model, teacher)
    stream = stream_of(documents, tokenizer)
    terms = None
    if config.summary_weight:
        terms = Terms(stream, model.get_input_embeddings().num_embeddings, tokenizer.all_special_ids)
        model.add_module(SUMMARY, Summary(terms, model.get_input_embeddings().weight, model.config.hidden_size))
    train = _training_batches(config, tokenizer, stream, terms)
    tokens = train.tokens_before(len(train))
    held_out = _evaluation_batches(config, tokenizer, corpus.held_out, round(EVALUATION_SHARE * tokens))
    say(f"{len(corpus.train):,} texts, {len(stream):,} tokens; training on {tokens:,}")
    say(f"training {parameters:,} parameters and a head in {hardware.precision} on {hardware.device}")
    trainer = MaskedLanguageTrainer(
        teacher,
        config.summary_weight,
        model=model,
        args=_arguments(config, len(train), hardware),
        train_dataset=train,
        eval_dataset=held_out,
        data_collator=whole,
        callbacks=[_Report(), CheckpointKeeper()],
    )
    keep_stdout_clean(trainer)
    return trainer


def _load_teacher(base: Base, tokenizer: PreTrainedTokenizerFast, max_length: int, device: str) -> Teacher:
    say_source("teacher", base.source)
    teacher = Teacher(base.folder, tokenizer, max_length, device)
    if not teacher.has_head:
        say("the teacher has no head to predict masked tokens; only its hidden states are learnt")
    return teacher


def _training_batches(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, stream: IdArray, terms: Terms | None
) -> Batches:
    long, short = config.max_length, config.max_length // 2
    return Batches(
        stream,
        tokenizer,
        tokens=len(stream) * config.epochs,
        lengths=((short, SHORT_SHARE), (long, 1 - SHORT_SHARE)) if short >= 32 else ((long, 1.0),),
        batch_tokens=config.batch_tokens,
        mask_ratio=config.mask_ratio,
        seed=config.seed,
        terms=terms,
    )


def _evaluation_batches(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, texts: list[str], max_tokens: int
) -> Batches:
    stream = stream_of(tokenize(tokenizer, texts), tokenizer)
    if len(stream) < 3:
        raise UserError("the text held out for evaluation is a single word", "give more text, or another `--seed`")
    length = min(config.max_length, len(stream))  # a small file's held-out text does not fill a sequence
    return Batches(
        stream,
        tokenizer,
        tokens=min(len(stream), MAX_EVALUATION_TOKENS, max(max_tokens, config.batch_tokens)),
        lengths=[(length, 1.0)],
        batch_tokens=config.batch_tokens,
        mask_ratio=config.mask_ratio,
        seed=config.seed,
    )


def _arguments(config: PretrainConfig, batches: int, hardware: Hardware) -> transformers.TrainingArguments:
    processes = accelerate.PartialState().num_processes
    every = max(1, math.ceil(batches / processes / EVALUATIONS))
    arguments = training_arguments(
        hardware,
        output_dir=str(OutputDir(config.output_dir).checkpoints),
        num_train_epochs=1,  # of the list of batches, which holds every pass over the text
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        learning_rate=config.peak_learning_rate,
        warmup_ratio=config.warmup_ratio,
        weight_decay=config.weight_decay,
        adam_beta2=0.98,
        seed=config.seed,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        prediction_loss_only=True,
        label_names=["labels"],
        # So that a GPU never waits for masking.
        dataloader_num_workers=min(8, os.cpu_count() or 1) if hardware.device == "cuda" else 0,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process drives one GPU: a batch cannot be cut
    return arguments


def _train(trainer: MaskedLanguageTrainer, checkpoint: str | None) -> None:
    trainer.accelerator.wait_for_everyone()
    run_loop(trainer, checkpoint)
    if trainer.state.global_step % trainer.args.eval_steps:
        trainer.evaluate()
    trainer.accelerator.wait_for_everyone()  # the first process removes the checkpoints, which the others read


def _describe(
    given: UnfinishedPretraining,
    origin: Origin,
    corpus: Corpus,
    documents: list[IdArray],
    trainer: MaskedLanguageTrainer,
    hardware: Hardware,
    weights_sha256: str,
    started: float,
) -> PretrainRecord:
    return PretrainRecord(
        config=given.config,
        base=origin.base.source if origin.base else None,
        base_sha256=given.base_sha256,
        teacher=origin.teacher.source if origin.teacher else None,
        teacher_sha256=given.teacher_sha256,
        text_sha256=given.text_sha256,
        texts=len(corpus.train),
        held_out_texts=len(corpus.held_out),
        tokens=sum(map(len, documents)),
        parameters=trainer.model.base_model.num_parameters(),
        learning_rate=given.config.peak_learning_rate,
        evaluations=_evaluations(trainer),
        device=hardware.name,
        precision=hardware.precision,
        duration_s=round(time.monotonic() - started, 1),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=installed_versions(PACKAGES),
        weights_sha256=weights_sha256,
    )


def _evaluations(trainer: MaskedLanguageTrainer) -> tuple[Evaluation, ...]:
    """Return the evaluations of the whole run; if it was resumed, one of them was done twice."""
    losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    tokens_before = trainer.train_dataset.tokens_before
    return tuple(Evaluation(step, tokens_before(step * trainer.args.world_size), loss) for step, loss in losses.items())


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, precision: SavePrecision) -> None:
    for name in (PROJECTION, SUMMARY):  # only training needs them
        if hasattr(model, name):
            delattr(model, name)
    if precision == "fp16":
        model.half()
    if not architecture_of(model.config.model_type).takes_token_types:  # whatever the teacher's tokenizer gives
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)  # last: without weights a folder is no checkpoint


class _Report(transformers.TrainerCallback):
    """Says the evaluation loss and the time left as the run goes on, and stops a run that has diverged."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._first, self._started = state.global_step, time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:  # noqa: ARG002
        loss = metrics["eval_loss"]
        if not math.isfinite(loss):
            raise UserError(
                f"training diverged: the evaluation loss after step {state.global_step} is {loss}",
                "start again with `--overwrite` and a lower `--learning-rate`, or with `--precision fp32`",
            )
        if not state.is_world_process_zero:
            return
        done, to_do = state.global_step - self._first, state.max_steps - state.global_step
        left = left_text((time.monotonic() - self._started) / done * to_do) if done else ""
        say(f"step {state.global_step:,} of {state.max_steps:,}: evaluation loss {loss:.3f}{left}")
