"""The export: merge, convert, fuse, quantize, prove each step, choose, and only then put the artifacts in place."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from exporter.bundle.golden import write_golden
from exporter.bundle.probabilities import FloatArray
from exporter.card import CARD, Facts, render
from exporter.config import ExportConfig, Quantize
from exporter.convert.graph import fuse, split_gemm, to_half, write_metadata
from exporter.convert.merge import merge
from exporter.convert.to_onnx import convert
from exporter.int8.ladder import Gate, climb, recipes, say, variations
from exporter.int8.recipes import Ingredients, Recipe
from exporter.int8.select import choose
from exporter.int8.target import instruction_sets, sums_bytes_exactly
from exporter.int8.weights import check_ranges, check_weights
from exporter.proof.reference import TorchClassifier
from exporter.proof.verify import SAME_ANSWERS, SAME_HALVES
from exporter.proof.worker import Worker
from exporter.records import (
    MERGED,
    ONNX_FP16,
    ONNX_FP32,
    ONNX_INT8,
    Artifact,
    Candidate,
    ExportRecord,
    FailedRecipe,
    Precision,
)
from exporter.runtime import BATCH_TOKENS
from exporter.stage import Stage, copy_around_model
from trainer.records import file_sha256, installed_versions, write_record, write_text
from trainer.run import RunDir

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


@dataclass(frozen=True)
class Outcome:
    """What there is beside fp32, and which artifact to ship."""

    chosen: str
    reason: str
    int8: Candidate | None = None
    """The best int8 candidate, shipped or not."""
    fp16_accuracy: float | None = None
    """Where there is an artifact in half precision."""
    fp16_fused: dict[str, int] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    failed: tuple[FailedRecipe, ...] = ()
    skipped: tuple[str, ...] = ()


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
        fused, logits = _to_onnx(stage, fuse_graph=not config.no_fuse)
        if config.quantize:
            outcome = _quantize(stage, config, config.quantize, logits)
        elif config.target == "cuda":
            outcome = _halve(stage, fuse_graph=not config.no_fuse)
        else:
            outcome = Outcome(ONNX_FP32, "int8 was not asked for; `--quantize` tries it")
        accuracy = _accuracy(stage, logits)
        artifacts = _bundle(stage, outcome, accuracy)
        say(f"asking {outcome.chosen} in batches, padded, and with other threads")
        varied = variations(folder / outcome.chosen, stage.encoder, stage.few(VARIED_REVIEWS), stage.threads)
        record = ExportRecord(
            config=config,
            run_sha256=file_sha256(run.record),
            instruction_sets=instruction_sets(),
            fused=fused,
            fp16_fused=outcome.fp16_fused,
            texts=len(stage.evaluation),
            accuracy=accuracy,
            artifacts=tuple(artifacts),
            chosen=outcome.chosen,
            reason=outcome.reason,
            comparisons=tuple(stage.chain.comparisons),
            candidates=outcome.candidates,
            failed=outcome.failed,
            skipped=outcome.skipped,
            int8_recipe=outcome.int8.recipe if outcome.int8 else None,
            variations=tuple(varied),
            duration_s=time.monotonic() - started,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=installed_versions(PACKAGES),
        )
        shutil.rmtree(stage.scratch)
        _put_in_place(run, folder, record)
    return record


def _to_onnx(stage: Stage, *, fuse_graph: bool) -> tuple[dict[str, int], FloatArray]:
    """Make the merged checkpoint and the ONNX model in fp32, and prove both.

    Returns:
        What was fused, and the logits of the ONNX model for the evaluation texts.
    """
    with stage.load(ADAPTER, partial(TorchClassifier.load_adapter, stage.run)) as form:
        stage.chain.add(ADAPTER, form)

    merged = stage.folder / MERGED
    if stage.run.has_adapter():
        say(f"merging the adapter into `{stage.train.base.name}`")
    merge(stage.run, stage.train, merged)
    stage.seal(merged, "fp32", model_file="model.safetensors")
    with stage.load(MERGED, partial(TorchClassifier.load, merged)) as form:
        stage.chain.add(MERGED, form, after=ADAPTER)

    unfused = stage.scratch / UNFUSED
    say("converting to ONNX")
    convert(merged, unfused)
    split_gemm(unfused / "model.onnx")
    stage.seal(unfused, "fp32")
    with stage.proved(unfused, after=MERGED):
        pass

    fp32 = stage.folder / ONNX_FP32
    copy_around_model(unfused, fp32)
    fused = fuse(unfused / "model.onnx", fp32 / "model.onnx", merged) if fuse_graph else {}
    if fuse_graph and not fused:
        say("onnxruntime's optimizer does not know this architecture: its graph stays as it was converted")
    if not fused:
        shutil.copyfile(unfused / "model.onnx", fp32 / "model.onnx")
    write_metadata(fp32 / "model.onnx", stage.train)
    stage.seal(fp32, "fp32")
    with stage.proved(fp32, after=UNFUSED) as form:
        return fused, form.logits(stage.evaluation.texts, BATCH_TOKENS)


def _halve(stage: Stage, *, fuse_graph: bool) -> Outcome:
    """Make the artifact for GPUs, in half precision."""
    unfused, fp16 = stage.scratch / UNFUSED, stage.folder / ONNX_FP16
    say("converting to half precision")
    copy_around_model(unfused, fp16)
    fused = to_half(unfused / "model.onnx", fp16 / "model.onnx", stage.folder / MERGED, fuse_graph=fuse_graph)
    write_metadata(fp16 / "model.onnx", stage.train)
    stage.seal(fp16, "fp16")
    with stage.proved(fp16, after=UNFUSED, tolerance=SAME_HALVES) as form:
        accuracy = _accuracy(stage, form.logits(stage.evaluation.texts, BATCH_TOKENS))
    reason = "half precision, for GPUs; it was proved on this CPU, on which its speed says nothing"
    return Outcome(ONNX_FP16, reason, fp16_accuracy=accuracy, fp16_fused=fused)


def _quantize(stage: Stage, config: ExportConfig, family: Quantize, fp32_logits: FloatArray) -> Outcome:
    """Climb the ladder, choose, and keep the best int8 artifact."""
    unfused = stage.scratch / UNFUSED
    reduce_range = config.target == "portable" or not sums_bytes_exactly(instruction_sets())
    rungs = [recipe for recipe in recipes(family) if recipe.reduces_range or not reduce_range]
    if reduce_range:
        say("keeping int8 weights to 7 bits, for CPUs whose sums of 8-bit products can overflow")
    calibration = stage.feeds(unfused)

    def make(recipe: Recipe, deadline: float) -> Path:
        say(f"quantizing to int8: {recipe.name}")
        folder = stage.scratch / recipe.name
        copy_around_model(unfused, folder)
        ingredients = Ingredients(calibration, stage.threads, reduce_range, deadline)
        recipe.make(unfused / "model.onnx", folder / "model.onnx", ingredients)
        write_metadata(folder / "model.onnx", stage.train)
        if recipe.keeps_weights:
            models = (unfused / "model.onnx", folder / "model.onnx")
            check_weights(*models, recipe.name)
            if recipe.family == "static":
                check_ranges(*models, calibration, recipe.name, clips=recipe.clips, threads=stage.threads)
        stage.seal(folder, "int8")
        return folder

    def prove(recipe: Recipe, form: Worker) -> None:
        stage.chain.add(recipe.name, form, after=UNFUSED, tolerance=SAME_ANSWERS)

    with stage.load_onnx(stage.folder / ONNX_FP32) as form:
        gate = Gate(form, fp32_logits, stage.evaluation, stage.few(VARIED_REVIEWS), stage.threads)
        ladder = climb(rungs, make, prove, gate, minutes=config.budget_minutes)
    candidates = ladder.judged(len(stage.evaluation), config.max_drop)
    choice = choose(candidates, max_drop=config.max_drop, accept_undecided=config.accept_undecided)
    if choice.int8:
        (stage.scratch / choice.int8.recipe).rename(stage.folder / ONNX_INT8)
    return Outcome(
        chosen=ONNX_INT8 if choice.ship_int8 else ONNX_FP32,
        reason=choice.reason,
        int8=choice.int8,
        candidates=tuple(candidates),
        failed=tuple(ladder.failed),
        skipped=tuple(ladder.skipped),
    )


def _accuracy(stage: Stage, logits: FloatArray) -> float:
    return float((logits.argmax(-1) == np.asarray(stage.evaluation.labels)).mean())


def _bundle(stage: Stage, outcome: Outcome, accuracy: float) -> list[Artifact]:
    """Complete the ONNX artifacts: golden answers, a card, and the checksums of all.

    Returns:
        All artifacts, the merged checkpoint first.
    """
    artifacts = [stage.seal(stage.folder / MERGED, "fp32", model_file="model.safetensors")]
    fp32 = Facts(accuracy, len(stage.evaluation), stage.chain.link(ONNX_FP32))
    artifacts.append(_complete(stage, ONNX_FP32, "fp32", fp32))
    if outcome.fp16_accuracy is not None:
        fp16 = Facts(outcome.fp16_accuracy, len(stage.evaluation), stage.chain.link(ONNX_FP16))
        artifacts.append(_complete(stage, ONNX_FP16, "fp16", fp16))
    if int8 := outcome.int8:
        facts = Facts(accuracy + int8.change.change, len(stage.evaluation), stage.chain.link(int8.recipe), int8)
        artifacts.append(_complete(stage, ONNX_INT8, "int8", facts))
    return artifacts


def _complete(stage: Stage, name: str, precision: Precision, facts: Facts) -> Artifact:
    folder = stage.folder / name
    with stage.load_onnx(folder) as form:
        write_golden(folder, form.logits, precision)
    artifact = stage.seal(folder, precision)
    write_text(folder / CARD, render(artifact, stage.train, facts))
    return stage.seal(folder, precision)


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
