"""The cascade: a first stage is tried before the artifact that was chosen, and before the one for OpenVINO."""

from __future__ import annotations

from dataclasses import replace

from exporter.bundle.artifact import ONNX_BF16_OPENVINO, ONNX_INT8, ONNX_INT8_OPENVINO, EngineName
from exporter.cascade.gate import Gate
from exporter.cascade.ready import Ready
from exporter.cascade.trial import CascadeTrial
from exporter.steps.fp32 import Fp32
from exporter.steps.job import Job
from exporter.steps.outcome import Outcome


def try_cascades(
    job: Job, fp32: Fp32, outcome: Outcome, ready: Ready | str
) -> tuple[CascadeTrial, CascadeTrial | None]:
    """Try a first stage before the sealed artifact in int8, and before that for OpenVINO.

    Each takes it in where that passes.

    Returns:
        What became of it before each; None where there is no artifact for OpenVINO, or no first stage to try.
    """
    if not isinstance(ready, Ready):
        return CascadeTrial(shipped=False, reason=ready), None

    def gate_for(engine: EngineName) -> Gate:
        tried, config = 1 + outcome.rivals(engine), job.config
        return Gate(job.subject, fp32.logits, job.workers, config.max_drop, tried, stacked=config.stack)

    gate, chosen = gate_for("onnxruntime"), job.folder / outcome.chosen
    if outcome.chosen == ONNX_INT8:
        trial = gate.try_cascade(ready, chosen, job.scratch)
    else:
        trial = CascadeTrial(shipped=False, reason=f"it is not tried before `{outcome.chosen}`, which was chosen")
    kept = next((b.name for b in outcome.beside if b.name in (ONNX_INT8_OPENVINO, ONNX_BF16_OPENVINO)), None)
    if kept is None:
        return trial, None
    for_openvino = gate_for("openvino").try_cascade(ready, job.folder / kept, job.scratch)
    if trial.shipped:
        trial = replace(trial, beside_openvino=gate.time_beside(job.folder / kept, chosen))
    return trial, for_openvino
