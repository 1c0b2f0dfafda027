"""An export is the same classifier, complete in its folders, and all or nothing."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import INTERRUPTED, start
from transformers import AutoModelForSequenceClassification

import exporter.__main__
import exporter.export
from exporter.artifacts import MANIFEST, Artifact, ExportRecord, IntegrityError, load_export, open_artifact
from exporter.config import ExportConfig
from exporter.export import export
from exporter.reference import TorchClassifier
from exporter.runtime import Classifier
from exporter.verify import VerificationError
from trainer.data import read_examples
from trainer.errors import UserError
from trainer.records import read_record, write_record
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]
Copy = Callable[[RunDir], RunDir]

TOKENIZER = {"special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"}
ARTIFACTS = {
    "pytorch-fp32": TOKENIZER | {MANIFEST, "config.json", "model.safetensors"},
    "onnx-fp32": TOKENIZER | {MANIFEST, "config.json", "model.onnx"},
    "onnx-int8": TOKENIZER | {MANIFEST, "config.json", "model.onnx"},
}


def listing(folder: Path) -> dict[str, set[str]]:
    return {entry.name: {path.name for path in entry.iterdir()} for entry in folder.iterdir()}


def test_it_leaves_exactly_the_artifacts_it_records(exported: RunDir) -> None:
    record = load_export(exported)
    assert listing(exported.export) == ARTIFACTS
    assert [artifact.name for artifact in record.artifacts] == list(ARTIFACTS)
    for artifact in record.artifacts:
        folder = exported.export / artifact.name
        assert open_artifact(folder) == artifact
        assert artifact.size_bytes == sum(
            (folder / name).stat().st_size for name in ARTIFACTS[artifact.name] - {MANIFEST}
        )
    assert not (exported.path / "export.partial").exists()


def test_without_quantize_there_is_no_int8(trained: RunDir, copy_of: Copy) -> None:
    run = copy_of(trained)
    record = export(ExportConfig(run_dir=run.path, verify_samples=8))
    assert listing(run.export) == {name: files for name, files in ARTIFACTS.items() if name != "onnx-int8"}
    assert record.chosen == "onnx-fp32"


def test_the_merged_checkpoint_is_plain_and_whole(exported: RunDir) -> None:
    """A strict reload: every weight is there, none is left over, the names of the labels too."""
    folder = exported.export / "pytorch-fp32"
    model, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert model.config.id2label == {0: "food", 1: "money", 2: "music", 3: "sport"}
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))


def test_merging_follows_its_formula(exported: RunDir, checkpoint: Path) -> None:
    """W' = W + (alpha / r) B A, and the trained head as it is; Hu et al. 2021, section 4.1."""
    base, merged = (
        load_file(folder / "model.safetensors") for folder in (checkpoint, exported.export / "pytorch-fp32")
    )
    adapter = load_file(exported.adapter / "adapter_model.safetensors")
    layer = "transformer.layer.1.attention.q_lin"
    a, b = (adapter[f"base_model.model.distilbert.{layer}.lora_{part}.weight"] for part in "AB")
    expected = base[f"{layer}.weight"] + 16 / 8 * (b @ a)
    assert (b @ a).abs().max() > 1e-3
    torch.testing.assert_close(merged[f"distilbert.{layer}.weight"], expected)
    torch.testing.assert_close(merged["classifier.weight"], adapter["base_model.model.classifier.weight"])
    torch.testing.assert_close(merged["pre_classifier.bias"], adapter["base_model.model.pre_classifier.bias"])


@pytest.mark.parametrize("batch_tokens", [None, 1, 60])
def test_all_forms_answer_alike(exported: RunDir, batch_tokens: int | None) -> None:
    texts = read_examples(exported.evaluation, load_export(exported).artifacts[0].label_names).texts
    adapter = TorchClassifier.load_adapter(exported).logits(texts, batch_tokens=batch_tokens)
    merged = TorchClassifier.load(exported.export / "pytorch-fp32").logits(texts, batch_tokens=batch_tokens)
    fp32 = Classifier.load(exported.export / "onnx-fp32").logits(texts, batch_tokens=batch_tokens)
    int8 = Classifier.load(exported.export / "onnx-int8").logits(texts, batch_tokens=batch_tokens)
    assert np.ptp(adapter) > 1  # a model that says the same of everything would prove nothing
    np.testing.assert_allclose(merged, adapter, atol=1e-4)
    np.testing.assert_allclose(fp32, adapter, atol=1e-4)
    np.testing.assert_allclose(int8, adapter, atol=0.5)
    assert np.mean(int8.argmax(-1) == adapter.argmax(-1)) > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 2), (5, 17)])
def test_the_graph_takes_any_shape(exported: RunDir, shape: tuple[int, int]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.export / "onnx-fp32" / "model.onnx")
    ids = np.ones(shape, dtype=np.int64)
    (logits,) = session.run(None, {"input_ids": ids, "attention_mask": ids})
    assert logits.shape == (shape[0], 4)


def test_int8_holds_embeddings_and_matrices_in_int8_and_no_product_of_activations(exported: RunDir) -> None:
    graph = onnx.load(exported.export / "onnx-int8" / "model.onnx").graph
    constants = {weights.name: weights.data_type for weights in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(products) >= 2 * 6  # q, k, v, out and two of the feed-forward, in each of two layers
    assert all(constants.get(node.input[1]) == onnx.TensorProto.INT8 for node in products)
    floats = sum(np.prod(w.dims) for w in graph.initializer if w.data_type == onnx.TensorProto.FLOAT)
    bytes_ = sum(np.prod(w.dims) for w in graph.initializer if w.data_type == onnx.TensorProto.INT8)
    assert bytes_ > 4 * floats


def test_the_comparisons_are_those_of_the_chain(exported: RunDir) -> None:
    chain = [(c.candidate, c.reference, c.reviews) for c in load_export(exported).comparisons]
    assert chain == [
        ("pytorch-fp32", "adapter", 16),
        ("onnx-fp32", "pytorch-fp32", 16),
        ("onnx-int8", "onnx-fp32", 16),
    ]


def test_a_later_export_replaces_an_earlier_one(exported: RunDir, copy_of: Copy) -> None:
    run = copy_of(exported)
    export(ExportConfig(run_dir=run.path, verify_samples=4))
    assert set(listing(run.export)) == {"pytorch-fp32", "onnx-fp32"}


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def sabotaged(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break one stage of the export, so that it goes on without noticing."""

    def spoil_weights(name: str) -> Callable[..., None]:
        def merge(*args: object) -> None:
            original_merge(*args)  # type: ignore[arg-type]
            path = Path(str(args[2])) / "model.safetensors"
            weights = load_file(path)
            weights[name] = weights[name] * 1.1
            save_file(weights, path, metadata={"format": "pt"})

        return merge

    def mask_nothing(*args: object) -> None:
        """Replace the attention mask by one that never masks."""
        original_convert(*args)  # type: ignore[arg-type]
        path = Path(str(args[1])) / "model.onnx"
        model = onnx.load(path)
        for node in model.graph.node:
            for i, name in enumerate(node.input):
                if name == "attention_mask":
                    node.input[i] = "all_ones"
        equal = onnx.helper.make_node("Equal", ["attention_mask", "attention_mask"], ["always"])
        cast = onnx.helper.make_node("Cast", ["always"], ["all_ones"], to=onnx.TensorProto.INT64)
        model.graph.node.insert(0, cast)
        model.graph.node.insert(0, equal)
        onnx.save(model, path)

    def spoil_scale(*args: object) -> None:
        original_quantize(*args)  # type: ignore[arg-type]
        path = Path(str(args[1]))
        model = onnx.load(path)
        for weights in model.graph.initializer:
            if weights.name.startswith("pre_classifier") and weights.name.endswith("_scale"):
                weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * 4, weights.name))
                break
        onnx.save(model, path)

    original_merge = exporter.export.merge
    original_convert = exporter.export.convert
    original_quantize = exporter.export.dynamic_int8
    if what == "weight":
        monkeypatch.setattr(exporter.export, "merge", spoil_weights("distilbert.transformer.layer.0.ffn.lin1.weight"))
    elif what == "head":
        monkeypatch.setattr(exporter.export, "merge", spoil_weights("classifier.weight"))
    elif what == "mask":
        monkeypatch.setattr(exporter.export, "convert", mask_nothing)
    elif what == "scale":
        monkeypatch.setattr(exporter.export, "dynamic_int8", spoil_scale)


@pytest.mark.parametrize(
    ("what", "candidate"),
    [("weight", "pytorch-fp32"), ("head", "pytorch-fp32"), ("mask", "onnx-fp32"), ("scale", "onnx-int8")],
)
def test_a_broken_stage_fails_the_command_and_names_its_link(
    trained: RunDir, copy_of: Copy, command: Command, monkeypatch: pytest.MonkeyPatch, what: str, candidate: str
) -> None:
    run = copy_of(trained)
    sabotaged(what, monkeypatch)
    status, out, err = command(exporter.__main__.main, "--quantize", "--run-dir", run.path)
    assert status == 3
    assert out == ""
    assert f"error: `{candidate}` is not the same classifier as" in err
    assert not run.export.exists()
    assert not run.export_record.exists()


def test_a_failed_export_leaves_the_earlier_one(
    exported: RunDir, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(exported)
    before = load_export(run)
    sabotaged("weight", monkeypatch)
    with pytest.raises(VerificationError):
        export(ExportConfig(run_dir=run.path))
    assert load_export(run) == before
    assert open_artifact(run.export / before.chosen)


def test_an_interrupted_export_leaves_nothing(trained: RunDir, copy_of: Copy) -> None:
    run = copy_of(trained)
    command = [sys.executable, "-m", "exporter", "--quantize", "--run-dir", str(run.path)]
    with start(command) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("merging"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode in INTERRUPTED
    assert "Traceback" not in rest
    assert {path.name for path in run.path.iterdir()} == {"run.json", "adapter", "data"}


def test_exporting_before_training_is_an_error(tmp_path: Path, command: Command) -> None:
    status, _, err = command(exporter.__main__.main, "--run-dir", tmp_path / "nowhere")
    assert status == 2
    assert f"error: no trained run in `{tmp_path / 'nowhere'}`" in err
    assert "hint: run `python -m trainer` first" in err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.record.write_text(run.record.read_text()[:200]), "cut short"),
        (lambda run: run.record.write_text(run.record.read_text().replace('"schema": 1', '"schema": 0')), "schema 0"),
        (lambda run: (run.adapter / "adapter_model.safetensors").unlink(), "is not the file that"),
        (lambda run: (run.adapter / "adapter_model.safetensors").write_bytes(b"x"), "is not the file that"),
        (lambda run: run.evaluation.write_text("{}"), "is not the file that"),
        (lambda run: (run.adapter / "tokenizer.json").unlink(), "is not the file that"),
        (lambda run: edit(run.adapter / "adapter_config.json", '"lora_alpha": 16', '"lora_alpha": 1600'), "is not the"),
    ],
)
def test_a_damaged_run_is_refused(
    trained: RunDir, copy_of: Copy, command: Command, damage: Callable[[RunDir], object], message: str
) -> None:
    run = copy_of(trained)
    damage(run)
    status, _, err = command(exporter.__main__.main, "--run-dir", run.path)
    assert status == 2
    assert message in err


def test_a_base_that_changed_since_is_refused(trained: RunDir, copy_of: Copy, checkpoint: Path, tmp_path: Path) -> None:
    run = copy_of(trained)
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    values = json.loads(run.record.read_text())
    values["base"]["name"] = str(other)
    run.record.write_text(json.dumps(values))
    weights = load_file(other / "model.safetensors")
    save_file({name: w + 1 for name, w in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="was changed after the training"):
        export(ExportConfig(run_dir=run.path))


def test_an_export_of_an_earlier_training_is_stale(exported: RunDir, copy_of: Copy) -> None:
    run = copy_of(exported)
    run.record.write_text(run.record.read_text() + "\n")
    with pytest.raises(UserError, match="another training run"):
        load_export(run)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_an_artifact_with_a_changed_or_missing_file_is_refused(exported: RunDir, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(exported.export / "onnx-int8", tmp_path / "a"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match="changed after the export"):
        Classifier.load(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match="is missing"):
        Classifier.load(folder)


def test_a_manifest_cannot_point_outside_its_folder(exported: RunDir, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported.export / "onnx-int8", tmp_path / "a"))
    artifact = read_record(folder / MANIFEST, Artifact)
    outside = tmp_path / "secret"
    outside.write_text("x")
    write_record(folder / MANIFEST, Artifact(**{**artifact.__dict__, "sha256": {"../secret": "0"}}))
    with pytest.raises(IntegrityError, match="points outside"):
        Classifier.load(folder)
    unchecked = {name: value for name, value in artifact.sha256.items() if name != "tokenizer.json"}
    write_record(folder / MANIFEST, Artifact(**{**artifact.__dict__, "sha256": unchecked}))
    with pytest.raises(IntegrityError, match=r"no checksum for `tokenizer.json`"):
        Classifier.load(folder)


def test_the_summary_shows_the_proof_and_what_to_ship(trained: RunDir, copy_of: Copy, command: Command) -> None:
    run = copy_of(trained)
    status, out, _ = command(exporter.__main__.main, "--quantize", "--run-dir", run.path, "--verify-samples", 8)
    assert status == 0
    record = read_record(run.export_record, ExportRecord)
    assert "on 8 evaluation reviews" in out
    assert f"onnx-int8 vs onnx-fp32 {record.comparisons[2].max_abs_logit:>25.2g}" in out
    assert f"{run.export / 'onnx-int8'}  <- ship this" in out
    assert "python -m bench --run-dir" in out
