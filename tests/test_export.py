"""An export is the same classifier, complete in its folders, and all or nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from local_worker import LocalWorker, Spoiling
from safetensors.torch import load_file, save_file
from toys import INTERRUPTED, TOKENIZER_FILES, start
from transformers import AutoModelForSequenceClassification

import exporter.__main__
import exporter.predict
from exporter.bundle.artifact import CARD, GOLDEN, MANIFEST, open_artifact
from exporter.checksums import CHECKSUMS, IntegrityError
from exporter.config import ExportConfig
from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching
from exporter.export import export
from exporter.int8.recipes import RECIPES, Ingredients
from exporter.proof.reference import load_merged, load_trained
from exporter.proof.verify import VerificationError
from exporter.proof.worker import Worker
from exporter.records import ExportRecord, load_export
from exporter.runtime import Classifier
from trainer.data import read_examples
from trainer.errors import UserError
from trainer.records import file_sha256, read_record
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]
Copy = Callable[[RunDir], RunDir]

EXPORTER = partial(exporter.__main__.main, partial(export, start=LocalWorker))
SEALED = TOKENIZER_FILES | {MANIFEST, CHECKSUMS, "config.json"}
ARTIFACTS = {
    "pytorch-fp32": SEALED | {"model.safetensors"},
    "onnx-fp32": SEALED | {"model.onnx", GOLDEN, CARD},
    "onnx-int8": SEALED | {"model.onnx", GOLDEN, CARD},
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
            (folder / name).stat().st_size for name in ARTIFACTS[artifact.name] - {MANIFEST, CHECKSUMS, GOLDEN, CARD}
        )
    assert not (exported.path / "export.partial").exists()


def test_without_quantize_there_is_no_int8(trained: RunDir, copy_of: Copy) -> None:
    run = copy_of(trained)
    record = export(ExportConfig(run_dir=run.path, verify_samples=8), LocalWorker)
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


@pytest.mark.parametrize("batching", [ALL_AT_ONCE, ONE_BY_ONE, Batching(tokens=60)])
def test_all_artifacts_answer_alike(exported: RunDir, batching: Batching) -> None:
    texts = read_examples(exported.evaluation, load_export(exported).artifacts[0].label_names).texts
    adapter = load_trained(exported).logits(texts, batching)
    merged = load_merged(exported.export / "pytorch-fp32").logits(texts, batching)
    fp32 = Classifier.load(exported.export / "onnx-fp32").engine.logits(texts, batching)
    int8 = Classifier.load(exported.export / "onnx-int8").engine.logits(texts, batching)
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


def test_every_form_is_compared_with_the_one_before_and_with_the_adapter(exported: RunDir) -> None:
    record = load_export(exported)
    links = [("pytorch-fp32", "adapter"), ("onnx-unfused", "pytorch-fp32"), ("onnx-unfused", "adapter")]
    links += [("onnx-fp32", "onnx-unfused"), ("onnx-fp32", "adapter")]
    links += [(c.recipe, reference) for c in record.candidates for reference in ("onnx-unfused", "adapter")]
    assert [(c.candidate, c.reference) for c in record.comparisons] == links
    assert {c.texts for c in record.comparisons} == {16}


def test_a_later_export_replaces_an_earlier_one(exported: RunDir, copy_of: Copy) -> None:
    run = copy_of(exported)
    export(ExportConfig(run_dir=run.path, verify_samples=4), LocalWorker)
    assert set(listing(run.export)) == {"pytorch-fp32", "onnx-fp32"}


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def spoil_weights(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights[name] = weights[name] * 1.1
    save_file(weights, path, metadata={"format": "pt"})


def swap_labels(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["id2label"]["0"], config["id2label"]["1"] = config["id2label"]["1"], config["id2label"]["0"]
    path.write_text(json.dumps(config))


def change_graph(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def mask_nothing(model: onnx.ModelProto) -> None:
    """Replace the attention mask by one that never masks."""
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "attention_mask":
                node.input[i] = "all_ones"
    equal = onnx.helper.make_node("Equal", ["attention_mask", "attention_mask"], ["always"])
    cast = onnx.helper.make_node("Cast", ["always"], ["all_ones"], to=onnx.TensorProto.INT64)
    model.graph.node.insert(0, cast)
    model.graph.node.insert(0, equal)


def freeze_length(model: onnx.ModelProto) -> None:
    for graph_input in model.graph.input:
        graph_input.type.tensor_type.shape.dim[1].dim_value = 12


def spoil_scale(model: onnx.ModelProto) -> None:
    """Make one scale of one inner layer a tenth too large."""
    scale = next(w for w in model.graph.initializer if w.name.startswith("onnx::MatMul") and "scale" in w.name)
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(1.1), scale.name))


def spoil_activation(model: onnx.ModelProto) -> None:
    """Make the scale of one activation a tenth too large."""
    name = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
    scale = next(w for w in model.graph.initializer if w.name == name)
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(1.1), scale.name))


SPOILED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weight": (
        "pytorch-fp32",
        partial(spoil_weights, name="distilbert.transformer.layer.0.ffn.lin1.weight"),
    ),
    "head": ("pytorch-fp32", partial(spoil_weights, name="classifier.weight")),
    "labels": ("pytorch-fp32", swap_labels),
    "labels of the graph": ("onnx-unfused", swap_labels),
    "mask": ("onnx-unfused", lambda folder: change_graph(folder / "model.onnx", mask_nothing)),
    "axes": ("onnx-unfused", lambda folder: change_graph(folder / "model.onnx", freeze_length)),
    "fused mask": ("onnx-fp32", lambda folder: change_graph(folder / "model.onnx", mask_nothing)),
}
"""What breaks a step of the export, so that the export goes on without noticing."""


@pytest.mark.parametrize("what", SPOILED)
def test_a_broken_step_fails_the_command_and_is_named(
    trained: RunDir, copy_of: Copy, command: Command, what: str
) -> None:
    run = copy_of(trained)
    step, spoil = SPOILED[what]
    main = partial(exporter.__main__.main, partial(export, start=Spoiling(step, spoil)))
    status, out, err = command(main, "--quantize", "--run-dir", run.path, "--verify-samples", 16)
    assert (status, out) == (3, "")
    assert f"error: `{step}` " in err
    assert not run.export.exists()
    assert not run.export_record.exists()


@pytest.mark.parametrize(
    ("name", "spoil"), [("dynamic-channel-int8", spoil_scale), ("static-minmax", spoil_activation)]
)
def test_a_recipe_that_spoils_a_number_fails_the_command_and_is_named(
    trained: RunDir, copy_of: Copy, command: Command, name: str, spoil: Callable[[onnx.ModelProto], None]
) -> None:
    run = copy_of(trained)
    recipe = next(recipe for recipe in RECIPES if recipe.name == name)

    def make(model: Path, output: Path, ingredients: Ingredients) -> Sequence[str]:
        leave = recipe.make(model, output, ingredients)
        change_graph(output, spoil)
        return leave

    main = partial(exporter.__main__.main, partial(export, start=LocalWorker, recipes=(replace(recipe, make=make),)))
    status, out, err = command(main, "--quantize", "--run-dir", run.path, "--verify-samples", 16)
    assert (status, out) == (3, "")
    assert f"error: `{name}` " in err
    assert not run.export.exists()


def test_an_adapter_that_was_not_merged_is_noticed(
    trained: RunDir, copy_of: Copy, checkpoint: Path, command: Command
) -> None:
    def unmerge(folder: Path) -> None:
        weights, base = load_file(folder / "model.safetensors"), load_file(checkpoint / "model.safetensors")
        unmerged = {name: base.get(name.removeprefix("distilbert."), w) for name, w in weights.items()}
        assert any((unmerged[name] != weights[name]).any() for name in weights)
        save_file(unmerged, folder / "model.safetensors", metadata={"format": "pt"})

    main = partial(exporter.__main__.main, partial(export, start=Spoiling("pytorch-fp32", unmerge)))
    status, _, err = command(main, "--run-dir", copy_of(trained).path, "--verify-samples", 8)
    assert status == 3
    assert "`pytorch-fp32` is not the same classifier as `adapter`" in err


def test_an_adapter_that_changes_nothing_is_noticed(trained: RunDir, copy_of: Copy, command: Command) -> None:
    run = copy_of(trained)
    path = run.adapter / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: w * ("lora_B" not in name) for name, w in weights.items()}, path, metadata={"format": "pt"})
    values = json.loads(run.record.read_text())
    values["adapter_sha256"][path.name] = file_sha256(path)
    run.record.write_text(json.dumps(values))
    status, _, err = command(EXPORTER, "--run-dir", run.path, "--verify-samples", 4)
    assert status == 3
    assert "the adapter changes none of the weights" in err


def test_a_failed_export_leaves_the_earlier_one(exported: RunDir, copy_of: Copy) -> None:
    run = copy_of(exported)
    before = load_export(run)
    with pytest.raises(VerificationError):
        export(ExportConfig(run_dir=run.path), start=Spoiling(*SPOILED["weight"]))
    assert load_export(run) == before
    assert open_artifact(run.export / before.chosen)


def test_a_record_that_cannot_be_written_costs_the_earlier_export_nothing(exported: RunDir, copy_of: Copy) -> None:
    run = copy_of(exported)
    before = load_export(run)
    config = ExportConfig(run_dir=run.path, verify_samples=4)
    object.__setattr__(config, "budget_minutes", math.inf)  # which JSON cannot hold
    with pytest.raises(ValueError, match="JSON"):
        export(config, LocalWorker)
    assert load_export(run) == before
    assert listing(run.export) == ARTIFACTS


def test_a_portable_export_keeps_weights_to_seven_bits_and_leaves_out_what_cannot(
    trained: RunDir, copy_of: Copy
) -> None:
    run = copy_of(trained)
    record = export(ExportConfig(run_dir=run.path, quantize="static", target="portable", verify_samples=4), LocalWorker)
    assert {c.recipe for c in record.candidates} == {"static-minmax", "static-percentile", "static-entropy"}
    graph = onnx.load(run.export / "onnx-int8" / "model.onnx").graph
    codes = [onnx.numpy_helper.to_array(w) for w in graph.initializer if re.match(r"onnx::MatMul.*_quantized", w.name)]
    assert 32 < max(int(np.abs(code.astype(int)).max()) for code in codes) <= 64


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
    status, _, err = command(EXPORTER, "--run-dir", tmp_path / "nowhere")
    assert status == 2
    assert f"error: no trained run in `{tmp_path / 'nowhere'}`" in err
    assert "hint: run `python -m trainer` first" in err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.record.write_text(run.record.read_text()[:200]), "cut short"),
        (
            lambda run: run.record.write_text(re.sub(r'"schema": \d', '"schema": 99', run.record.read_text())),
            "schema 99",
        ),
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
    status, _, err = command(EXPORTER, "--run-dir", run.path)
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
        export(ExportConfig(run_dir=run.path), LocalWorker)


def test_another_artifact_in_the_place_of_the_proved_one_is_refused(
    exported: RunDir, copy_of: Copy, command: Command
) -> None:
    run = copy_of(exported)
    shutil.rmtree(run.export / "onnx-fp32")
    shutil.copytree(run.export / "onnx-int8", run.export / "onnx-fp32")  # whole, sealed, and not what was proved
    assert Classifier.load(run.export / "onnx-fp32").predict(["soup"])
    with pytest.raises(IntegrityError, match="is not the artifact that"):
        load_export(run)
    status, _, err = command(exporter.predict.main, "--run-dir", run.path, "soup")
    assert status == 2
    assert "onnx-fp32` is not the artifact that" in err


@pytest.mark.parametrize("killed", ["before the exchange", "old export gone", "renamed"])
def test_an_exchange_that_was_killed_is_finished(exported: RunDir, copy_of: Copy, killed: str) -> None:
    """The next export finishes it first, so that there is a whole export even where that one fails."""

    def fail(*_: Any, **__: Any) -> Worker:
        raise UserError("no worker", "none")

    run = copy_of(exported)
    partial_export, whole = run.path / "export.partial", load_export(run)
    where = run.export if killed == "renamed" else partial_export
    if killed == "before the exchange":
        shutil.copytree(run.export, partial_export)
        shutil.rmtree(run.export / "onnx-int8")
    elif killed == "old export gone":
        run.export.rename(partial_export)
    run.export_record.rename(where / run.export_record.name)
    with pytest.raises(UserError, match="no worker"):
        export(ExportConfig(run_dir=run.path), fail)
    assert load_export(run) == whole
    assert listing(run.export) == ARTIFACTS
    assert not partial_export.exists()


def test_an_export_of_an_earlier_training_is_stale(exported: RunDir, copy_of: Copy) -> None:
    run = copy_of(exported)
    run.record.write_text(run.record.read_text() + "\n")
    with pytest.raises(UserError, match="another training run"):
        load_export(run)


def test_the_summary_shows_the_proof_the_ladder_and_the_choice(
    trained: RunDir, copy_of: Copy, command: Command
) -> None:
    run = copy_of(trained)
    flags = ["--quantize", "weight-only", "--run-dir", run.path, "--verify-samples", 8]
    status, out, _ = command(EXPORTER, *flags)
    assert status == 0
    record = read_record(run.export_record, ExportRecord)
    (rung,) = record.candidates
    assert (rung.judgement, record.chosen, record.int8_recipe) == ("undecided", "onnx-fp32", "weight-only-int8")
    assert "on 8 evaluation texts" in out
    assert "last layer: computed for the first token alone" in out
    assert f"weight-only-int8 vs onnx-unfused {record.comparisons[-2].max_abs_logit:>21.2g}" in out
    assert re.search(rf"weight-only-int8 .*{rung.change.harmful}/{rung.change.helpful} .* undecided", out)
    assert f"chosen: onnx-fp32, {record.reason}" in out
    assert f"in batches of 32: {record.variations[0].flips} of" in out
    assert f"{run.export / 'onnx-fp32'}  <- ship this" in out
    assert "python -m bench --run-dir" in out


def test_int8_that_is_required_and_not_chosen_is_status_3_with_a_whole_export(
    trained: RunDir, copy_of: Copy, command: Command
) -> None:
    run = copy_of(trained)
    flags = ["--quantize", "weight-only", "--require-int8", "--run-dir", run.path, "--verify-samples", 8]
    status, out, err = command(EXPORTER, *flags)
    assert status == 3
    assert "error: no int8 artifact was chosen" in err
    assert "chosen: onnx-fp32" in out
    assert load_export(run).chosen == "onnx-fp32"
    assert set(listing(run.export)) == set(ARTIFACTS)


def test_without_a_fusion_the_graph_is_the_converted_one(exported: RunDir, trained: RunDir, copy_of: Copy) -> None:
    def operators(run: RunDir) -> set[str]:
        return {node.op_type for node in onnx.load(run.export / "onnx-fp32" / "model.onnx").graph.node}

    record = load_export(exported)
    assert (record.shortcut, record.fused["Attention"]) == (True, 1)  # the last of two has a form of its own
    assert {"Attention", "BiasGelu"} <= operators(exported)
    run = copy_of(trained)
    assert export(ExportConfig(run_dir=run.path, no_fuse=True, verify_samples=4), LocalWorker).fused == {}
    assert "Attention" not in operators(run)
    assert "Softmax" in operators(run)


@pytest.mark.parametrize("no_fuse", [False, True])
def test_for_gpus_there_is_half_precision_that_answers_alike(
    exported: RunDir, trained: RunDir, copy_of: Copy, *, no_fuse: bool
) -> None:
    run = copy_of(trained)
    record = export(ExportConfig(run_dir=run.path, target="cuda", no_fuse=no_fuse, verify_samples=8), LocalWorker)
    folder = run.export / "onnx-fp16"
    assert (record.chosen, record.gpu) == ("onnx-fp32", None)  # nobody knows how fast the other is
    assert record.fp16_recipe == ("fp16-unfused" if no_fuse else "fp16-fused")
    assert "no GPU could be used here" in record.reason
    assert set(listing(run.export)) == {"pytorch-fp32", "onnx-fp32", "onnx-fp16"}
    assert open_artifact(folder).precision == "fp16"
    kinds = [w.data_type for w in onnx.load(folder / "model.onnx").graph.initializer if len(w.dims) == 2]
    assert kinds.count(onnx.TensorProto.FLOAT16) > 0.8 * len(kinds)
    texts = read_examples(exported.evaluation, record.artifacts[0].label_names).texts
    half, full = (Classifier.load(path).logits(texts) for path in (folder, exported.export / "onnx-fp32"))
    assert 1e-6 < np.abs(half - full).max() < 0.05
    card = (folder / CARD).read_text()
    assert "in fp16" in card
    assert "Neither its accuracy nor its speed was measured" in card


def test_int8_is_refused_on_a_gpu(exported: RunDir) -> None:
    with pytest.raises(UserError, match="is int8, for which onnxruntime has no fast operators on CUDA") as error:
        Classifier.load(exported.export / "onnx-int8", device="cuda")
    assert "--target cuda" in error.value.hint


def test_a_graph_without_an_attention_layer_to_fuse_is_an_error(
    trained: RunDir, copy_of: Copy, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unfused:
        def get_fused_operator_statistics(self) -> dict[str, int]:
            return {"Attention": 0, "BiasGelu": 2}

    monkeypatch.setattr("onnxruntime.transformers.optimizer.optimize_model", lambda *_, **__: Unfused())
    status, _, err = command(EXPORTER, "--run-dir", copy_of(trained).path, "--verify-samples", 4)
    assert status == 2
    assert "fused 0 of the 2 attention layers" in err
    assert "--no-fuse" in err
