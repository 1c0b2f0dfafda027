"""The cascade: a first stage is tried before the artifact that was chosen."""

from __future__ import annotations

from dataclasses import replace

from exporter.bundle.artifact import ONNX_BF16_OPENVINO, ONNX_INT8, ONNX_INT8_OPENVINO
from exporter.cascade.gate import Gate
from exporter.cascade.ready import Ready
from exporter.cascade.trial import CascadeTrial
from exporter.steps.fp32 import Fp32
from exporter.steps.job import Job
from exporter.steps.outcome import Outcome


def try_cascade(job: Job, fp32: Fp32, outcome: Outcome, ready: Ready | str) -> CascadeTrial:
    """Try a first stage before the sealed artifact in int8, which takes it in where that passes."""
    if not isinstance(ready, Ready):
        return CascadeTrial(shipped=False, reason=ready)
    if outcome.chosen != ONNX_INT8:
        return CascadeTrial(shipped=False, reason=f"it is tried before `{ONNX_INT8}` alone, which was not chosen")
    config, int8 = job.config, job.folder / ONNX_INT8
    gate = Gate(job.subject, fp32.logits, job.workers, config.max_drop, 1 + outcome.rivals, stacked=config.stack)
    trial = gate.try_cascade(ready, int8, job.scratch)
    for_openvino = [b.name for b in outcome.beside if b.name in (ONNX_INT8_OPENVINO, ONNX_BF16_OPENVINO)]
    if trial.shipped and for_openvino:
        return replace(trial, beside_openvino=gate.time_beside(job.folder / for_openvino[0], int8))
    return trial
