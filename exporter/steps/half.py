"""Half precision: tried and chosen on the GPU that is here, or made on the CPU, and not measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from exporter.bundle.artifact import MERGED, ONNX_FP16, ONNX_FP32
from exporter.bundle.golden import write_golden
from exporter.engines.onnxruntime import GPU_BATCHING, load_engine, open_engine
from exporter.half.attention import kernels_of, open_telling
from exporter.half.ladder import Halves, Load, try_halves
from exporter.half.recipes import HALF_RECIPES, Source
from exporter.int8.select import choose
from exporter.proof.reference import Dtype, open_merged
from exporter.proof.verify import SAME_HALVES
from exporter.steps.fp32 import Fp32
from exporter.steps.job import Job
from exporter.steps.outcome import Beside, Outcome
from trainer.progress import say

BATCHES_ON_CPU = 64
"""Of the proof without a GPU: a CPU takes long for them."""
NO_GPU = (
    "since no GPU could be used here: `onnx-fp16` was proved on this CPU, and measured nowhere; run this command on a "
    "machine with a GPU to have it judged and timed"
)


def make_half(job: Job, fp32: Fp32) -> Outcome:
    """Make the artifact in half precision, and choose between it and fp32."""
    source = Source(job.unfused, job.merged, shortened=fp32.shortened, pairs=job.subject.train.pairs)
    return _choose(job, _try(job, fp32, source)) if job.gpu else _make_on_cpu(job, source)


def _make_on_cpu(job: Job, source: Source) -> Outcome:
    """Make the artifact where there is no GPU: proved on the CPU, on a few texts, and not measured.

    CPUs have no arithmetic for it: what they take for it says nothing about a GPU.
    """
    recipe = next(recipe for recipe in HALF_RECIPES if recipe.fuses != job.config.no_fuse)
    say(f"converting to half precision: {recipe.name}")
    fused = source.prepare(recipe)()
    fp16, load = source.folder_of(recipe), job.opening(source.folder_of(recipe), "fp16")
    with job.chain.proved(
        fp16, load, after=source.unfused.name, tolerance=SAME_HALVES, most_batches=BATCHES_ON_CPU
    ) as worker:
        write_golden(fp16, worker.logits, "fp16", pairs=source.pairs)
    fp16.rename(job.folder / ONNX_FP16)
    return Outcome(ONNX_FP32, NO_GPU, (Beside(ONNX_FP16, "fp16", recipe.name, None),), fp16_fused=fused)


def _try(job: Job, fp32: Fp32, source: Source) -> Halves:
    """Try the recipes on the GPU, beside fp32 as it serves there."""
    recipes = [recipe for recipe in HALF_RECIPES if not (recipe.fuses and job.config.no_fuse)]
    artifact = job.subject.artifact(ONNX_FP32, "fp32")
    as_it_serves = partial(open_engine, job.fp32, artifact, device=job.device, threads=job.workers.threads)
    with job.workers.opened(job.fp32.name, as_it_serves) as worker:
        return try_halves(
            recipes,
            source,
            lambda folder: job.opening(folder, "fp16"),
            fp32.baseline(job, worker),
            _peers(job),
            job.workers,
        )


def _peers(job: Job) -> dict[str, Load]:
    """Return what loads the merged checkpoint in PyTorch's half precisions."""
    artifact = job.subject.artifact(MERGED, "fp32", "model.safetensors")
    dtypes: tuple[Dtype, ...] = ("fp16", "bf16")
    return {f"pytorch-{dtype}": partial(open_merged, job.merged, artifact, job.device, dtype) for dtype in dtypes}


def _choose(job: Job, halves: Halves) -> Outcome:
    """Choose among what was tried, and keep the best artifact."""
    max_drop, accept_undecided = job.config.max_drop, job.config.accept_undecided
    candidates = halves.candidates(max_drop)
    choice = choose(candidates, max_drop=max_drop, accept_undecided=accept_undecided, precision="half-precision")
    if choice.best:
        (job.scratch / choice.best.recipe).rename(job.folder / ONNX_FP16)
    return Outcome(
        chosen=ONNX_FP16 if choice.ships else ONNX_FP32,
        reason=choice.reason,
        beside=(Beside(ONNX_FP16, "fp16", choice.best.recipe, choice.best),) if choice.best else (),
        fp16_fused=halves.fused_of(choice.best),
        gpu_speeds=halves.speeds(),
        candidates=tuple(candidates),
        failed=halves.failed,
    )


def find_attention(job: Job, folder: Path) -> tuple[str, ...]:
    """Return which kernels compute the attention of a sealed bundle on the GPU; none without one."""
    if not job.gpu:
        return ()
    load = partial(open_telling, partial(load_engine, folder, device=job.device, threads=job.workers.threads))
    with job.workers.opened(folder.name, load) as worker:
        return worker.call(kernels_of, job.subject.varied().texts, GPU_BATCHING)
