"""The torch-free classifier: text in, label out, with onnxruntime, tokenizers and numpy alone.

classifier = Classifier.load(Path("runs/default/export/onnx-int8"))
classifier.predict(["An unforgettable film."])
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from exporter.bundle.batches import token_batches
from exporter.bundle.golden import GOLDEN, check_golden
from exporter.bundle.probabilities import FloatArray, softmax
from exporter.records import Artifact, open_artifact
from trainer.encoding import Encoded, Encoder, IntArray
from trainer.errors import UserError

Feeds = dict[str, IntArray]
"""The inputs of an ONNX model by name, each [texts, tokens]."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

CGROUP = Path("/sys/fs/cgroup")

BATCH_TOKENS = 4096
"""The most tokens, padding included, that `predict` puts into one batch."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one text."""

    label: str
    probabilities: dict[str, float]
    truncated: bool
    """Whether the text was longer than the classifier reads."""


class Classifier:
    """An exported classifier, ready to answer. Make one with `Classifier.load`."""

    def __init__(self, artifact: Artifact, encoder: Encoder, session: onnxruntime.InferenceSession) -> None:
        self.artifact = artifact
        self.encoder = encoder
        self._session = session
        self._inputs = {node.name for node in session.get_inputs()}

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int | None = None,
        golden: bool = True,
    ) -> Classifier:
        """Load an ONNX artifact after checking its files, and let it answer its golden texts.

        Args:
            folder: the artifact's folder.
            device: where to run.
            threads: how many threads one call of the model may use; all usable cores where None.
            golden: whether to refuse a classifier that answers otherwise here than where it was exported.

        Raises:
            IntegrityError: a file was changed, or the golden answers come out differently.
            UserError: the folder is no ONNX artifact, or the device cannot be used.
        """
        folder = Path(folder)
        artifact = open_artifact(folder)
        if not artifact.model_file.endswith(".onnx"):
            raise UserError(f"`{folder}` is not an ONNX artifact", "name one whose model is `model.onnx`")
        if device == "cuda" and artifact.precision == "int8":
            raise UserError(
                f"`{folder}` is int8, for which onnxruntime has no fast operators on CUDA",
                "export with `--target cuda` and load `onnx-fp16`",
            )
        encoder = Encoder.load(folder, artifact.max_length, artifact.truncation, artifact.pad_token_id)
        session = _session(folder / artifact.model_file, device, threads or usable_cores())
        classifier = cls(artifact, encoder, session)
        if golden and (folder / GOLDEN).is_file():  # only what the exporter is still at work on has none
            check_golden(folder, classifier.logits)
        return classifier

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify texts, in batches of similar length.

        Returns:
            One prediction a text, in their order.
        """
        encoded = self.encoder.encode(texts)
        names = self.artifact.label_names
        return [
            Prediction(
                label=names[int(row.argmax())],
                probabilities=dict(zip(names, map(float, row), strict=True)),
                truncated=e.truncated,
            )
            for e, row in zip(encoded, softmax(self._run_all(encoded, BATCH_TOKENS)), strict=True)
        ]

    def logits(self, texts: Sequence[str], *, batch_tokens: int | None = None) -> FloatArray:
        """Return the logits of `texts`, [len(texts), classes].

        Args:
            texts: one or more.
            batch_tokens: the most tokens of a batch, padding included; None puts all texts into one.
        """
        return self._run_all(self.encoder.encode(texts), batch_tokens)

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of encoded texts in one batch, padded to the longest or to `length` tokens."""
        (logits,) = self._session.run(["logits"], self.feeds(batch, length))
        return np.asarray(logits, dtype=np.float32)

    def feeds(self, batch: Sequence[Encoded], length: int | None = None) -> Feeds:
        """Return the model's inputs for encoded texts in one batch."""
        ids, mask = self.encoder.pad(batch, length)
        feeds = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros_like(ids)
        return feeds

    def _run_all(self, encoded: list[Encoded], batch_tokens: int | None) -> FloatArray:
        logits = np.empty((len(encoded), len(self.artifact.label_names)), dtype=np.float32)
        for batch in token_batches([len(e) for e in encoded], batch_tokens):
            logits[batch] = self.run([encoded[i] for i in batch])
        return logits


def usable_cores() -> int:
    """Return how many cores this process may keep busy: by affinity, and by the quota of its container."""
    return max(1, int(min(_affinity_cores(), _cgroup_cores())))


def _affinity_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cgroup_cores() -> float:
    """Return the CPU quota of the container in cores, infinite where there is none.

    Source: the kernel's documentation of `cpu.max` (cgroup v2) and `cpu.cfs_quota_us` (v1).
    """
    try:
        if (CGROUP / "cpu.max").exists():
            quota, period = (CGROUP / "cpu.max").read_text().split()
        else:
            quota, period = (
                (CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


def _session(model: Path, device: str, threads: int) -> onnxruntime.InferenceSession:
    """Open a session on `device`, and refuse the silent fall-back to another one."""
    provider = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"this onnxruntime has no `{provider}`",
            "for CUDA, replace the package `onnxruntime` by `onnxruntime-gpu`",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Otherwise its threads spin for a while after each call, on cores that somebody else may want.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    onnxruntime.disable_telemetry_events()
    try:
        session: Any = onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # onnxruntime raises classes of its own that it does not export
        raise UserError(f"onnxruntime cannot load `{model}`: {error}", "export the artifact again") from None
    if session.get_providers()[0] != provider:
        raise UserError(
            f"onnxruntime fell back from `{provider}` to `{session.get_providers()[0]}`",
            "install the CUDA and cuDNN versions that this onnxruntime-gpu was built for",
        )
    return session
