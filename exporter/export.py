"""The export: merge, convert, quantize, verify, and only then put the artifacts in place."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from exporter.artifacts import MERGED, ONNX_FP32, ONNX_INT8, Artifact, Comparison, ExportRecord, Tolerance, seal
from exporter.config import ExportConfig
from exporter.convert import convert
from exporter.merge import copy_tokenizer, merge
from exporter.quantize import dynamic_int8
from exporter.reference import TorchClassifier, adapter_encoder
from exporter.runtime import Classifier, FloatArray
from exporter.verify import SAME_ANSWERS, SAME_NUMBERS, HasLogits, answers, check, choose_reviews, compare
from trainer.data import Examples, read_examples
from trainer.records import file_sha256, installed_versions, write_record
from trainer.run import RunDir, TrainRecord

PACKAGES = ("torch", "transformers", "peft", "optimum", "optimum-onnx", "onnx", "onnxruntime", "onnxruntime-gpu")


def export(config: ExportConfig) -> ExportRecord:
    """Export the run in `config.run_dir` and leave its artifacts and record there.

    Raises:
        UserError: there is no trained run, or it cannot be exported.
        VerificationError: an artifact is not the classifier that it was made from. An earlier export is left as it was.
    """
    started = time.monotonic()
    run = RunDir(config.run_dir)
    train = run.load()
    encoder = adapter_encoder(run, train)
    examples = read_examples(run.evaluation, train.label_names)
    lengths = [len(e) for e in encoder.encode(examples.texts)]
    chain = Chain(choose_reviews(examples, lengths, config.verify_samples))
    with _workspace(run) as folder:
        artifacts = _make_artifacts(config, run, train, folder, chain)
        record = ExportRecord(
            config=config,
            run_sha256=file_sha256(run.record),
            artifacts=tuple(artifacts),
            chosen=min(artifacts[1:], key=lambda artifact: artifact.size_bytes).name,
            comparisons=tuple(chain.comparisons),
            duration_s=time.monotonic() - started,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=installed_versions(PACKAGES),
        )
        _put_in_place(run, folder)
    write_record(run.export_record, record)
    return record


class Chain:
    """The chain of forms that a classifier takes, each compared with the one before it on the same reviews."""

    def __init__(self, reviews: Examples) -> None:
        self._reviews = reviews
        self._last: tuple[str, FloatArray] | None = None
        self.comparisons: list[Comparison] = []

    def add(self, name: str, classifier: HasLogits, tolerance: Tolerance) -> None:
        """Add the next form of the classifier.

        Raises:
            VerificationError: it differs from the form before it by more than `tolerance`.
        """
        logits = answers(classifier, self._reviews.texts)
        if self._last:
            reference, reference_logits = self._last
            comparison = compare(reference_logits, logits, self._reviews.labels, tolerance, names=(name, reference))
            check(comparison)
            self.comparisons.append(comparison)
        self._last = (name, logits)


def _make_artifacts(
    config: ExportConfig, run: RunDir, train: TrainRecord, folder: Path, chain: Chain
) -> list[Artifact]:
    """Make every artifact in `folder` and prove it, reloaded from disk: the merged checkpoint first, then ONNX."""
    chain.add("adapter", TorchClassifier.load_adapter(run), SAME_NUMBERS)

    merged = folder / MERGED
    _say(f"merging the adapter into `{train.base.name}`")
    merge(run, train, merged)
    artifacts = [seal(merged, model_file="model.safetensors", precision="fp32", train=train)]
    chain.add(MERGED, TorchClassifier.load(merged), SAME_NUMBERS)

    fp32 = folder / ONNX_FP32
    _say("converting to ONNX")
    convert(merged, fp32)
    artifacts.append(seal(fp32, model_file="model.onnx", precision="fp32", train=train))
    chain.add(ONNX_FP32, Classifier.load(fp32), SAME_NUMBERS)

    if config.quantize:
        int8 = folder / ONNX_INT8
        int8.mkdir()
        _say("quantizing to int8")
        dynamic_int8(fp32 / "model.onnx", int8 / "model.onnx")
        copy_tokenizer(fp32, int8)
        shutil.copyfile(fp32 / "config.json", int8 / "config.json")
        artifacts.append(seal(int8, model_file="model.onnx", precision="int8", train=train))
        chain.add(ONNX_INT8, Classifier.load(int8), SAME_ANSWERS)
    return artifacts


@contextlib.contextmanager
def _workspace(run: RunDir) -> Iterator[Path]:
    """Give a folder beside the export to build in, gone afterwards whatever happens."""
    folder = run.path / "export.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(run: RunDir, folder: Path) -> None:
    """Replace the run's export by `folder`; without its record, which goes first, nobody takes either for whole."""
    run.export_record.unlink(missing_ok=True)
    shutil.rmtree(run.export, ignore_errors=True)
    folder.rename(run.export)


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
