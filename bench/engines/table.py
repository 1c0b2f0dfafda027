"""The engines that a benchmark can measure. A new one is a file with its `ENGINES`, and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from bench.engines import ctranslate2, nncf, pipelines, pytorch, tfidf
from exporter.engines import cascade, onnxruntime, openvino
from exporter.engines.spec import EngineSpec
from trainer.errors import UserError

ENGINES = (
    *pytorch.ENGINES,
    *onnxruntime.ENGINES,
    *openvino.ENGINES,
    *cascade.ENGINES,
    *pipelines.ENGINES,
    *nncf.ENGINES,
    *ctranslate2.ENGINES,
    *tfidf.ENGINES,
)

REFERENCE = "pytorch-fp32-cpu"
"""What speed and accuracy are compared with."""


def choose_engines(
    names: Sequence[str] | None, *, peers: bool = False, engines: Sequence[EngineSpec] = ENGINES
) -> list[EngineSpec]:
    """Return the engines called `names`; all but other tools' where None, and those too if asked for.

    Raises:
        UserError: there is no engine of that name.
    """
    known = {spec.name: spec for spec in engines}
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f"no engine `{unknown[0]}`", f"choose among {', '.join(known)}")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    return [spec for spec in engines if (peers or not spec.is_peer) and not (spec.is_extra and spec.absent())]


def reference_of(engines: Sequence[EngineSpec]) -> EngineSpec:
    """Return what the others are compared with: PyTorch on the CPU, else another engine of ours in fp32.

    Without one, it is a model that answers alone, where there is one.
    """
    ours = [spec for spec in engines if spec.precision == "fp32" and not spec.is_peer]
    return min(ours or engines, key=lambda spec: (spec.name != REFERENCE, spec.has_first_stage, spec.name))
