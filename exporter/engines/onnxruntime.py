"""ONNX Runtime: the engine that every bundle answers with, on CPUs and on CUDA.

The package itself is imported when a model is loaded: a benchmark lists this engine in processes that use another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.bundle.artifact import ONNX_FP16, ONNX_FP32, ONNX_INT8, Artifact, EngineName, open_artifact
from exporter.bundle.golden import check_golden
from exporter.checksums import check_checksums, manifest_sha256
from exporter.engines.captured import CAN_CAPTURE, Captured
from exporter.engines.engine import GPU_BLOCK_TEXTS, Batching, ModelEngine, load_encoder, usual_batching
from exporter.engines.plan import fitting_plan
from exporter.engines.shapes import FewShapes
from exporter.engines.spec import Device, EngineSpec
from trainer.errors import UserError
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded, Encoder, IntArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

    from trainer.run import RunDir

Feeds = dict[str, IntArray]
"""The inputs of an ONNX model by name, each [texts, tokens]."""

GPU_BATCHING = Batching(texts=1024, tokens=32_768)
"""Where nothing was measured: on an H200, 16,384 to 65,536 tokens were as fast as one another, and 4,096 too few."""
NOT_ON_CPU = ("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
"""There, a sum and its layer normalisation take several times as long in one operator as apart."""
IN_FP32 = {"use_tf32": "0"}
PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


class OnnxModel:
    """An ONNX model that takes encoded texts.

    Args:
        path: the model's file.
        encoder: its encoder.
        device: where to run it.
        threads: how many CPU threads one call may use.
        labels: how many logits there have to be for a text, where it is known.
        exact: whether fp32 is computed in fp32 on a GPU too, and not in TF32, which is three times as fast.

    Raises:
        UserError: the file cannot be loaded, or the device cannot be used.
    """

    def __init__(
        self,
        path: Path,
        encoder: Encoder,
        *,
        device: Device = "cpu",
        threads: int,
        labels: int | None = None,
        exact: bool = False,
    ) -> None:
        self.encoder = encoder
        self._labels = labels
        self.shapes = FewShapes(encoder.max_length) if device == "cuda" else None
        self._captured = _capturing(path, threads, labels, self.shapes, exact=exact) if self.shapes else None
        self.session = self._captured.session if self._captured else _session(path, device, threads, exact=exact)
        self._inputs = {node.name for node in self.session.get_inputs()}

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of one batch, [len(batch), classes], padded to the longest text or to `length` tokens."""
        rows, width = len(batch), length or max(map(len, batch))
        if self.shapes:
            rows, width = self.shapes.size(rows, width)
        feeds = self.feeds([*batch, *[batch[-1]] * (rows - len(batch))], width)
        try:
            logits = self._run(feeds)
        except Exception as error:  # onnxruntime raises classes of its own that it does not export
            reason = str(error).partition("\n")[0]
            raise UserError(f"onnxruntime cannot run the model: {reason}", "export the artifact again") from None
        if logits.ndim != 2 or logits.shape != (rows, self._labels or logits.shape[-1]):
            expected = f"{rows} texts" + (f" and {self._labels} labels" if self._labels else "")
            raise UserError(
                f"the model returned logits of shape {logits.shape} for {expected}", "export the artifact again"
            )
        return logits[: len(batch)]

    def _run(self, feeds: Feeds) -> FloatArray:
        if self._captured:
            return self._captured.run(feeds)
        return np.asarray(self.session.run(["logits"], feeds)[0], dtype=np.float32)

    def feeds(self, batch: Sequence[Encoded], length: int | None = None) -> Feeds:
        """Return the model's inputs for one batch."""
        return {name: array for name, array in self.encoder.pad(batch, length).items() if name in self._inputs}


def load_bundle(
    folder: Path,
    *,
    device: Device,
    threads: int,
    golden: bool = True,
    require_sha256: str | None = None,
    name: EngineName = "onnxruntime",
    open_with: Callable[..., ModelEngine[Any]] | None = None,
) -> tuple[Artifact, ModelEngine[Any]]:
    """Check a bundle's files, load it, and let it answer its golden texts.

    Args:
        folder: the bundle's.
        device: where to run.
        threads: how many CPU threads it may use.
        golden: whether to refuse a classifier that answers differently here than where it was exported.
        require_sha256: the checksum that its `SHA256SUMS` must have, where it is known.
        name: of the engine, for which a plan beside the bundle may hold.
        open_with: opens the bundle with that engine; onnxruntime where None.

    Raises:
        IntegrityError: a file was changed, the bundle is not the required one, or the golden answers come out
            differently.
        UserError: the folder is no ONNX artifact, or the device cannot be used.
    """
    artifact = open_artifact(folder, require_sha256)
    if not artifact.model_file.endswith(".onnx"):
        raise UserError(f"`{folder}` is not an ONNX artifact", "name one whose model is `model.onnx`")
    if device == "cuda" and artifact.precision == "int8":
        raise UserError(
            f"`{folder}` is int8, for which onnxruntime has no fast operators on CUDA",
            "export with `--target cuda` and load `onnx-fp16`",
        )
    sha256 = manifest_sha256(folder)
    plan = fitting_plan(folder, threads, device)
    bulk = plan.way.batching if plan and plan.way.engine == name else None
    engine = (open_with or open_engine)(folder, artifact, device=device, threads=threads, sha256=sha256, bulk=bulk)
    if golden:
        check_golden(folder, engine.logits, artifact.meaning(), pairs=artifact.pairs, on_gpu=device == "cuda")
    return artifact, engine


def load_engine(folder: Path, *, device: Device = "cpu", threads: int) -> ModelEngine[OnnxModel]:
    """Load a bundle's engine as whoever deploys it does; see `load_bundle`."""
    return load_bundle(folder, device=device, threads=threads)[1]


def open_engine(
    folder: Path,
    artifact: Artifact,
    *,
    device: Device = "cpu",
    threads: int,
    sha256: str | None = None,
    bulk: Batching | None = None,
    exact: bool = False,
) -> ModelEngine[OnnxModel]:
    """Load what `folder` holds without any check: for the exporter, which is still at work on it.

    Args:
        folder: the bundle's.
        artifact: what it is.
        device: where to run.
        threads: how many CPU threads it may use.
        sha256: of its `SHA256SUMS`, to check its files again whenever the model is opened once more; None leaves that.
        bulk: how it scores many texts; the usual way where None.
        exact: see `OnnxModel`.

    Raises:
        UserError: it cannot be loaded, or the device cannot be used.
    """
    encoder = load_encoder(folder, artifact)

    def open_model(threads: int) -> OnnxModel:
        path, labels = folder / artifact.model_file, len(artifact.label_names)
        return OnnxModel(path, encoder, device=device, threads=threads, labels=labels, exact=exact)

    def split(streams: int) -> list[OnnxModel]:
        """Share a session of one thread among all streams, and its weights: each calls it on a thread of its own."""
        if sha256:
            check_checksums(folder, sha256)
        each = threads // streams
        return [open_model(each) for _ in range(streams)] if each > 1 else [open_model(1)] * streams

    if device == "cpu":
        return ModelEngine(open_model(threads), bulk or usual_batching(threads), split)
    model = open_model(threads)
    return ModelEngine(model, bulk or GPU_BATCHING, shapes=model.shapes, block=GPU_BLOCK_TEXTS)


def session_options(threads: int) -> SessionOptions:
    """Return the options of every session, other tools' too: so many threads, which do not spin on cores of others."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return options


def _session(
    model: Path, device: Device, threads: int, *, exact: bool, options: Mapping[str, str] = NO_OPTIONS
) -> InferenceSession:
    """Open a session on `device`, with options for CUDA, and refuse the silent fall-back to another one."""
    import onnxruntime

    provider = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"this onnxruntime has no `{provider}`", "for CUDA, replace the package `onnxruntime` by `onnxruntime-gpu`"
        )
    onnxruntime.disable_telemetry_events()
    if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN, where pip installed them
    asked: list[Any] = [(provider, {**options, **(IN_FP32 if exact else {})}) if device == "cuda" else provider]
    settings = session_options(threads)
    if device == "cpu":
        settings.add_session_config_entry(*NOT_ON_CPU)
    if options:
        settings.log_severity_level = 4  # that a model cannot be recorded is no error
    try:
        session: Any = onnxruntime.InferenceSession(model, settings, providers=asked)
    except Exception as error:  # onnxruntime raises classes of its own that it does not export
        raise UserError(f"onnxruntime cannot load `{model}`: {error}", "export the artifact again") from None
    if session.get_providers()[0] != provider:
        raise UserError(
            f"onnxruntime fell back from `{provider}` to `{session.get_providers()[0]}`",
            "install the CUDA and cuDNN versions that this onnxruntime-gpu was built for",
        )
    return session


def _capturing(path: Path, threads: int, labels: int | None, shapes: FewShapes, *, exact: bool) -> Captured | None:
    """Open a session on CUDA that records what it starts for one text, None where this model has none that could."""
    try:
        captured = Captured(partial(_session, path, "cuda", threads, exact=exact, options=CAN_CAPTURE), labels)
        ones = np.ones(shapes.size(1, 1), dtype=np.int64)
        captured.record({node.name: ones * (node.name != "token_type_ids") for node in captured.session.get_inputs()})
    except Exception:  # whatever onnxruntime raises of a model with a step on the host, or with one it cannot record
        return None
    return captured


def _load(run: RunDir, threads: int, _: Path, *, artifact: str, device: Device) -> ModelEngine[OnnxModel]:
    return load_engine(run.export / artifact, device=device, threads=threads)


def _objection(_: RunDir, *, device: Device) -> str | None:
    if device == "cpu":
        return None
    import onnxruntime

    can = PROVIDERS[device] in onnxruntime.get_available_providers()
    return None if can else "this onnxruntime cannot use CUDA; `onnxruntime-gpu` can"


def _spec(artifact: str, precision: str, device: Device = "cpu", made_with: str = "") -> EngineSpec:
    return EngineSpec(
        name=f"{artifact}-{device}",
        load=partial(_load, artifact=artifact, device=device),
        precision=precision,
        device=device,
        artifact=artifact,
        made_with=made_with,
        imports=("onnxruntime", "tokenizers"),
        packages=("onnxruntime-gpu" if device == "cuda" else "onnxruntime", "tokenizers", "numpy"),
        can_ship=True,
        objection=partial(_objection, device=device),
    )


ENGINES = (
    _spec(ONNX_FP32, "fp32"),
    _spec(ONNX_FP32, "fp32", "cuda"),
    _spec(ONNX_FP16, "fp16", "cuda", "--target cuda"),
    _spec(ONNX_INT8, "int8", made_with="--quantize"),
)
