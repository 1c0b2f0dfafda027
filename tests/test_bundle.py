"""A bundle is complete, proves itself where it lands, and refuses to answer where anything in it was changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import exporter.predict
from exporter.bundle.artifact import CARD, GOLDEN, MANIFEST, open_artifact
from exporter.bundle.golden import TEXTS, Golden
from exporter.checksums import CHECKSUMS, IntegrityError, check_checksums, write_checksums
from exporter.records import load_export
from exporter.runtime import Classifier
from trainer.data import read_examples
from trainer.errors import UserError
from trainer.records import read_record, write_record
from trainer.run import RunDir

ONNX = ["onnx-fp32", "onnx-int8"]


@pytest.fixture
def bundle(exported: RunDir, tmp_path: Path) -> Path:
    """A copy of the int8 artifact, alone in a folder of its own."""
    return Path(shutil.copytree(exported.export / "onnx-int8", tmp_path / "bundle"))


@pytest.mark.parametrize("name", ONNX)
def test_it_loads_and_its_checksums_are_those_of_sha256sum(exported: RunDir, name: str) -> None:
    folder = exported.export / name
    assert Classifier.load(folder).artifact == open_artifact(folder)
    assert check_checksums(folder) == {path.name for path in folder.iterdir()} - {CHECKSUMS}
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("no sha256sum on this machine")
    subprocess.run([tool, "--check", "--strict", "--quiet", CHECKSUMS], cwd=folder, check=True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_anywhere_is_refused(exported: RunDir, data: st.DataObject) -> None:
    folder = exported.export / "onnx-int8"
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = path.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.integers(1, 255))
    flipped = bytearray(content)
    flipped[position] ^= change
    path.write_bytes(flipped)
    try:
        with pytest.raises(IntegrityError):
            open_artifact(folder)
    finally:
        path.write_bytes(content)
    open_artifact(folder)


def test_a_missing_file_is_refused(bundle: Path) -> None:
    for path in sorted(bundle.iterdir()):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match=r"is missing|not an artifact"):
            Classifier.load(bundle)
        path.write_bytes(content)
    Classifier.load(bundle)


def test_what_the_checksums_do_not_list_is_not_in_the_way(bundle: Path) -> None:
    """The Hub adds files of its own to what is uploaded."""
    (bundle / ".gitattributes").write_text("*.onnx filter=lfs\n")
    Classifier.load(bundle)


def test_checksums_cannot_point_outside_their_folder_or_leave_out_what_is_read(bundle: Path) -> None:
    sums = bundle / CHECKSUMS
    listed = sums.read_text()
    (bundle.parent / "secret").write_text("x")
    sums.write_text(listed + f"{'0' * 64}  ../secret\n")
    with pytest.raises(IntegrityError, match="points outside"):
        Classifier.load(bundle)
    for name in ("model.onnx", "tokenizer.json", "config.json", MANIFEST):
        sums.write_text("".join(line for line in listed.splitlines(keepends=True) if not line.endswith(f"  {name}\n")))
        with pytest.raises(IntegrityError, match=f"no checksum for `{name}`"):
            Classifier.load(bundle)


@pytest.mark.parametrize("name", ONNX)
def test_golden_answers_are_the_classifiers_own(exported: RunDir, name: str) -> None:
    golden = read_record(exported.export / name / GOLDEN, Golden)
    classifier = Classifier.load(exported.export / name)
    found = np.concatenate([classifier.logits([text]) for text in golden.texts])
    assert golden.texts == TEXTS
    assert np.ptp(found) > 0.5
    np.testing.assert_allclose(found, np.array(golden.logits), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [("onnx-fp32", r"a logit differs by 0\.\d+, tolerance 0.001"), ("onnx-int8", r"a probability .*, tolerance 0.03")],
)
def test_a_golden_answer_that_comes_out_otherwise_is_refused_with_its_tolerance(
    exported: RunDir, tmp_path: Path, name: str, message: str
) -> None:
    folder = Path(shutil.copytree(exported.export / name, tmp_path / name))
    golden = read_record(folder / GOLDEN, Golden)
    changed = [list(row) for row in golden.logits]
    changed[3][1] += 0.7  # a logit
    changed[3] = changed[3] if name == "onnx-fp32" else [-logit for logit in changed[3]]  # a probability
    write_record(folder / GOLDEN, Golden(golden.texts, tuple(map(tuple, changed)), golden.measure, golden.tolerance))
    write_checksums(folder)
    with pytest.raises(IntegrityError, match=message):
        Classifier.load(folder)
    assert Classifier.load(folder, golden=False).predict(["soup"])


def test_a_bundle_without_golden_answers_is_refused(bundle: Path) -> None:
    (bundle / GOLDEN).unlink()
    write_checksums(bundle)
    with pytest.raises(IntegrityError, match="has no golden answers") as error:
        Classifier.load(bundle)
    assert "copy it again" in error.value.hint
    assert Classifier.load(bundle, golden=False).predict(["soup"])


def test_predict_loads_it_all_the_same_when_told_to(bundle: Path, command: object) -> None:
    golden = read_record(bundle / GOLDEN, Golden)
    other = tuple(tuple(-x for x in row) for row in golden.logits)
    write_record(bundle / GOLDEN, Golden(golden.texts, other, golden.measure, golden.tolerance))
    write_checksums(bundle)
    status, _, err = command(exporter.predict.main, "--artifact", bundle, "soup")  # type: ignore[operator]
    assert status == 2
    assert "answers differently here than where it was exported" in err
    assert command(exporter.predict.main, "--artifact", bundle, "--no-golden", "soup")[0] == 0  # type: ignore[operator]


@pytest.mark.parametrize("name", ONNX)
def test_the_graph_itself_says_what_running_it_takes(exported: RunDir, name: str) -> None:
    model = onnx.load(exported.export / name / "model.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["label_names"]) == ["food", "money", "music", "sport"]
    assert (properties["max_length"], properties["truncation"], properties["pad_token_id"]) == ("24", "head", "0")


@pytest.mark.parametrize("name", ONNX)
def test_transformers_pipeline_answers_as_the_classifier_does(exported: RunDir, name: str) -> None:
    optimum = pytest.importorskip("optimum.onnxruntime", reason="the extra `optimum` is not installed")
    from transformers import AutoTokenizer, pipeline

    folder = exported.export / name
    model = optimum.ORTModelForSequenceClassification.from_pretrained(folder)
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
    texts = read_examples(exported.evaluation, load_export(exported).artifacts[0].label_names).texts
    expected = [Classifier.load(folder).predict([text])[0] for text in texts]
    found = [classify(text, truncation=True, max_length=24)[0] for text in texts]
    assert [answer["label"] for answer in found] == [answer.label for answer in expected]
    scores = [max(answer.probabilities.values()) for answer in expected]
    np.testing.assert_allclose([answer["score"] for answer in found], scores, atol=1e-4)


@pytest.mark.parametrize("name", ONNX)
def test_the_card_tells_what_was_measured_in_the_hubs_format(exported: RunDir, name: str) -> None:
    from huggingface_hub import ModelCard

    folder = exported.export / name
    record = load_export(exported)
    card = ModelCard.load(folder / CARD)
    card.validate_metadata = None  # the Hub's own check asks the network
    assert (card.data.library_name, card.data.pipeline_tag) == ("onnx", "text-classification")
    assert "onnx" in card.data.tags
    (result,) = card.data.eval_results
    assert result.metric_type == "accuracy"
    examples = read_examples(exported.evaluation, record.artifacts[0].label_names)
    answers = Classifier.load(folder).logits(examples.texts, batch_tokens=4096).argmax(-1)
    assert result.metric_value == pytest.approx(np.mean(answers == np.array(examples.labels)), abs=1e-4)
    text = card.content
    assert all(f"`{label}`" in text for label in ("food", "money", "music", "sport"))
    assert str(exported.path) not in text
    assert "/" not in result.dataset_name
    if name == "onnx-int8":
        (rung,) = [c for c in record.candidates if c.recipe == record.int8_recipe]
        assert f"Made by `{rung.recipe}`" in text
        assert f"{rung.speed.median:.2f}x" in text
