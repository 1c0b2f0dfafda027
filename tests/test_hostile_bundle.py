"""A bundle from a stranger, with checksums that fit: refused in words, or answered, and never more than it lists."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import exporter.predict
from exporter.bundle.artifact import GOLDEN, MANIFEST, open_artifact
from exporter.bundle.onnx_file import check_onnx_file
from exporter.checksums import CHECKSUMS, IntegrityError, manifest_sha256, write_checksums
from exporter.records import load_export
from exporter.runtime import Classifier
from trainer.errors import UserError
from trainer.run import RunDir

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bundle(exported: RunDir, tmp_path: Path) -> Path:
    """A copy of the fp32 artifact, alone in a folder of its own."""
    return Path(shutil.copytree(exported.export / "onnx-fp32", tmp_path / "bundle"))


def edit(path: Path, **values: Any) -> None:
    """Change fields of a JSON file, and let the checksums fit again."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    write_checksums(path.parent)


# --- the files


@pytest.mark.parametrize("name", [CHECKSUMS, MANIFEST, "tokenizer.json", "model.onnx", GOLDEN])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_regular_file_is_never_opened(bundle: Path, name: str, make: Callable[[Path], object]) -> None:
    (bundle / name).unlink()
    make(bundle / name)
    with pytest.raises(UserError):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["./model.onnx", "x//model.onnx", "x/../model.onnx", "link/model.onnx", "link.onnx"])
def test_a_file_is_not_read_under_many_names(bundle: Path, name: str) -> None:
    (bundle / "x").mkdir()
    (bundle / "link").symlink_to(".")
    (bundle / "link.onnx").symlink_to("model.onnx")
    digest = hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    with (bundle / CHECKSUMS).open("a") as file:
        file.write(f"{digest}  {name}\n")
    with pytest.raises(IntegrityError):
        Classifier.load(bundle)


def test_a_link_out_of_the_folder_is_refused_even_to_the_same_content(bundle: Path) -> None:
    shutil.move(bundle / "tokenizer.json", bundle.parent / "elsewhere.json")
    (bundle / "tokenizer.json").symlink_to("../elsewhere.json")
    with pytest.raises(IntegrityError, match="points outside"):
        Classifier.load(bundle)


def test_checksums_of_any_size_are_not_read(bundle: Path) -> None:
    with (bundle / CHECKSUMS).open("r+b") as file:
        file.truncate(2**34)  # sparse: it takes no room
    with pytest.raises(IntegrityError, match="more than 1,048,576 bytes"):
        Classifier.load(bundle)


@pytest.mark.parametrize("line", ["", "x", "0" * 64 + "  \0", "0" * 64 + "  " + "a" * 5000, "0" * 64 + "  model.onnx"])
def test_lines_that_no_tool_writes_are_refused(bundle: Path, line: str) -> None:
    with (bundle / CHECKSUMS).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(IntegrityError):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["/etc/hostname", "//etc/hostname", "../{bundle}/model.onnx"])
def test_a_file_elsewhere_is_not_read_even_to_compare_it(bundle: Path, name: str) -> None:
    opened: list[object] = []
    sys.addaudithook(lambda event, values: opened.append(values[0]) if event == "open" else None)
    digest = hashlib.sha256(Path("/etc/hostname").read_bytes()).hexdigest()
    opened.clear()
    with (bundle / CHECKSUMS).open("a") as file:
        file.write(f"{digest}  {name.format(bundle=bundle.name)}\n")
    with pytest.raises(IntegrityError, match="points outside its folder"):
        Classifier.load(bundle)
    assert "/etc/hostname" not in map(str, opened)


def test_golden_answers_that_are_not_listed_are_refused(bundle: Path) -> None:
    lines = (bundle / CHECKSUMS).read_text().splitlines(keepends=True)
    (bundle / CHECKSUMS).write_text("".join(line for line in lines if GOLDEN not in line))
    for golden in (True, False):
        with pytest.raises(IntegrityError, match=f"no checksum for `{GOLDEN}`"):
            Classifier.load(bundle, golden=golden)


def test_one_bundle_can_be_required(bundle: Path, command: Command) -> None:
    expected = hashlib.sha256((bundle / CHECKSUMS).read_bytes()).hexdigest()
    assert manifest_sha256(bundle) == expected
    assert Classifier.load(bundle, require_sha256=expected.upper()).predict(["soup"])
    flags = ("--artifact", bundle, "--require-sha256")
    assert command(exporter.predict.main, *flags, expected, "soup")[0] == 0
    (bundle / "README.md").write_text("changed")
    write_checksums(bundle)
    status, _, err = command(exporter.predict.main, *flags, expected, "soup")
    assert (status, "is not the required one" in err) == (2, True)


# --- the manifest, the golden answers and the tokenizer


@pytest.mark.parametrize(
    "values",
    [
        {"label_names": []},
        {"label_names": ["a", "b", "b", "c"]},
        {"label_names": ["a", "b"]},  # and logits of four
        {"label_names": ["a", "b", "c", ""]},
        {"label_names": ["a", "b", "c", "\ud800"]},
        {"label_names": "abcd"},
        {"label_names": [1, 2, 3, 4]},
        {"max_length": 0},
        {"max_length": 10**12},
        {"max_length": 10**400},
        {"max_length": True},
        {"pad_token_id": -1},
        {"pad_token_id": 2**70},
        {"truncation": "middle"},
        {"model_file": "../model.onnx"},
        {"model_file": "tokenizer.json"},
        {"model_file": "pickle.bin"},
        {"model_file": "\ud800.onnx"},
        {"schema": -1},
        {"kind": ["Artifact"]},
        {"unknown": 1},
    ],
)
def test_a_manifest_that_cannot_be_is_refused(bundle: Path, values: dict[str, Any]) -> None:
    edit(bundle / MANIFEST, **values)
    with pytest.raises(UserError):
        Classifier.load(bundle).predict(["soup", "salt " * 100])


@pytest.mark.parametrize(
    "values",
    [
        {"texts": [], "logits": []},
        {"texts": ["a"]},
        {"logits": [[0.0]] * 8},
        {"logits": [[0.0] * 4] * 7 + [[0.0]]},
        {"logits": [[0.0] * 4] * 7 + [[1e999] * 4]},
        {"tolerance": float("nan")},
        {"tolerance": float("inf")},
        {"texts": ["\ud800"] * 8},
        {"texts": ["soup " * 2**20] * 8},
        {"measure": "taste"},
        {"texts": ["a"] * 2000, "logits": [[0.0] * 4] * 2000},
    ],
)
def test_golden_answers_that_cannot_be_are_refused(bundle: Path, values: dict[str, Any]) -> None:
    edit(bundle / GOLDEN, **values)
    with pytest.raises(UserError, match=rf"{GOLDEN}|answers differently"):
        Classifier.load(bundle)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([MANIFEST, GOLDEN, "tokenizer.json"]), data=st.data())
def test_any_json_anywhere_ends_in_words(bundle: Path, name: str, data: st.DataObject) -> None:
    path = bundle / name
    before = path.read_text()
    content = json.loads(before)
    inner = content
    key = data.draw(st.sampled_from(sorted(inner)))
    while isinstance(inner[key], dict) and inner[key] and data.draw(st.booleans()):
        inner = inner[key]
        key = data.draw(st.sampled_from(sorted(inner)))
    inner[key] = data.draw(JSON)
    path.write_text(json.dumps(content))
    write_checksums(bundle)
    try:
        with contextlib.suppress(UserError):
            Classifier.load(bundle).predict(["soup"])
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", [MANIFEST, GOLDEN, "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"[" * 200_000, b"\xff", b"null", b'{"a": 1', b"9" * 5000])
def test_what_is_no_json_or_nested_too_deep_is_refused(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    write_checksums(bundle)
    with pytest.raises(UserError):
        Classifier.load(bundle)


def test_a_regular_expression_that_never_ends_is_an_error(bundle: Path) -> None:
    pattern = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    edit(bundle / "tokenizer.json", pre_tokenizer=pattern)
    with pytest.raises(UserError, match="the tokenizer fails"):
        Classifier.load(bundle, golden=False).predict(["a" * 60 + "!"])


def test_replacements_that_fill_the_memory_are_refused(bundle: Path) -> None:
    bomb = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    edit(bundle / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [bomb] * 12})
    with pytest.raises(UserError, match="make texts too long"):
        Classifier.load(bundle)


@pytest.mark.parametrize("longest", [100_000, 5_000_000_000])
def test_words_without_end_are_refused(bundle: Path, longest: int) -> None:
    model = json.loads((bundle / "tokenizer.json").read_text())["model"]
    edit(bundle / "tokenizer.json", model=model | {"max_input_chars_per_word": longest})
    with pytest.raises(UserError, match="words of more than 500 characters"):
        Classifier.load(bundle)


def test_a_map_of_characters_that_fills_the_memory_is_refused(bundle: Path) -> None:
    trie = b"\0" * 1024
    charsmap = base64.b64encode(len(trie).to_bytes(4, "little") + trie + b"a" * 2000 + b"\0").decode()
    edit(bundle / "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap})
    with pytest.raises(UserError, match="make texts too long"):
        Classifier.load(bundle)


@pytest.mark.parametrize(
    "change",
    [{"chosen": "/"}, {"chosen": "../other"}, {"chosen": "scratch"}, {"artifact_sha256": {"../other": "0" * 64}}],
)
def test_a_record_chooses_among_its_own_artifacts(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], change: dict[str, Any]
) -> None:
    run = copy_of(exported)
    record = json.loads(run.export_record.read_text())
    run.export_record.write_text(json.dumps(record | change))
    with pytest.raises(IntegrityError, match="its artifacts do not fit"):
        load_export(run)


def test_a_record_that_is_a_pipe_is_not_waited_for(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    run = copy_of(exported)
    run.record.unlink()
    os.mkfifo(run.record)
    with pytest.raises(UserError, match="made from another training run"):
        load_export(run)


def test_label_names_do_not_reach_the_terminal_as_they_are(bundle: Path, command: Command) -> None:
    edit(bundle / MANIFEST, label_names=["\x1b[2Jfood\nerror: fake", "\u202eyenom", "\x9bmusic", "\rsport"])
    _, out, _ = command(exporter.predict.main, "--artifact", bundle, "soup bread\x1b]0;owned\x07 cheese", "loan")
    assert len(out.splitlines()) == 2
    assert r"\x1b[2Jfood\nerror: fake" in out
    assert r"soup bread\x1b]0;owned\x07 cheese" in out
    assert not set("\x1b\x07\x9b\r\u202e") & set(out)


# --- the model


def add_to_logits(bundle: Path, value: float) -> None:
    model = onnx.load(bundle / "model.onnx")
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "logits":
                node.output[i] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "value"))
    model.graph.node.append(helper.make_node("Add", ["before", "value"], ["logits"]))
    onnx.save(model, bundle / "model.onnx")
    write_checksums(bundle)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_no_answers(bundle: Path, value: float, command: Command, tmp_path: Path) -> None:
    add_to_logits(bundle, value)
    with pytest.raises(IntegrityError, match="answers differently"):
        Classifier.load(bundle)
    with pytest.raises(UserError, match="NaN or infinity for text 1"):
        Classifier.load(bundle, golden=False).predict(["soup"])
    out = tmp_path / "out.csv"
    status, _, _ = command(exporter.predict.main, "--no-golden", "--artifact", bundle, "--output", out, "soup")
    assert status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def other_model(output: str, inputs: tuple[str, ...], op: str = "Cast") -> onnx.ModelProto:
    """A model that returns the ids as floats, one for each token, or takes what no classifier takes."""
    wanted = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in inputs]
    node = helper.make_node(op, [inputs[0]], [output], to=TensorProto.FLOAT)
    graph = helper.make_graph([node], "g", wanted, [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("output", "inputs"),
    [("logits", ("input_ids", "attention_mask")), ("scores", ("input_ids",)), ("logits", ("input_ids", "taste"))],
)
def test_a_model_that_is_no_classifier_is_refused(bundle: Path, output: str, inputs: tuple[str, ...]) -> None:
    onnx.save(other_model(output, inputs), bundle / "model.onnx")
    write_checksums(bundle)
    for golden in (True, False):
        with pytest.raises(UserError, match=r"logits of shape|onnxruntime cannot run"):
            Classifier.load(bundle, golden=golden).predict(["soup"])


# --- values in another file


def external(tensor: TensorProto, location: str = "weights.bin") -> TensorProto:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.zeros(3, np.float32), name)


def graph_with(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "g", [], [], initializer=[tensor])


def in_initializer(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(graph_with(tensor))


def in_constant(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "g", [], []))


def in_subgraphs(tensor: TensorProto) -> onnx.ModelProto:
    graph = graph_with(tensor)
    for _ in range(5):
        node = helper.make_node("If", ["c"], ["o"], then_branch=helper.make_graph([], "e", [], []), else_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    return helper.make_model(graph)


def in_list(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Custom", [], ["c"], many=[constant("a"), tensor], graphs=[graph_with(constant())])
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_sparse(tensor: TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph([], "g", [], [])
    graph.sparse_initializer.add(values=constant(), indices=tensor)
    return helper.make_model(graph)


def in_function(tensor: TensorProto) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], ["o"], value=tensor)]
    function = helper.make_function("mine", "f", [], ["o"], nodes, [helper.make_opsetid("", 17)])
    return helper.make_model(helper.make_graph([], "g", [], []), functions=[function])


def in_training(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    model.training_info.add(algorithm=graph_with(tensor))
    return model


PLACES = [in_initializer, in_constant, in_subgraphs, in_list, in_sparse, in_function, in_training]


@pytest.mark.parametrize("place", PLACES)
def test_values_in_another_file_are_found_wherever_they_are(
    tmp_path: Path, place: Callable[[TensorProto], onnx.ModelProto]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(place(constant()).SerializeToString())
    check_onnx_file(path)
    only_location, only_flag = constant(), constant()
    only_location.external_data.add(key="location", value="x")
    only_flag.data_location = TensorProto.EXTERNAL
    for tensor in (external(constant()), only_location, only_flag):
        path.write_bytes(place(tensor).SerializeToString())
        with pytest.raises(IntegrityError, match="another file"):
            check_onnx_file(path)


def test_what_the_onnx_package_saves_with_external_data_is_refused_before_onnxruntime_sees_it(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    onnx.save(model, bundle / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    write_checksums(bundle)
    with pytest.raises(IntegrityError, match="another file"):
        open_artifact(bundle)
    (bundle / "weights.bin").unlink()
    write_checksums(bundle)
    with pytest.raises(IntegrityError, match="another file"):
        Classifier.load(bundle)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60))
def test_any_bytes_are_read_to_an_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.onnx"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        check_onnx_file(path)


def test_a_model_cut_short_is_malformed_or_has_nothing_to_hide(tmp_path: Path) -> None:
    content = in_subgraphs(external(constant())).SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        try:
            check_onnx_file(path)
        except UserError:
            continue
        assert not onnx.ModelProto.FromString(content[:length]).graph.node
