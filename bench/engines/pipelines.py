"""Hugging Face pipelines on the same classifier: transformers' own, and optimum's on our fp32 and on its own int8.

They are used as their documentation says: they cut at the head whatever the artifact's rule is, and pad a batch to its
longest text.
"""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines.peers import PIPELINE_BATCHINGS
from exporter.bundle.artifact import MERGED, ONNX_FP32, open_artifact
from exporter.engines.engine import ALL_AT_ONCE, Batching
from exporter.engines.onnxruntime import PROVIDERS, session_options
from exporter.engines.spec import Device, EngineSpec
from exporter.proof.reference import DTYPES, Dtype
from trainer.data.load import TEXT_COLUMNS
from trainer.errors import UserError
from trainer.model.untrusted import check_checkpoint, check_folder
from trainer.progress import quiet_libraries
from trainer.tasks import FloatArray
from trainer.text.texts import Text

if TYPE_CHECKING:
    from trainer.run import RunDir


class Pipeline:
    """`transformers.pipeline` with whatever model it is given.

    Args:
        model: of transformers or of optimum.
        folder: the artifact that names the labels and brings the tokenizer.
        device: where the model is.
    """

    model = None
    batchings = PIPELINE_BATCHINGS

    def __init__(self, model: Any, folder: Path, device: Device = "cpu") -> None:
        import torch
        from transformers import AutoTokenizer, pipeline

        artifact = open_artifact(folder)
        check_folder(folder)
        self._names, self._task = artifact.label_names, artifact.meaning()
        self._pipe = pipeline(
            "text-classification",
            model=model,
            tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            device=torch.device(device, 0),
            top_k=None,
            truncation=True,
            max_length=artifact.max_length,
        )

    def logits(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> FloatArray:
        """Return logits that have its probabilities, [len(texts), classes]."""
        size = batching.texts or len(texts)
        rows = []
        for answer in self._answers([*map(_as_input, texts)], size):
            scores = {entry["label"]: entry["score"] for entry in answer}
            rows.append([scores[name] for name in self._names])
        return self._task.logits(np.asarray(rows, dtype=np.float32))

    def _answers(self, inputs: list[Any], size: int) -> Any:
        if len(inputs) > 1:
            return self._pipe(inputs, batch_size=size)
        answer = self._pipe(inputs[0])  # a list of its own for a text, and none for a pair
        return answer if isinstance(inputs[0], str) else [answer]


def _as_input(text: Text) -> str | dict[str, str]:
    """Return a text as a pipeline takes it: a pair as a dictionary."""
    return text if isinstance(text, str) else dict(zip(TEXT_COLUMNS, text, strict=True))


def _load_transformers(
    run: RunDir, threads: int, _: Path, *, device: Device = "cpu", dtype: Dtype = "fp32"
) -> Pipeline:
    """Load the merged checkpoint as transformers' documentation does."""
    import torch
    from transformers import AutoModelForSequenceClassification

    quiet_libraries()
    torch.set_num_threads(threads)
    folder = run.export / MERGED
    check_checkpoint(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=DTYPES[dtype], local_files_only=True, trust_remote_code=False
    )
    return Pipeline(model, folder, device)


def _load_optimum_fp32(run: RunDir, threads: int, _: Path, *, device: Device = "cpu") -> Pipeline:
    folder = run.export / ONNX_FP32
    return Pipeline(_ort_model(folder, threads, device), folder, device)


def _load_optimum_int8(run: RunDir, threads: int, prepared: Path) -> Pipeline:
    return Pipeline(_ort_model(prepared, threads, file_name="model_quantized.onnx"), run.export / MERGED)


def _quantize_with_optimum(run: RunDir, folder: Path) -> None:
    """Export and quantize the merged checkpoint as optimum's documentation does, for this machine's architecture."""
    from optimum.exporters.onnx import main_export
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    logging.getLogger("optimum").setLevel(logging.ERROR)
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    make = AutoQuantizationConfig.arm64 if is_arm else AutoQuantizationConfig.avx512_vnni
    checkpoint = str(run.export / MERGED)
    check_checkpoint(run.export / MERGED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every branch on a shape
        main_export(checkpoint, folder, task="text-classification", local_files_only=True, do_validation=False)
    quantizer = ORTQuantizer.from_pretrained(folder)
    quantizer.quantize(save_dir=folder, quantization_config=make(is_static=False, per_channel=False))
    (folder / "model.onnx").unlink()


def _ort_model(folder: Path, threads: int, device: Device = "cpu", **options: Any) -> Any:
    """Load a model with optimum, its threads kept as ours: they would spin on the cores of whoever is asked next.

    Raises:
        UserError: onnxruntime cannot use the device.
    """
    from optimum.onnxruntime import ORTModelForSequenceClassification

    provider = PROVIDERS[device]
    model = ORTModelForSequenceClassification.from_pretrained(
        folder, provider=provider, session_options=session_options(threads), local_files_only=True, **options
    )
    if model.providers[0] != provider:  # onnxruntime falls back without a word
        raise UserError(f"onnxruntime fell back from `{provider}`", "install the CUDA and cuDNN that it was built for")
    return model


def _without_cuda(_: RunDir) -> str | None:
    import onnxruntime

    can = PROVIDERS["cuda"] in onnxruntime.get_available_providers()
    return None if can else "this onnxruntime cannot use CUDA; `onnxruntime-gpu` can"


_TRANSFORMERS = partial(
    EngineSpec, artifact=MERGED, imports=("torch", "transformers"), packages=("torch", "transformers"), is_peer=True
)
_OPTIMUM = partial(
    EngineSpec,
    imports=("torch", "transformers", "onnxruntime", "optimum.onnxruntime"),
    packages=("torch", "transformers", "optimum-onnx", "onnxruntime"),
    is_peer=True,
)

ENGINES = (
    _TRANSFORMERS(name="transformers-pipeline", load=_load_transformers, precision="fp32"),
    _TRANSFORMERS(
        name="transformers-pipeline-fp16-cuda",
        load=partial(_load_transformers, device="cuda", dtype="fp16"),
        precision="fp16",
        device="cuda",
    ),
    _OPTIMUM(name="optimum-pipeline-fp32", load=_load_optimum_fp32, precision="fp32", artifact=ONNX_FP32),
    _OPTIMUM(
        name="optimum-pipeline-fp32-cuda",
        load=partial(_load_optimum_fp32, device="cuda"),
        precision="fp32",
        device="cuda",
        artifact=ONNX_FP32,
        packages=("torch", "transformers", "optimum-onnx", "onnxruntime-gpu"),
        objection=_without_cuda,
    ),
    _OPTIMUM(
        name="optimum-pipeline-int8",
        load=_load_optimum_int8,
        precision="int8",
        artifact=MERGED,
        prepare=_quantize_with_optimum,
    ),
)
