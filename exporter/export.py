"""The export: merge, convert, fuse, quantize, prove each step, choose, and only then put the artifacts in place."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from exporter.bundle.artifact import (
    CARD,
    MERGED,
    ONNX_BF16_OPENVINO,
    ONNX_FP16,
    ONNX_FP32,
    ONNX_INT8,
    ONNX_INT8_OPENVINO,
    Artifact,
    Precision,
    open_artifact,
    seal,
    with_size,
)
from exporter.bundle.golden import write_golden
from exporter.card import Facts, render, tell_against
from exporter.cascade.gate import Gate
from exporter.cascade.ready import Ready, make_ready
from exporter.cascade.shift import read_shifts, score_shifts
from exporter.cascade.trial import CascadeTrial
from exporter.checksums import CHECKSUMS, write_checksums
from exporter.config import ExportConfig, Target
from exporter.convert.graph import finish_conversion, fuse
from exporter.convert.merge import copy_around_model, merge
from exporter.convert.positions import slice_positions
from exporter.convert.shortcut import shorten
from exporter.convert.to_onnx import check_exporter, convert
from exporter.engines.cascade import load_both
from exporter.engines.cores import gpu_name, usable_cores
from exporter.engines.engine import Engine, ModelEngine, usual_batching
from exporter.engines.onnxruntime import GPU_BATCHING, Feeds, OnnxModel, load_engine, open_engine
from exporter.engines.plan import plan_path
from exporter.engines.spec import Device
from exporter.engines.table import LOAD
from exporter.half.attention import kernels_of, open_telling
from exporter.half.device import usable_gpu, wake
from exporter.half.ladder import try_halves
from exporter.half.recipes import HALF_RECIPES
from exporter.int8.ladder import Baseline, try_recipes
from exporter.int8.recipes import RECIPES, Ingredients, Recipe, of_family
from exporter.int8.select import choose, choose_for_openvino
from exporter.int8.target import instruction_sets, sums_bytes_exactly
from exporter.proof.against import Other, compare, weights_bytes
from exporter.proof.chain import Chain
from exporter.proof.reference import Dtype, load_trained, open_merged
from exporter.proof.variations import variations
from exporter.proof.verify import SAME_HALVES
from exporter.proof.worker import MANY_CORES, Spares, StartWorker, Worker, Workers
from exporter.records import PARTIAL, Candidate, ExportRecord, FailedRecipe, GpuSpeed, OtherRun, settle_export
from exporter.subject import Subject
from exporter.tune.tune import plan_of
from trainer.errors import UserError
from trainer.progress import say
from trainer.records import file_sha256, installed_versions, write_record, write_text
from trainer.run import CALIBRATION_TEXTS, RunDir
from trainer.tasks import FloatArray

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
)
TRAINED = "adapter"
"""What the proof begins with."""
UNFUSED = Path("scratch", "onnx-unfused")
"""A step on the way; what lies beside it is not shipped either."""
MODEL = "model.onnx"
HALF_BATCHES_ON_CPU = 64
"""Of the proof, for half precision without a GPU: a CPU takes long for them."""
NO_GPU = (
    "since no GPU could be used here: `onnx-fp16` was proved on this CPU, and measured nowhere; run this command on a "
    "machine with a GPU to have it judged and timed"
)
PYTORCH_STEPS = 4
"""What was trained, what was merged, and the two that are timed beside half precision."""
PLAN_SECONDS = 6.0
"""For a plan at the end of an export; `python -m exporter.tune` takes longer, and is surer."""


@dataclass(frozen=True)
class Beside:
    """An artifact beside `onnx-fp32`, shipped or not."""

    name: str
    precision: Precision
    recipe: str
    """What made it, which is what its step in the proof is called."""
    rung: Candidate | None
    """What it measured; None for half precision where there is no GPU."""


@dataclass(frozen=True)
class Outcome:
    """Which artifact to ship, and what there is beside fp32."""

    chosen: str
    reason: str
    beside: tuple[Beside, ...] = ()
    """What else there is."""
    fp16_fused: dict[str, int] = field(default_factory=dict)
    gpu_speeds: tuple[GpuSpeed, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    failed: tuple[FailedRecipe, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def rivals(self) -> int:
        """How many candidates the artifact to ship was chosen among: those for OpenVINO are chosen among apart."""
        return sum(candidate.engine == "onnxruntime" for candidate in self.candidates)

    def recipe_of(self, *artifacts: str) -> str | None:
        """Return the recipe of the artifact that is called so, None where there is none."""
        return next((other.recipe for other in self.beside if other.name in artifacts), None)


def export(
    config: ExportConfig,
    start: StartWorker = Worker,
    recipes: Sequence[Recipe] = RECIPES,
    plan_seconds: float = 0.0,
) -> ExportRecord:
    """Export the run in `config.run_dir` and leave its artifacts and record there.

    Args:
        config: what is asked for.
        start: starts the process in which a step is loaded.
        recipes: the int8 recipes to choose from.
        plan_seconds: to find the fastest way to score many texts here with the chosen artifact; no plan is made if 0.

    Raises:
        UserError: there is no trained run, or it cannot be exported.
        VerificationError: an artifact is not the classifier that it was made from. An earlier export is left as it was.
    """
    check_exporter(config.exporter)
    run = RunDir(config.run_dir)
    with run.held():
        started = time.monotonic()
        subject = Subject.read(run, calibration=config.quantize is not None)
        with _workers(start, config.target) as workers:
            gpu = usable_gpu() if config.target == "cuda" else None
            return _export(subject, config, workers, gpu, recipes, plan_seconds, started)


@contextlib.contextmanager
def _workers(start: StartWorker, target: Target) -> Iterator[Workers]:
    """Have processes started ahead where they import PyTorch and wake a GPU, and there are cores for that."""
    threads = usable_cores()
    if target == "cuda" and gpu_name() and threads >= MANY_CORES and start is Worker:
        spares = Spares(threads, (load_trained, open_merged), wake, ahead=2, most=PYTORCH_STEPS)
        with contextlib.closing(spares):
            yield Workers(threads, spares)
    else:
        yield Workers(threads, start)


def _export(
    subject: Subject,
    config: ExportConfig,
    workers: Workers,
    gpu: str | None,
    recipes: Sequence[Recipe],
    plan_seconds: float,
    started: float,
) -> ExportRecord:
    other = Other.read(config.against_run, subject) if config.against_run else None
    if subject.train.task == "multi-label":
        subject = _choose_thresholds(subject, workers)
    chain = _chain(subject, config.verify_samples, workers)
    tried, shifts = _to_try(recipes, config)[0], read_shifts(config.shift, subject)
    ready = make_ready(subject, config, sum(r.engine == "onnxruntime" and r.is_usable() for r in tried))
    with _workspace(subject.run) as folder:
        device: Device = "cuda" if gpu else "cpu"
        shortcut = _convert(subject, folder, chain, workers, config, device)
        fused, logits = _fuse(
            subject, folder, chain, workers, device, fuse_graph=not config.no_fuse, shortened=shortcut
        )
        if config.target == "cuda":
            outcome = _for_gpus(subject, folder, chain, workers, logits, config, gpu, shortened=shortcut)
        else:
            cascades = int(isinstance(ready, Ready))
            outcome = _quantize(subject, folder, chain, workers, logits, config, recipes, cascades=cascades)
        score = subject.score(logits)
        artifacts = _seal(subject, folder, chain, outcome, score, gpu)
        _check_sealed(folder, artifacts, workers)
        cascade = _try_cascade(ready, subject, folder, workers, logits, outcome, config)
        against = _compare(subject, other, folder, outcome, cascade, logits, workers, config, device) if other else None
        artifacts = tuple(open_artifact(folder / a.name) for a in artifacts)
        varied = variations(folder / outcome.chosen, subject.encoder, subject.varied(), subject.task, workers, device)
        if plan_seconds:
            served = [a for a in artifacts if a.name == outcome.chosen or a.engine == "openvino"]
            _plan(subject, folder, served, workers, plan_seconds, device)
        record = ExportRecord(
            config=config,
            run_sha256=file_sha256(subject.run.record),
            instruction_sets=instruction_sets(),
            shortcut=shortcut,
            fused=fused,
            fp16_fused=outcome.fp16_fused,
            texts=len(subject.evaluation),
            metric=subject.task.metric,
            score=score,
            artifacts=artifacts,
            artifact_sha256={a.name: file_sha256(folder / a.name / CHECKSUMS) for a in artifacts},
            chosen=outcome.chosen,
            reason=outcome.reason,
            comparisons=tuple(chain.comparisons),
            candidates=outcome.candidates,
            failed=outcome.failed,
            skipped=outcome.skipped,
            int8_recipe=outcome.recipe_of(ONNX_INT8),
            openvino_recipe=outcome.recipe_of(ONNX_INT8_OPENVINO, ONNX_BF16_OPENVINO),
            fp16_recipe=outcome.recipe_of(ONNX_FP16),
            gpu=gpu,
            gpu_speeds=outcome.gpu_speeds,
            attention=_attention(subject, folder / outcome.chosen, workers) if gpu else (),
            variations=varied,
            against=against,
            cascade=cascade,
            shift=score_shifts(shifts, subject, folder / outcome.chosen, workers, device),
            duration_s=time.monotonic() - started,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=installed_versions(PACKAGES),
        )
        _put_in_place(subject.run, folder, record)
    return record


def _chain(subject: Subject, most: int, workers: Workers) -> Chain:
    names = subject.train.label_names
    return Chain(subject.encoder, subject.evaluation, names, subject.task, most=most, workers=workers)


def _choose_thresholds(subject: Subject, workers: Workers) -> Subject:
    """Let what was trained answer the calibration texts, and choose from which probability on a label is given."""
    say(f"choosing thresholds on {len(subject.calibration):,} texts")
    with workers.opened(TRAINED, partial(load_trained, subject.run)) as worker:
        return subject.with_thresholds(worker.logits(subject.calibration.texts, usual_batching(workers.threads)))


def _convert(
    subject: Subject, folder: Path, chain: Chain, workers: Workers, config: ExportConfig, device: Device
) -> bool:
    """Merge, convert to ONNX, and prove both.

    Returns:
        Whether the last layer works for the first token alone. PyTorch's does not, so the proof sees both.
    """
    chain.begin(TRAINED, partial(load_trained, subject.run, device))
    merged, unfused = folder / MERGED, folder / UNFUSED
    if subject.run.has_adapter():
        say(f"merging the adapter into `{subject.train.base.name}`")
    merge(subject.run, subject.train, merged)
    load = partial(open_merged, merged, subject.artifact(MERGED, "fp32", "model.safetensors"), device)
    with chain.proved(merged, load, after=TRAINED):
        pass
    say("converting to ONNX")
    convert(merged, unfused, config.exporter)
    finish_conversion(unfused / MODEL, subject.metadata())
    shortcut = shorten(unfused / MODEL)
    if config.target == "cuda":
        slice_positions(unfused / MODEL)
    with chain.proved(unfused, _opening(subject, unfused, "fp32", workers, device), after=MERGED):
        return shortcut


def _fuse(
    subject: Subject, folder: Path, chain: Chain, workers: Workers, device: Device, *, fuse_graph: bool, shortened: bool
) -> tuple[dict[str, int], FloatArray]:
    """Make the artifact in fp32 and prove it.

    Returns:
        What was fused, and its logits for the evaluation texts.
    """
    unfused, fp32 = folder / UNFUSED, folder / ONNX_FP32
    copy_around_model(unfused, fp32)
    fused = fuse(unfused / MODEL, fp32 / MODEL, folder / MERGED, shortened=shortened) if fuse_graph else {}
    if fuse_graph and not fused:
        say("onnxruntime's optimizer does not know this architecture: its graph stays as it was converted")
    if not fused:
        shutil.copyfile(unfused / MODEL, fp32 / MODEL)
    with chain.proved(fp32, _opening(subject, fp32, "fp32", workers, device), after=unfused.name) as worker:
        write_golden(fp32, worker.logits, "fp32", pairs=subject.train.pairs)
        batching = usual_batching(workers.threads) if device == "cpu" else GPU_BATCHING
        return fused, worker.logits(subject.evaluation.texts, batching)


def _for_gpus(
    subject: Subject,
    folder: Path,
    chain: Chain,
    workers: Workers,
    fp32_logits: FloatArray,
    config: ExportConfig,
    gpu: str | None,
    *,
    shortened: bool,
) -> Outcome:
    """Make half precision: on the GPU that is here, or on the CPU, where nothing can be said of its speed."""
    if gpu:
        return _try_halves(subject, folder, chain, workers, fp32_logits, config, shortened=shortened)
    return _halve(subject, folder, chain, workers, fuse_graph=not config.no_fuse, shortened=shortened)


def _halve(
    subject: Subject, folder: Path, chain: Chain, workers: Workers, *, fuse_graph: bool, shortened: bool
) -> Outcome:
    """Make the artifact in half precision where there is no GPU: proved on the CPU, on a few texts, and not measured.

    CPUs have no arithmetic for it: what they take for it says nothing about a GPU.
    """
    recipe = next(recipe for recipe in HALF_RECIPES if recipe.fuses == fuse_graph)
    say(f"converting to half precision: {recipe.name}")
    unfused = folder / UNFUSED
    fp16 = unfused.with_name(recipe.name)
    copy_around_model(unfused, fp16)
    fused = recipe.make(unfused / MODEL, fp16 / MODEL, folder / MERGED, shortened=shortened)
    load = _opening(subject, fp16, "fp16", workers)
    with chain.proved(
        fp16, load, after=unfused.name, tolerance=SAME_HALVES, most_batches=HALF_BATCHES_ON_CPU
    ) as worker:
        write_golden(fp16, worker.logits, "fp16", pairs=subject.train.pairs)
    fp16.rename(folder / ONNX_FP16)
    return Outcome(ONNX_FP32, NO_GPU, (Beside(ONNX_FP16, "fp16", recipe.name, None),), fp16_fused=fused)


def _try_halves(
    subject: Subject,
    folder: Path,
    chain: Chain,
    workers: Workers,
    fp32_logits: FloatArray,
    config: ExportConfig,
    *,
    shortened: bool,
) -> Outcome:
    """Try recipes for half precision on the GPU, choose, and keep the best artifact."""
    unfused, fp32, merged = folder / UNFUSED, folder / ONNX_FP32, folder / MERGED
    artifact = subject.artifact(MERGED, "fp32", "model.safetensors")
    dtypes: tuple[Dtype, ...] = ("fp16", "bf16")
    peers = {f"pytorch-{dtype}": partial(open_merged, merged, artifact, "cuda", dtype) for dtype in dtypes}
    as_it_serves = partial(
        open_engine, fp32, subject.artifact(ONNX_FP32, "fp32"), device="cuda", threads=workers.threads
    )
    with workers.opened(fp32.name, as_it_serves) as worker:
        baseline = Baseline(worker, fp32_logits, subject.evaluation, subject.varied(), chain, subject.task)
        halves = try_halves(
            [recipe for recipe in HALF_RECIPES if not (recipe.fuses and config.no_fuse)],
            unfused,
            merged,
            lambda path: _opening(subject, path, "fp16", workers, "cuda"),
            baseline,
            peers,
            workers,
            shortened=shortened,
            pairs=subject.train.pairs,
        )
    candidates = halves.candidates(config.max_drop)
    choice = choose(
        candidates, max_drop=config.max_drop, accept_undecided=config.accept_undecided, precision="half-precision"
    )
    if choice.best:
        (unfused.parent / choice.best.recipe).rename(folder / ONNX_FP16)
    return Outcome(
        chosen=ONNX_FP16 if choice.ships else ONNX_FP32,
        reason=choice.reason,
        beside=(Beside(ONNX_FP16, "fp16", choice.best.recipe, choice.best),) if choice.best else (),
        fp16_fused=halves.fused_of(choice.best),
        gpu_speeds=halves.speeds(),
        candidates=tuple(candidates),
        failed=halves.failed,
    )


def _attention(subject: Subject, folder: Path, workers: Workers) -> tuple[str, ...]:
    """Return which kernels compute the attention of a sealed bundle on the GPU."""
    load = partial(open_telling, partial(load_engine, folder, device="cuda", threads=workers.threads))
    with workers.opened(folder.name, load) as worker:
        return worker.call(kernels_of, subject.varied().texts, GPU_BATCHING)


def _to_try(recipes: Sequence[Recipe], config: ExportConfig) -> tuple[Sequence[Recipe], bool]:
    """Return the recipes to try for int8, and whether they have to keep weights to 7 bits."""
    if config.quantize is None:
        return (), False
    reduce_range = config.target == "portable" or not sums_bytes_exactly(instruction_sets())
    return of_family(recipes, config.quantize, reduce_range=reduce_range), reduce_range


def _quantize(
    subject: Subject,
    folder: Path,
    chain: Chain,
    workers: Workers,
    fp32_logits: FloatArray,
    config: ExportConfig,
    recipes: Sequence[Recipe],
    *,
    cascades: int,
) -> Outcome:
    """Try recipes where that is asked for, choose, and keep the best artifact for each engine."""
    if config.quantize is None:
        return Outcome(ONNX_FP32, "int8 was not asked for; `--quantize` tries it")
    unfused, fp32 = folder / UNFUSED, folder / ONNX_FP32
    tried, reduce_range = _to_try(recipes, config)
    if reduce_range:
        say("keeping int8 weights to 7 bits, for CPUs whose sums of 8-bit products can overflow")
    ingredients = Ingredients(_feeds(subject, unfused, workers), subject.task, workers.threads, reduce_range)
    with workers.opened(fp32.name, _opening(subject, fp32, "fp32", workers)) as worker:
        baseline = Baseline(worker, fp32_logits, subject.evaluation, subject.varied(), chain, subject.task)
        artifact = subject.artifact(ONNX_INT8, "int8")
        ladder = try_recipes(tried, unfused, artifact, ingredients, baseline, minutes=config.budget_minutes)
    candidates = ladder.judged(config.max_drop, cascades=cascades)
    limits: dict[str, Any] = {"max_drop": config.max_drop, "accept_undecided": config.accept_undecided}
    choice = choose([c for c in candidates if c.engine == "onnxruntime"], **limits)
    kept = [rung for rung in (choice.best, choose_for_openvino(candidates, **limits)) if rung]
    for rung in kept:
        (unfused.parent / rung.recipe).rename(folder / _name(rung))
    return Outcome(
        chosen=ONNX_INT8 if choice.ships else ONNX_FP32,
        reason=choice.reason,
        beside=tuple(
            Beside(_name(rung), "bf16" if rung.family == "bf16" else "int8", rung.recipe, rung) for rung in kept
        ),
        candidates=tuple(candidates),
        failed=ladder.failed,
        skipped=ladder.skipped,
    )


def _try_cascade(
    ready: Ready | str,
    subject: Subject,
    folder: Path,
    workers: Workers,
    fp32_logits: FloatArray,
    outcome: Outcome,
    config: ExportConfig,
) -> CascadeTrial:
    """Try a first stage before the sealed artifact in int8, which takes it in where that passes."""
    if not isinstance(ready, Ready):
        return CascadeTrial(shipped=False, reason=ready)
    if outcome.chosen != ONNX_INT8:
        return CascadeTrial(shipped=False, reason=f"it is tried before `{ONNX_INT8}` alone, which was not chosen")
    gate = Gate(subject, fp32_logits, workers, config.max_drop, 1 + outcome.rivals, stacked=config.stack)
    trial = gate.try_cascade(ready, folder / ONNX_INT8, (folder / UNFUSED).parent)
    for_openvino = [b.name for b in outcome.beside if b.name in (ONNX_INT8_OPENVINO, ONNX_BF16_OPENVINO)]
    if trial.shipped and for_openvino:
        beside = gate.time_beside(folder / for_openvino[0], folder / ONNX_INT8)
        return replace(trial, beside_openvino=beside)
    return trial


def _feeds(subject: Subject, folder: Path, workers: Workers) -> list[Feeds]:
    """Return an ONNX model's inputs for the calibration texts, one each."""
    model = _opening(subject, folder, "fp32", workers)().model
    texts = subject.calibration.texts[:CALIBRATION_TEXTS]
    return [model.feeds([encoded]) for encoded in model.encoder.encode(texts)]


def _opening(
    subject: Subject, folder: Path, precision: Precision, workers: Workers, device: Device = "cpu"
) -> partial[ModelEngine[OnnxModel]]:
    """Return what loads an ONNX model that is not sealed yet, to compute in the precision of its numbers."""
    artifact = subject.artifact(folder.name, precision)
    return partial(open_engine, folder, artifact, device=device, threads=workers.threads, exact=True)


def _compare(
    subject: Subject,
    other: Other,
    folder: Path,
    outcome: Outcome,
    cascade: CascadeTrial,
    fp32_logits: FloatArray,
    workers: Workers,
    config: ExportConfig,
    device: Device,
) -> OtherRun:
    """Let another run and the sealed artifact to ship answer the evaluation texts, and judge it and `onnx-fp32`.

    Their cards tell of it.
    """
    teacher, texts = other.subject, subject.evaluation.texts
    say(f"asking `{teacher.run.path}` the same {len(texts):,} texts")
    if teacher.train.task == "multi-label":
        other = replace(other, subject=_choose_thresholds(teacher, workers))
    batching = usual_batching(workers.threads) if device == "cpu" else GPU_BATCHING
    with workers.opened(TRAINED, partial(load_trained, teacher.run, device)) as worker:
        logits, size_bytes = worker.logits(texts, batching), worker.call(weights_bytes)
    answers = {folder / ONNX_FP32: fp32_logits}
    tried = 1
    if outcome.chosen != ONNX_FP32:
        path = folder / outcome.chosen
        tried += outcome.rivals + (cascade.judged is not None)
        with workers.opened(path.name, _opening_sealed(subject, path, workers, device)) as worker:
            answers[path] = worker.logits(texts, batching)
    found = compare(subject, other, logits, size_bytes, answers, config.max_drop, tried)
    for path in answers:
        write_text(path / CARD, tell_against((path / CARD).read_text(encoding="utf-8"), path.name, found))
        write_checksums(path)
    return found


def _opening_sealed(subject: Subject, folder: Path, workers: Workers, device: Device) -> Callable[[], Engine]:
    """Return what loads a sealed artifact, with its first stage where it has one, else as its model was proved."""
    artifact = open_artifact(folder)
    if artifact.cascade:
        return partial(load_both, folder, threads=workers.threads)
    return _opening(subject, folder, artifact.precision, workers, device)


def _seal(
    subject: Subject,
    folder: Path,
    chain: Chain,
    outcome: Outcome,
    score: float,
    gpu: str | None,
) -> tuple[Artifact, ...]:
    """Complete the artifacts with their cards, manifests and checksums.

    Returns:
        All artifacts, the merged checkpoint first.
    """
    texts = len(subject.evaluation)
    merged = with_size(folder / MERGED, subject.artifact(MERGED, "fp32", "model.safetensors"))
    seal(folder / MERGED, merged)
    facts = [(subject.artifact(ONNX_FP32, "fp32"), Facts(score, texts, chain.link(ONNX_FP32), None, gpu))]
    for other in outcome.beside:
        rung = other.rung
        artifact = subject.artifact(other.name, other.precision)
        if rung:
            artifact = replace(artifact, engine=rung.engine)
        own = score + rung.change.change if rung else None
        facts.append((artifact, Facts(own, texts, chain.link(other.recipe), rung, gpu)))
    artifacts = [merged]
    for unsized, known in facts:
        name = unsized.name
        artifact = with_size(folder / name, unsized)
        write_text(folder / name / CARD, render(artifact, subject.train, known))
        seal(folder / name, artifact)
        artifacts.append(artifact)
    return tuple(artifacts)


def _name(rung: Candidate) -> str:
    """Return what the artifact of a rung is called."""
    if rung.engine == "onnxruntime":
        return ONNX_INT8
    return ONNX_BF16_OPENVINO if rung.family == "bf16" else ONNX_INT8_OPENVINO


def _check_sealed(folder: Path, artifacts: Sequence[Artifact], workers: Workers) -> None:
    """Open every artifact as whoever deploys it does: its files, and what it answered when it was proved."""
    for artifact in artifacts:
        path = folder / artifact.name
        if artifact.model_file == MODEL:
            load = partial(LOAD[artifact.engine], path, threads=workers.threads)
            with workers.opened(artifact.name, load):
                pass
        else:
            open_artifact(path)


def _plan(
    subject: Subject, folder: Path, served: Sequence[Artifact], workers: Workers, seconds: float, device: Device
) -> None:
    """Find the fastest way to score many texts with each sealed bundle here, and write it beside the bundle."""
    for artifact in served:
        path = folder / artifact.name
        say(f"trying ways to score many texts with {artifact.name}")
        load = partial(LOAD[artifact.engine], path, device=device, threads=workers.threads)
        with workers.opened(artifact.name, load) as worker:
            sha256, texts = file_sha256(path / CHECKSUMS), subject.evaluation.texts
            try:
                plan = worker.call(plan_of, artifact.engine, sha256, texts, workers.threads, seconds, device)
                write_record(plan_path(path, device), plan)
            except (UserError, OSError) as error:  # nothing depends on it but speed
                say(f"no plan was made: {error}")


@contextlib.contextmanager
def _workspace(run: RunDir) -> Iterator[Path]:
    """Give a folder beside the export to build in, gone afterwards whatever happens."""
    settle_export(run)
    folder = run.path / PARTIAL
    shutil.rmtree(folder, ignore_errors=True)
    (folder / UNFUSED).parent.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(run: RunDir, folder: Path, record: ExportRecord) -> None:
    """Replace the run's export by `folder`."""
    shutil.rmtree((folder / UNFUSED).parent)
    write_record(folder / run.export_record.name, record)  # from now on `folder` is whole, whatever happens
    settle_export(run)
