"""Other tools' ways to serve the same classifier, for comparison alone.

Pipelines are used as their documentation says: they cut at the head whatever the artifact's rule is, and pad a batch to
its longest text.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.bundle.probabilities import FloatArray
from exporter.records import MERGED, ONNX_FP32, open_artifact
from trainer.data import load_splits
from trainer.errors import UserError
from trainer.run import RunDir

SMALLEST = 1e-12
"""Probabilities are kept above it, so that their logarithm is a number."""


class Pipeline:
    """`transformers.pipeline`, with whatever model it is given."""

    def __init__(self, model: Any, folder: Path) -> None:
        import torch
        from transformers import AutoTokenizer, pipeline

        artifact = open_artifact(folder)
        self._names = artifact.label_names
        self._pipe = pipeline(
            "text-classification",
            model=model,
            tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            device=torch.device("cpu"),
            top_k=None,
            truncation=True,
            max_length=artifact.max_length,
        )

    def score(self, texts: Sequence[str], batch_size: int) -> FloatArray:
        """Return the logarithms of its probabilities, [texts, classes]."""
        rows = []
        for answer in self._pipe(texts[0]) if len(texts) == 1 else self._pipe(list(texts), batch_size=batch_size):
            found = {entry["label"]: entry["score"] for entry in answer}
            rows.append([found[name] for name in self._names])
        return np.asarray(np.log(np.maximum(rows, SMALLEST)), dtype=np.float32)


def transformers_pipeline(run: RunDir, threads: int) -> Pipeline:
    """Load the merged checkpoint as transformers' documentation does."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    folder = run.export / MERGED
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return Pipeline(model, folder)


def optimum_fp32(run: RunDir, threads: int) -> Pipeline:
    """Load our ONNX model in fp32 with optimum."""
    folder = run.export / ONNX_FP32
    return Pipeline(_ort_model(folder, threads), folder)


def optimum_int8(run: RunDir, threads: int) -> Pipeline:
    """Export and quantize the merged checkpoint as optimum's documentation does, for this machine's architecture."""
    import platform

    from optimum.exporters.onnx import main_export
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    logging.getLogger("optimum").setLevel(logging.ERROR)
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    make = AutoQuantizationConfig.arm64 if is_arm else AutoQuantizationConfig.avx512_vnni
    folder = run.export / MERGED
    with tempfile.TemporaryDirectory() as scratch:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of every branch on a shape
            main_export(str(folder), scratch, task="text-classification", local_files_only=True, do_validation=False)
        quantizer = ORTQuantizer.from_pretrained(scratch)
        quantizer.quantize(save_dir=scratch, quantization_config=make(is_static=False, per_channel=False))
        model = _ort_model(Path(scratch), threads, file_name="model_quantized.onnx")
    return Pipeline(model, folder)


def _ort_model(folder: Path, threads: int, **options: Any) -> Any:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForSequenceClassification

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = threads
    # As ours: else its threads spin after a call, on the cores of whoever is asked next.
    session.add_session_config_entry("session.force_spinning_stop", "1")
    return ORTModelForSequenceClassification.from_pretrained(
        folder, session_options=session, local_files_only=True, **options
    )


class OpenVino:
    """Our ONNX model in fp32 in Intel's runtime."""

    def __init__(self, run: RunDir, threads: int) -> None:
        import openvino

        from trainer.encoding import Encoder

        folder = run.export / ONNX_FP32
        artifact = open_artifact(folder)
        self._encoder = Encoder.load(folder, artifact.max_length, artifact.truncation, artifact.pad_token_id)
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self._model = core.compile_model(core.read_model(folder / artifact.model_file), "CPU", settings)
        self._inputs = {name for port in self._model.inputs for name in port.names}

    def score(self, texts: Sequence[str], batch_size: int) -> FloatArray:
        """Return the logits, [texts, classes]; batches are of similar length."""
        encoded = self._encoder.encode(texts)
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        rows: dict[int, Any] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            ids, mask = self._encoder.pad([encoded[i] for i in batch])
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            answer = self._model({name: value for name, value in feeds.items() if name in self._inputs})
            rows.update(zip(batch, answer[0], strict=True))
        return np.asarray([rows[i] for i in range(len(texts))], dtype=np.float32)


class WordCounts:
    """TF-IDF of words and pairs of words, logistic regression: what a language model has to beat."""

    def __init__(self, run: RunDir) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        record = run.load()
        if record.training is None:
            raise UserError("the training texts are not known: it was trained elsewhere", "leave out this peer")
        config = record.training.config
        splits = load_splits(
            config.dataset,
            config.eval_dataset,
            text_column=config.text_column,
            label_column=config.label_column,
            label_names=config.label_names,
            max_train_samples=config.max_train_samples,
            max_eval_samples=config.max_eval_samples,
            seed=config.seed,
        )
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
        self._model = make_pipeline(words, LogisticRegression(C=10, max_iter=1000))
        self._model.fit(splits.train.texts, splits.train.labels)

    def score(self, texts: Sequence[str], batch_size: int) -> FloatArray:  # noqa: ARG002
        """Return the logarithms of its probabilities, [texts, classes]; it has no batches."""
        return np.asarray(np.maximum(self._model.predict_log_proba(texts), np.log(SMALLEST)), dtype=np.float32)


def word_counts(run: RunDir, threads: int) -> WordCounts:  # noqa: ARG001
    """Train the cheap baseline on the run's own training texts."""
    return WordCounts(run)
