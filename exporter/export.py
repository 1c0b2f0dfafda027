"""The export: merge, convert, fuse, quantize, prove each step, choose, and only then put the artifacts in place."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from exporter.artifacts import (
    MERGED,
    ONNX_FP32,
    ONNX_INT8,
    Artifact,
    Candidate,
    Comparison,
    ExportRecord,
    Precision,
    Tolerance,
    seal,
)
from exporter.card import CARD, Measured, render
from exporter.config import ExportConfig, Quantize
from exporter.convert import convert
from exporter.golden import write_golden
from exporter.graph import describe, fuse, has_vnni, instruction_sets, split_gemm
from exporter.ladder import Bench, Ladder, climb, recipes, say, variations
from exporter.merge import copy_tokenizer, merge
from exporter.probabilities import FloatArray
from exporter.quantize import Ingredients, Recipe
from exporter.reference import TorchClassifier, adapter_encoder
from exporter.runtime import BATCH_TOKENS, Classifier, Feeds, usable_cores
from exporter.select import Choice, choose
from exporter.verify import (
    SAME_ANSWERS,
    SAME_NUMBERS,
    Answers,
    Runs,
    ask,
    check,
    check_labels,
    choose_reviews,
    compare,
    plan,
)
from exporter.weights import check_weights
from exporter.worker import Form, Worker
from trainer.data import Examples, read_examples
from trainer.encoding import Encoder
from trainer.records import file_sha256, installed_versions, write_record, write_text
from trainer.run import RunDir, TrainRecord

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "nncf",
)
ADAPTER = "adapter"
UNFUSED = "onnx-unfused"
VARIED_REVIEWS = 64


def export(config: ExportConfig) -> ExportRecord:
    """Export the run in `config.run_dir` and leave its artifacts and record there.

    Raises:
        UserError: there is no trained run, or it cannot be exported.
        VerificationError: an artifact is not the classifier that it was made from. An earlier export is left as it was.
    """
    started = time.monotonic()
    run = RunDir(config.run_dir)
    train = run.load()
    with _workspace(run) as folder:
        stage = Stage.set_up(run, train, folder, config.verify_samples)
        fused, fp32_logits = _to_onnx(stage, fuse_graph=not config.no_fuse)
        ladder, choice = Ladder(), NO_INT8
        if config.quantize:
            ladder, choice = _quantize(stage, config, config.quantize, fp32_logits)
        _bundle(stage, fp32_logits, choice.int8)
        chosen = ONNX_INT8 if choice.ship_int8 else ONNX_FP32
        say(f"asking {chosen} in batches, padded, and with other threads")
        varied = variations(folder / chosen, stage.encoder, stage.few(VARIED_REVIEWS), stage.threads)
        record = ExportRecord(
            config=config,
            run_sha256=file_sha256(run.record),
            instruction_sets=instruction_sets(),
            fused=fused,
            artifacts=tuple(stage.artifacts),
            chosen=chosen,
            reason=choice.reason,
            comparisons=tuple(stage.chain.comparisons),
            candidates=tuple(ladder.candidates),
            failed=tuple(ladder.failed),
            skipped=tuple(ladder.skipped),
            int8_recipe=choice.int8.recipe if choice.int8 else None,
            variations=tuple(varied),
            duration_s=time.monotonic() - started,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=installed_versions(PACKAGES),
        )
        shutil.rmtree(stage.scratch)
        _put_in_place(run, folder, record)
    return record


NO_INT8 = Choice(None, ship_int8=False, reason="int8 was not asked for; `--quantize` tries it")


class Chain:
    """The forms that a classifier takes, each compared with the one it was made from and with the adapter."""

    def __init__(self, encoder: Encoder, reviews: Examples, classes: int) -> None:
        self._classes = classes
        self._plan = plan(encoder, reviews.texts)
        self._labels = reviews.labels
        self._answers: dict[str, Answers] = {}
        self.comparisons: list[Comparison] = []

    def add(self, name: str, form: Runs, *, after: str | None = None, tolerance: Tolerance = SAME_NUMBERS) -> None:
        """Add a form.

        Args:
            name: what to call it.
            form: the form, reloaded from disk in a process of its own.
            after: the form it was made from; None for the first.
            tolerance: how far it may be from that, and from the adapter.

        Raises:
            VerificationError: it differs by more.
        """
        answers = ask(name, form, self._plan, self._classes)
        made = []
        for reference in dict.fromkeys([after, ADAPTER]) if after else ():
            comparison = compare(self._answers[reference], answers, self._labels, tolerance, names=(name, reference))
            check(comparison)
            made.append(comparison)
        self.comparisons += made
        self._answers[name] = answers

    def link(self, name: str) -> Comparison:
        """Return the comparison of a form with the adapter."""
        return next(c for c in self.comparisons if (c.candidate, c.reference) == (name, ADAPTER))


@dataclass(frozen=True)
class Stage:
    """Where an export is built, and what it is built from and measured on."""

    run: RunDir
    train: TrainRecord
    folder: Path
    """What becomes the run's export."""
    encoder: Encoder
    evaluation: Examples
    calibration: Examples
    chain: Chain
    artifacts: list[Artifact]
    threads: int

    @classmethod
    def set_up(cls, run: RunDir, train: TrainRecord, folder: Path, most: int) -> Stage:
        """Read what the run left; `most` evaluation reviews make the chain."""
        encoder = adapter_encoder(run, train)
        evaluation = read_examples(run.evaluation, train.label_names)
        lengths = [len(e) for e in encoder.encode(evaluation.texts)]
        return cls(
            run=run,
            train=train,
            folder=folder,
            encoder=encoder,
            evaluation=evaluation,
            calibration=read_examples(run.calibration, train.label_names),
            chain=Chain(encoder, choose_reviews(evaluation, lengths, most), len(train.label_names)),
            artifacts=[],
            threads=usable_cores(),
        )

    @property
    def scratch(self) -> Path:
        """What is needed on the way and shipped to nobody."""
        return self.folder / "scratch"

    def seal(self, folder: Path, *, model_file: str, precision: Precision) -> Artifact:
        """Make `folder` an artifact of this run."""
        check_labels(folder, self.train.label_names)
        return seal(folder, model_file=model_file, precision=precision, train=self.train)

    def load(self, name: str, load: Callable[[], Form]) -> contextlib.closing[Worker]:
        """Load a form in a process of its own, for the length of a `with`."""
        return closing(Worker(name, load, self.threads))

    def few(self, most: int) -> Examples:
        """Return up to `most` evaluation reviews of all lengths, mixed, so that a batch of them is padded."""
        lengths = [len(e) for e in self.encoder.encode(self.evaluation.texts)]
        some = choose_reviews(self.evaluation, lengths, most)
        return some.take(random.Random(0).sample(range(len(some)), len(some)))


def _to_onnx(stage: Stage, *, fuse_graph: bool) -> tuple[dict[str, int], FloatArray]:
    """Make the merged checkpoint and the ONNX model in fp32, and prove both.

    Returns:
        What was fused, and the logits of the ONNX model for the evaluation reviews.
    """
    with stage.load(ADAPTER, partial(TorchClassifier.load_adapter, stage.run)) as form:
        stage.chain.add(ADAPTER, form)

    merged = stage.folder / MERGED
    say(f"merging the adapter into `{stage.train.base.name}`")
    merge(stage.run, stage.train, merged)
    stage.artifacts.append(stage.seal(merged, model_file="model.safetensors", precision="fp32"))
    with stage.load(MERGED, partial(TorchClassifier.load, merged)) as form:
        stage.chain.add(MERGED, form, after=ADAPTER)

    unfused = stage.scratch / UNFUSED
    say("converting to ONNX")
    convert(merged, unfused)
    split_gemm(unfused / "model.onnx")
    stage.seal(unfused, model_file="model.onnx", precision="fp32")
    with stage.load(UNFUSED, partial(Classifier.load, unfused, threads=stage.threads)) as form:
        stage.chain.add(UNFUSED, form, after=MERGED)

    fp32 = stage.folder / ONNX_FP32
    _copy_around_model(unfused, fp32)
    fused = fuse(unfused / "model.onnx", fp32 / "model.onnx", merged) if fuse_graph else {}
    if fuse_graph and not fused:
        say("onnxruntime's optimizer does not know this architecture: its graph stays as it was converted")
    if not fused:
        shutil.copyfile(unfused / "model.onnx", fp32 / "model.onnx")
    describe(fp32 / "model.onnx", stage.train)
    stage.seal(fp32, model_file="model.onnx", precision="fp32")
    with stage.load(ONNX_FP32, partial(Classifier.load, fp32, threads=stage.threads)) as form:
        stage.chain.add(ONNX_FP32, form, after=UNFUSED)
        return fused, form.logits(stage.evaluation.texts, BATCH_TOKENS)


def _quantize(stage: Stage, config: ExportConfig, family: Quantize, fp32_logits: FloatArray) -> tuple[Ladder, Choice]:
    """Climb the ladder, choose, and keep the best int8 artifact."""
    unfused, fp32 = stage.scratch / UNFUSED, stage.folder / ONNX_FP32
    reduce_range = config.target == "portable" or not has_vnni(instruction_sets())
    rungs = [recipe for recipe in recipes(family) if recipe.reduces_range or not reduce_range]
    if reduce_range:
        say("keeping int8 weights to 7 bits, for CPUs whose sums of 8-bit products can overflow")
    ingredients = Ingredients(
        calibration=_feeds(unfused, stage),
        threads=stage.threads,
        reduce_range=reduce_range,
    )

    def make(recipe: Recipe) -> Path:
        say(f"quantizing to int8: {recipe.name}")
        folder = stage.scratch / recipe.name
        _copy_around_model(unfused, folder)
        recipe.make(unfused / "model.onnx", folder / "model.onnx", ingredients)
        describe(folder / "model.onnx", stage.train)
        if recipe.keeps_weights:
            check_weights(unfused / "model.onnx", folder / "model.onnx", recipe.name)
        stage.seal(folder, model_file="model.onnx", precision="int8")
        return folder

    def prove(recipe: Recipe, form: Worker) -> None:
        stage.chain.add(recipe.name, form, after=UNFUSED, tolerance=SAME_ANSWERS)

    with stage.load(ONNX_FP32, partial(Classifier.load, fp32, threads=stage.threads)) as form:
        bench = Bench(
            fp32=form,
            fp32_logits=fp32_logits,
            gate=stage.evaluation,
            some=stage.few(VARIED_REVIEWS),
            max_drop=config.max_drop,
            tried=sum(recipe.is_usable() for recipe in rungs),
            threads=stage.threads,
        )
        ladder = climb(rungs, make, prove, bench, minutes=config.budget_minutes)
    choice = choose(ladder.candidates, max_drop=config.max_drop, accept_undecided=config.accept_undecided)
    if choice.int8:
        int8 = stage.folder / ONNX_INT8
        (stage.scratch / choice.int8.recipe).rename(int8)
    return ladder, choice


def _feeds(model: Path, stage: Stage) -> list[Feeds]:
    """Return the inputs of an ONNX artifact for the calibration reviews, one each."""
    classifier = Classifier.load(model)
    return [classifier.feeds([e]) for e in stage.encoder.encode(stage.calibration.texts)]


def _bundle(stage: Stage, fp32_logits: FloatArray, int8: Candidate | None) -> None:
    """Complete the ONNX artifacts: golden answers, a card, and the checksums of all."""
    accuracy = float((fp32_logits.argmax(-1) == np.asarray(stage.evaluation.labels)).mean())
    _complete(stage, ONNX_FP32, "fp32", Measured(accuracy, len(fp32_logits), stage.chain.link(ONNX_FP32), None))
    if int8:
        measured = Measured(accuracy + int8.change.change, len(fp32_logits), stage.chain.link(int8.recipe), int8)
        _complete(stage, ONNX_INT8, "int8", measured)


def _complete(stage: Stage, name: str, precision: Precision, measured: Measured) -> None:
    folder = stage.folder / name
    with stage.load(name, partial(Classifier.load, folder, threads=stage.threads)) as form:
        write_golden(folder, form.logits, precision)
    artifact = stage.seal(folder, model_file="model.onnx", precision=precision)
    write_text(folder / CARD, render(artifact, stage.train, measured))
    stage.artifacts.append(stage.seal(folder, model_file="model.onnx", precision=precision))


def _copy_around_model(source: Path, folder: Path) -> None:
    """Copy the tokenizer and the configuration, all of an ONNX artifact but the model."""
    folder.mkdir()
    copy_tokenizer(source, folder)
    shutil.copyfile(source / "config.json", folder / "config.json")


@contextlib.contextmanager
def _workspace(run: RunDir) -> Iterator[Path]:
    """Give a folder beside the export to build in, gone afterwards whatever happens."""
    folder = run.path / "export.partial"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "scratch").mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(run: RunDir, folder: Path, record: ExportRecord) -> None:
    """Replace the run's export by `folder`; without its record, which goes first, nobody takes either for whole."""
    written = folder / run.export_record.name
    write_record(written, record)  # before anything is removed: a record that cannot be written must cost nothing
    run.export_record.unlink(missing_ok=True)
    if run.export.exists():
        shutil.rmtree(run.export)
    folder.rename(run.export)
    (run.export / written.name).replace(run.export_record)
