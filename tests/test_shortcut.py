"""A last layer that works for the first token alone answers as the whole one; what is read otherwise stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser
from test_convert import BATCHES, CONFIGS, LENGTHS, SELECTED, feeds, make_model

from exporter.convert.graph import finish_conversion
from exporter.convert.shortcut import shorten
from exporter.convert.to_onnx import convert
from trainer.model.architectures import ARCHITECTURES

SHORT = dict.fromkeys([*ARCHITECTURES, "deberta-v3"], 6) | dict.fromkeys(
    ["deberta", "deberta-v2", "deberta-v3", "modernbert"], 5
)
"""How many products are for one token a text: query, output, two of the feed-forward and two of the head. DeBERTa's
queries are asked for positions too, and ModernBERT has one matrix for query, key and value. The others read all tokens,
or the last one."""


def session(model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    source = model if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def short_products(path: Path, given: dict[str, np.ndarray]) -> int:
    """Run a model for one text, and count the products with a constant matrix that have one row."""
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    made = [n.output[0] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in constants]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in set(made) - {"logits"})
    return sum(array[..., 0].size == 1 for array in session(model).run(made, given))


@pytest.mark.parametrize("name", SELECTED)
def test_every_architecture_answers_as_before(name: str, tmp_path: Path) -> None:
    make_model(name, tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "onnx")
    whole, short = tmp_path / "onnx" / "model.onnx", tmp_path / "short.onnx"
    finish_conversion(whole, {})
    shutil.copyfile(whole, short)
    assert shorten(short) == (name in SHORT)
    if name not in SHORT:
        assert short.read_bytes() == whole.read_bytes()
        return
    before, after = session(whole), session(short)
    names, pad = {node.name for node in before.get_inputs()}, CONFIGS[name].pad_token_id
    for tokens in LENGTHS:
        for texts in BATCHES:
            given = feeds(texts, tokens, pad, names)
            expected, found = before.run(None, given)[0], after.run(None, given)[0]
            np.testing.assert_allclose(found, expected, atol=3e-6, err_msg=f"{texts} texts of {tokens} tokens")
    assert short_products(short, feeds(1, 33, pad, names)) == SHORT[name]
    assert not shorten(short)  # there is nothing left to do


def test_a_graph_with_an_operator_that_nobody_knows_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18, "elsewhere": 1]>
        graph (float[batch, length, 4] x) => (float[] row) <float[4, 8] w, int64 zero = {0}>
        { h = MatMul(x, w) s = elsewhere.Mix(h) row = Gather<axis=1>(s, zero) }"""
    )
    onnx.save(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    assert not shorten(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


FIRST = "row = Gather<axis=1>(h, zero)"
GRAPHS = {
    # each a body between h = MatMul(x, w) and `row`, and whether the product is shortened
    "read as it is": (FIRST, True),
    "read by a slice": ("row = Slice(h, one_zero, one_one, one_one)", True),
    "twice": (f"{FIRST} second = Gather<axis=1>(h, zero) row2 = Add(row, second)", True),
    "along each token": ("s = Softmax<axis=-1>(h) row = Gather<axis=1>(s, zero)", True),
    "normalised by token": ("s = LayerNormalization<axis=2>(h, b) row = Gather<axis=1>(s, zero)", True),
    "its own mean": ("m = ReduceMean<keepdims=1>(h, one_two) s = Sub(h, m) row = Gather<axis=1>(s, zero)", True),
    "beside a column": ("s = Concat<axis=2>(h, x) row = Gather<axis=1>(s, zero)", True),
    "turned twice": (
        "t = Transpose<perm=[1, 0, 2]>(h) s = Relu(t) u = Transpose<perm=[1, 0, 2]>(s) row = Gather<axis=1>(u, zero)",
        True,
    ),
    "in heads and back": ("s = Reshape(h, heads) t = Relu(s) u = Reshape(t, back) row = Gather<axis=1>(u, zero)", True),
    "measured": ("n = Shape(h) s = Reshape(h, n) row = Gather<axis=1>(s, zero)", True),
    "measured, and the size is used": (
        "n = Shape(h) c = Cast<to=1>(n) s = ReduceSum<keepdims=0>(c) t = Mul(h, s) row = Gather<axis=1>(t, zero)",
        True,
    ),
    "mixed by weights for each pair": ("s = MatMul(k, h) row = Gather<axis=1>(s, zero)", False),
    "the second token": ("row = Gather<axis=1>(h, one)", False),
    "the first column": ("t = Gather<axis=2>(h, zero) row = Unsqueeze(t, one_two)", False),
    "a slice of two": ("row = Slice(h, one_zero, one_two, one_one)", False),
    "the mean beside it": (f"{FIRST} m = ReduceMean<keepdims=0>(h, one_one) row2 = Add(row, m)", False),
    "along all tokens": ("s = Softmax<axis=1>(h) row = Gather<axis=1>(s, zero)", False),
    "normalised over tokens": ("s = LayerNormalization<axis=1>(h, b) row = Gather<axis=1>(s, zero)", False),
    "the mean of all tokens": (
        "m = ReduceMean<keepdims=1>(h, one_one) s = Sub(h, m) row = Gather<axis=1>(s, zero)",
        False,
    ),
    "the mean of everything": (
        "m = ReduceMean<keepdims=1>(h, nothing) s = Sub(h, m) row = Gather<axis=1>(s, zero)",
        False,
    ),
    "tokens added up": ("s = CumSum(h, one) row = Gather<axis=1>(s, zero)", False),
    "tokens side by side": ("s = Concat<axis=1>(h, h) row = Gather<axis=1>(s, zero)", False),
    "the first token cut off": ("s = Slice(h, one_one, one_end, one_one) row = Gather<axis=1>(s, zero)", False),
    "normalised over all texts": ("s = LayerNormalization<axis=0>(h, b) row = Gather<axis=1>(s, zero)", False),
    "a mean of each token, over all tokens": (
        "s, m = LayerNormalization<axis=2>(h, b) row = Gather<axis=1>(s, zero)"
        " t = ReduceMean<keepdims=0>(m, one_one) row2 = Add(row, t)",
        False,
    ),
    "the first token, and all of the first text": (
        f"{FIRST} t = Transpose<perm=[1, 0, 2]>(h) u = Gather<axis=1>(t, zero) row2 = Concat<axis=0>(row, u)",
        False,
    ),
    "two tokens to one": ("s = Reshape(h, pairs) row = Gather<axis=1>(s, zero)", False),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_product_is_shortened_where_each_operator_on_the_way_works_row_by_row(name: str, tmp_path: Path) -> None:
    body, shortened = GRAPHS[name]
    output = "row2" if "row2" in body else "row"
    model = parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 18]>
        graph (float[batch, length, 4] x, float[batch, length, length] k) => (float[] {output})
        <float[4, 8] w = {{{", ".join(str((i * 7 % 32) / 16 - 1) for i in range(32))}}}, float[1] b = {{0.5}},
         int64 zero = {{0}}, int64 one = {{1}}, int64[1] one_zero = {{0}}, int64[1] one_one = {{1}},
         int64[1] one_two = {{2}}, int64[1] one_end = {{1000}}, int64[4] heads = {{0, 0, 2, -1}},
         int64[3] back = {{0, 0, 8}}, int64[0] nothing = {{}}, int64[3] pairs = {{0, -1, 16}}>
        {{ h = MatMul(x, w) {body} }}"""
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    whole = path.read_bytes()
    assert shorten(path) == shortened
    assert (path.read_bytes() == whole) != shortened
    for texts, tokens in ((1, 2), (2, 6), (3, 4)):
        rng = np.random.default_rng(tokens)
        given = {
            "x": rng.normal(size=(texts, tokens, 4)).astype(np.float32),
            "k": rng.normal(size=(texts, tokens, tokens)).astype(np.float32),
        }
        expected, found = session(model).run(None, given)[0], session(path).run(None, given)[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)
