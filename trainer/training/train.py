"""The fine-tuning run: data and a base model in; the best epoch's adapter, its evaluation texts and a record out."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import accelerate
import torch
import transformers
from peft import PeftModel

from trainer.config import TrainConfig
from trainer.data import Splits
from trainer.errors import UserError
from trainer.lexical.of_run import fit_lexical
from trainer.lexical.truncation import TruncationChoice, choose_truncation
from trainer.locks import hold, is_first_process
from trainer.model.capacity import check_length, check_padding, check_token_types, check_tokens, measure_capacity
from trainer.model.load import inputs_of, make_encoder, settle_padding
from trainer.progress import quiet_libraries, say, say_source, say_unseparated
from trainer.records import installed_versions, read_record
from trainer.run import EpochScores, RunDir, Training, UnfinishedRun, discard, load_data, write_run
from trainer.student.lessons import Lessons, prepare_lessons, with_lessons
from trainer.student.loss import StudentTrainer, make_loss
from trainer.student.seen import check_unseen
from trainer.student.teacher import Teacher
from trainer.tasks import NO_LABEL, Task, as_set, task_of
from trainer.text.encoding import Encoder
from trainer.text.texts import Text
from trainer.training.frozen import DTYPES, settle_frozen, shorten_last_layer
from trainer.training.graphs import GraphTrainer, takes_wide_mask
from trainer.training.hardware import Hardware, choose_hardware
from trainer.training.loop import (
    CALMER,
    CPU_WIDTHS,
    PACKAGES,
    CheckpointKeeper,
    EpochReport,
    encode_rows,
    full_batches,
    keep_stdout_clean,
    make_collator,
    run_loop,
    scores_of,
    training_arguments,
    width_step,
)
from trainer.training.resume import MERIT, begin, check_run_dir, check_writable, last_checkpoint
from trainer.training.start import Start, Trained, count_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EXAMPLES_SHOWN = 4
EVALUATION_TOKENS = {"cpu": 8_192, "mps": 8_192, "cuda": 65_536}
"""In a batch of evaluation texts, at most; where training takes more, as many as that."""


@dataclass(frozen=True)
class ExamplePrediction:
    """One evaluation text with the model's answer."""

    text: Text
    label: str
    """Or several, for a person."""
    predicted: str
    """The same, each with its probability."""


@dataclass(frozen=True)
class TrainResult:
    """What a run returns: its record, as written to disk, and a few answers to look at."""

    training: Training
    headline: str
    """The scores of the best epoch, in words."""
    evaluation_texts: int
    examples: tuple[ExamplePrediction, ...]


def train(config: TrainConfig) -> TrainResult | None:
    """Fine-tune a classifier as `config` asks and leave it in `config.run_dir`.

    Returns:
        The result, or None in every process but the first of a distributed run.
    """
    check_writable(config.run_dir, "--run-dir")
    with hold(config.run_dir):
        return _train(config, RunDir(config.run_dir))


def _train(config: TrainConfig, run: RunDir) -> TrainResult | None:
    started = time.monotonic()
    quiet_libraries()
    run.settle()
    teacher = Teacher.open(config.teacher, config.run_dir) if config.teacher else None
    config = teacher.settle(config) if teacher else replace(config, task=config.task_name)
    check_run_dir(run, config)
    before = read_record(run.unfinished, UnfinishedRun) if config.resume else None
    hardware = choose_hardware(config.device, config.precision, before.precision if before else "")
    splits = _load_data(config, teacher)
    seen = check_unseen(teacher.record, splits, config.seed) if teacher else ()
    start = Start.locate(config, teacher)
    task = task_of(config.task_name, len(splits.label_names))
    model = start.build(config, splits.label_names)
    _say_size(model, hardware)
    encoder = _make_encoder(config, model, start.tokenizer, pairs=splits.pairs)
    choice = _settle_truncation(config, before, encoder, splits, task)
    encoder = encoder.under(choice.rule) if choice else encoder
    lexical = fit_lexical(encoder, splits.train, task, config.seed) if is_first_process() else ""
    lessons = prepare_lessons(config, teacher, splits) if teacher else None
    if is_first_process():
        sha256 = lessons.sha256() if lessons else ""
        given = UnfinishedRun(config, start.base.sha256(), splits.sha256(), choice, sha256, hardware.precision)
        begin(run, given)
    if lessons:
        accelerate.PartialState().wait_for_everyone()  # the first process has removed what an earlier run left
        lessons.ask(hardware)
    trainer = make_trainer(config, model, encoder, splits, task, hardware, lessons)
    run_loop(trainer, last_checkpoint(run.checkpoints) if config.resume else None)
    trainer.accelerator.wait_for_everyone()  # the first process removes the checkpoints, which the others read
    scores = _epoch_scores(trainer.state.log_history)
    if not trainer.is_world_process_zero():
        return None
    new = run.new_results()
    start.save(model, config, new.adapter)
    examples = _predict_examples(trainer, encoder, splits, task)
    training = _describe(config, splits, model, scores, _kept_epoch(trainer.state), hardware, choice, started)
    versions, taught = installed_versions(PACKAGES), lessons.facts() if lessons else None
    write_run(
        new,
        start.base,
        splits,
        encoder,
        training,
        versions,
        task=config.task_name,
        lexical=lexical,
        teaching=taught,
        seen=seen,
    )
    run.settle()
    discard(run.checkpoints)
    return TrainResult(training, task.headline(asdict(training.best)), len(splits.evaluation), examples)


def _load_data(config: TrainConfig, teacher: Teacher | None) -> Splits:
    sources = teacher.sources(config) if teacher else (config.dataset, config.eval_dataset)
    splits = load_data(config, *sources)
    splits = teacher.fit(splits) if teacher else splits
    say_source("dataset", splits.source)
    for note in splits.notes:
        say(note)
    parts = zip(("train", "eval"), (splits.train, splits.evaluation), splits.available, strict=True)
    for name, examples, available in parts:
        limited = f" of {available:,} (`--max-{name}-samples 0` takes all)" if len(examples) < available else ""
        say(f"{name}: {len(examples):,} {'pairs of ' * splits.pairs}texts{limited}")
    if splits.calibration:
        say(f"kept: {len(splits.calibration):,} texts on which the exporter chooses thresholds")
    if splits.left_over:
        say(f"left over: {len(splits.left_over):,} texts, which nothing is trained on, for the exporter's calibration")
    if splits.duplicates_dropped:
        say(f"dropped {splits.duplicates_dropped:,} rows whose {'pair' if splits.pairs else 'text'} is evaluated on")
    return splits


def _say_size(model: Trained, hardware: Hardware) -> None:
    trainable, total = count_parameters(model)
    share = f"{trainable:,} of {total:,} parameters ({trainable / total:.2%})"
    say(f"training {share} in {hardware.precision} on {hardware.device}")


def _make_encoder(config: TrainConfig, model: Trained, tokenizer: PreTrainedTokenizerFast, *, pairs: bool) -> Encoder:
    """Make the encoder, and check that the model has room for all that comes out of it."""
    classifier = model.get_base_model() if isinstance(model, PeftModel) else model
    pad_token_id = settle_padding(classifier.config, tokenizer.pad_token_id)
    capacity = measure_capacity(classifier)
    check_length(capacity, config.max_length)
    check_tokens(capacity, tokenizer)
    check_padding(classifier)
    rule = "head" if config.truncation == "auto" else config.truncation
    encoder = make_encoder(tokenizer, config.max_length, rule, pad_token_id, pairs=pairs)
    check_token_types(classifier.config, encoder)
    say_unseparated(encoder)
    return encoder


def _settle_truncation(
    config: TrainConfig, before: UnfinishedRun | None, encoder: Encoder, splits: Splits, task: Task
) -> TruncationChoice | None:
    """Choose the truncation rule on the training texts, or return the choice of the run that is resumed."""
    if config.truncation != "auto":
        return None
    known = before.truncation_choice if before else None
    choice = known or choose_truncation(encoder, splits.train, task, config.seed)
    say(str(choice))
    return choice


def make_trainer(
    config: TrainConfig,
    model: Trained,
    encoder: Encoder,
    splits: Splits,
    task: Task,
    hardware: Hardware,
    lessons: Lessons | None = None,
) -> GraphTrainer:
    """Put the model, the texts as rows of tokens, and what is asked of the loop together."""
    labels, is_balanced = splits.train.labels, config.class_weights == "balanced"
    hint = "" if is_balanced else "; `--class-weights balanced` may help"
    is_gpu = hardware.device == "cuda"
    rows = encode_rows(encoder, task, splits.train)
    collate = make_collator(encoder, inputs_of(model), width_step(config.max_length) if is_gpu else CPU_WIDTHS)
    padded = collate([pick(rows, key=lambda row: len(row["input_ids"])) for pick in (min, max)])
    shorten_last_layer(model, padded)
    batches = full_batches(rows, collate, config.batch_size) if is_gpu and takes_wide_mask(model, padded) else []
    if isinstance(model, PeftModel):
        settle_frozen(model, hardware.device, hardware.precision)
    kind = partial(StudentTrainer, make_loss(config.task_name, lessons.temperature)) if lessons else GraphTrainer
    trainer = kind(
        model=model,
        args=_arguments(config, hardware),
        train_dataset=lessons.add_to(rows, encoder, task) if lessons else rows,
        # By length, so that little of a batch is padding; no score depends on the order.
        eval_dataset=sorted(encode_rows(encoder, task, splits.evaluation), key=lambda row: len(row["input_ids"])),
        data_collator=with_lessons(collate) if lessons else collate,
        compute_metrics=scores_of(task, is_balanced=is_balanced),
        compute_loss_func=task.training_loss(labels) if is_balanced else None,
        callbacks=[EpochReport(task, splits.label_names, labels, hint), CheckpointKeeper()],
    )
    keep_stdout_clean(trainer)
    if config.early_stopping_patience:
        trainer.add_callback(transformers.EarlyStoppingCallback(config.early_stopping_patience))
    trainer.capture(batches, DTYPES[hardware.precision])
    return trainer


def _arguments(config: TrainConfig, hardware: Hardware) -> transformers.TrainingArguments:
    return training_arguments(
        hardware,
        output_dir=str(RunDir(config.run_dir).checkpoints),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=max(config.batch_size, EVALUATION_TOKENS[hardware.device] // config.max_length),
        learning_rate=config.peak_learning_rate,
        warmup_ratio=config.warmup_ratio,
        weight_decay=config.weight_decay,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        group_by_length=True,  # most of a batch of texts would otherwise be padding
        seed=config.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # the count of early stopping
        metric_for_best_model=MERIT,
        greater_is_better=True,
    )


def _epoch_scores(log: list[dict[str, Any]]) -> tuple[EpochScores, ...]:
    names = [field.name for field in fields(EpochScores) if field.name != "epoch"]
    scores = tuple(
        EpochScores(round(entry["epoch"]), **{name: entry.get(f"eval_{name}") for name in names})  # type: ignore[arg-type]
        for entry in log
        if "eval_loss" in entry
    )
    if diverged := [epoch for epoch in scores if not math.isfinite(epoch.loss)]:
        raise UserError(
            f"training diverged: the evaluation loss after epoch {diverged[0].epoch} is {diverged[0].loss}", CALMER
        )
    return scores


def _kept_epoch(state: transformers.TrainerState) -> int:
    entries = [entry for entry in state.log_history if "eval_loss" in entry]
    (epoch,) = (entry["epoch"] for entry in entries if entry["step"] == state.best_global_step)
    kept: int = round(epoch)
    return kept


def _predict_examples(
    trainer: transformers.Trainer, encoder: Encoder, splits: Splits, task: Task
) -> tuple[ExamplePrediction, ...]:
    """Let the trained model answer the first few evaluation texts."""
    first = splits.evaluation.take(range(min(EXAMPLES_SHOWN, len(splits.evaluation))))
    batch, model = encoder.pad(encoder.encode(first.texts)), trainer.model
    inputs = {name: torch.from_numpy(batch[name]).to(model.device) for name in inputs_of(model)}
    with torch.inference_mode(), trainer.accelerator.autocast():
        logits = model.eval()(**inputs).logits.float().cpu().numpy()
    found = zip(first.labels, task.label_sets(task.answers(logits)), task.probabilities(logits), strict=True)
    names = splits.label_names
    return tuple(
        ExamplePrediction(
            text,
            ", ".join(names[i] for i in as_set(label)) or NO_LABEL,
            ", ".join(f"{names[i]} {row[i]:.1%}" for i in answer) or NO_LABEL,
        )
        for text, (label, answer, row) in zip(first.texts, found, strict=True)
    )


def _describe(
    config: TrainConfig,
    splits: Splits,
    model: Trained,
    scores: tuple[EpochScores, ...],
    best_epoch: int,
    hardware: Hardware,
    choice: TruncationChoice | None,
    started: float,
) -> Training:
    trainable, total = count_parameters(model)
    return Training(
        config=config,
        train_texts=len(splits.train),
        duplicates_dropped=splits.duplicates_dropped,
        trainable_parameters=trainable,
        total_parameters=total,
        epochs=scores,
        best_epoch=best_epoch,
        device=hardware.name,
        precision=hardware.precision,
        duration_s=time.monotonic() - started,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        data_sha256=splits.sha256(),
        eval_dataset=splits.eval_source,
        truncation_choice=choice,
    )
