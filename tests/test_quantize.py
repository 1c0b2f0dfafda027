"""Every int8 recipe makes a model that loads, runs, is small and holds the weights it was made from."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx.numpy_helper import from_array
from toys import WORDS, make_tokenizer

from exporter.convert.graph import drop_repeats, finish_conversion, share_equals
from exporter.convert.to_onnx import convert
from exporter.engines.onnxruntime import NOT_ON_CPU
from exporter.int8.recipes import (
    RECIPES,
    Ingredients,
    Recipe,
    constant_products,
    most_sensitive,
    sensitivities,
)
from exporter.int8.weights import LeftInFloatError, check_quantized, check_ranges, check_weights, products_in_float
from exporter.proof.verify import VerificationError
from trainer.run import RunDir
from trainer.tasks import SingleLabel

LAYERS = 2
PRODUCTS = 6 * LAYERS + 2  # q, k, v, out and two of the feed-forward in each layer, and two of the head


@pytest.fixture(scope="module")
def model(exported: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "unfused"
    convert(exported.export / "pytorch-fp32", folder)
    finish_conversion(folder / "model.onnx", {})
    return folder / "model.onnx"


def feeds(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(5, 30, (1, int(rng.integers(3, 20)))) for _ in range(count)]
    return [{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in rows]


INGREDIENTS = Ingredients(feeds(16), SingleLabel(2))
INT8 = {recipe.make: recipe for recipe in RECIPES if recipe.precision == "int8"}
"""The files that recipes make, whichever engine they are for."""


def run(path: Path, rows: list[dict[str, np.ndarray]]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], row)[0] for row in rows])


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def made(recipe: str, model: Path, folder: Path, ingredients: Ingredients = INGREDIENTS) -> Path:
    output = folder / f"{recipe}.onnx"
    next(r for r in RECIPES if r.name == recipe).make(model, output, ingredients)
    return output


@pytest.mark.parametrize("recipe", INT8.values(), ids=lambda recipe: recipe.name)
def test_every_recipe_makes_a_small_model_that_answers_alike(recipe: Recipe, model: Path, tmp_path: Path) -> None:
    if not recipe.is_usable():
        pytest.skip(f"`{recipe.needs}` is not installed")
    output = made(recipe.name, model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {output.name}  # no probe is left
    before, after = run(model, feeds(24, seed=1)), run(output, feeds(24, seed=1))
    assert np.ptp(before) > 1
    assert np.abs(after - before).mean() < np.ptp(before) / 20
    assert np.mean(before.argmax(-1) == after.argmax(-1)) > 0.8
    graph = onnx.load(output).graph
    floats = sum(np.prod(w.dims) for w in graph.initializer if w.data_type == onnx.TensorProto.FLOAT)
    bytes_ = sum(
        np.prod(w.dims) for w in graph.initializer if w.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    )
    assert bytes_ > 2 * floats
    if recipe.keeps_weights:
        assert check_weights(model, output, recipe.name) > 5


@pytest.mark.parametrize("recipe", ["dynamic-channel-int8", "dynamic-tensor-uint8"])
def test_dynamic_recipes_quantize_every_constant_product_and_no_other(recipe: str, model: Path, tmp_path: Path) -> None:
    graph = onnx.load(made(recipe, model, tmp_path)).graph
    constants = {weights.name: weights.data_type for weights in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    wanted = onnx.TensorProto.INT8 if recipe.endswith("-int8") else onnx.TensorProto.UINT8
    assert len(products) == PRODUCTS
    assert all(constants.get(node.input[1]) == wanted for node in products)
    assert sum(node.op_type == "MatMul" for node in graph.node) == 2 * LAYERS  # those inside attention


@pytest.mark.parametrize("reduce_range", [False, True])
def test_attention_in_int8_has_no_product_left_and_signed_right_sides(
    model: Path, tmp_path: Path, reduce_range: bool
) -> None:
    ingredients = Ingredients(INGREDIENTS.calibration, SingleLabel(2), reduce_range=reduce_range)
    loaded = onnx.load(made("dynamic-attention-int8", model, tmp_path, ingredients))
    counts = Counter(node.op_type for node in loaded.graph.node)
    assert (counts["MatMul"], counts["MatMulInteger"]) == (0, PRODUCTS + 2 * LAYERS)
    constants = {tensor.name for tensor in loaded.graph.initializer}
    products = [node for node in loaded.graph.node if node.op_type == "MatMulInteger"]
    rights = [node.input[1] for node in products if node.input[1] not in constants]
    loaded.graph.output.extend(onnx.ValueInfoProto(name=name) for name in rights)
    session = onnxruntime.InferenceSession(loaded.SerializeToString(), providers=["CPUExecutionProvider"])
    codes = session.run(rights, feeds(1)[0])
    assert {code.dtype for code in codes} == {np.dtype(np.int8)}
    assert all(np.abs(code.astype(int)).max() == (63 if reduce_range else 127) for code in codes)


def test_sums_stay_apart_from_layer_normalisations_where_that_is_asked_for(model: Path, tmp_path: Path) -> None:
    quantized, optimized = made("dynamic-channel-int8", model, tmp_path), tmp_path / "optimized.onnx"
    for is_apart in (False, True):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimized)
        if is_apart:
            options.add_session_config_entry(*NOT_ON_CPU)
        onnxruntime.InferenceSession(quantized, options, ["CPUExecutionProvider"])
        assert ("SkipLayerNormalization" not in operators(optimized)) == is_apart


@pytest.mark.parametrize(("recipe", "keeps_sums"), [("static-minmax", False), ("static-minmax-openvino", True)])
def test_static_recipes_round_what_goes_into_constant_products(
    recipe: str, keeps_sums: bool, model: Path, tmp_path: Path
) -> None:
    graph = onnx.load(made(recipe, model, tmp_path)).graph
    makers = {name: node for node in graph.node for name in node.output}

    def readers(name: str) -> set[str]:
        return {node.op_type for node in graph.node if name in node.input}

    products = [node for node in graph.node if node.op_type == "MatMul"]
    rounded = [{getattr(makers.get(name), "op_type", None) for name in node.input} for node in products]
    assert rounded.count({"DequantizeLinear"}) == PRODUCTS
    assert len(rounded) == PRODUCTS + 2 * LAYERS
    assert sum("DequantizeLinear" in kinds for kinds in rounded) == PRODUCTS  # attention's products stay in float
    activations = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in makers]
    assert all(readers(node.output[0]) == {"MatMul"} for node in activations) == keeps_sums


def test_reduced_range_keeps_weights_to_seven_bits(model: Path, tmp_path: Path) -> None:
    def largest(ingredients: Ingredients) -> int:
        graph = onnx.load(made("dynamic-channel-int8", model, tmp_path, ingredients)).graph
        weights = [w for w in graph.initializer if re.match(r"onnx::MatMul.*_quantized", w.name)]
        codes = [onnx.numpy_helper.to_array(w) for w in weights]
        return max(int(np.abs(code.astype(int)).max()) for code in codes)

    assert largest(INGREDIENTS) == 127
    assert largest(Ingredients(INGREDIENTS.calibration, SingleLabel(2), reduce_range=True)) == 64


def test_weight_only_answers_do_not_depend_on_the_batch(model: Path, tmp_path: Path) -> None:
    """Dynamic ones do: a row's activations share their scale with the rest of the batch."""
    ids = np.random.default_rng(2).integers(5, 30, (8, 12))
    mask = np.ones_like(ids)

    def gap(recipe: str) -> float:
        path = made(recipe, model, tmp_path)
        together = run(path, [{"input_ids": ids, "attention_mask": mask}])
        alone = run(path, [{"input_ids": ids[i : i + 1], "attention_mask": mask[i : i + 1]} for i in range(8)])
        return float(np.abs(together - alone).max())

    assert gap("weight-only-int8") < 1e-5
    assert gap("dynamic-channel-int8") > 1e-4


def test_static_ranges_come_from_the_calibration_texts(model: Path, tmp_path: Path) -> None:
    assert operators(made("static-minmax", model, tmp_path)).count("DequantizeLinear") > PRODUCTS
    other = Ingredients(feeds(2, seed=7), SingleLabel(2))
    first, second = (run(made("static-minmax", model, tmp_path, i), feeds(8, seed=3)) for i in (INGREDIENTS, other))
    assert np.abs(first - second).max() > 1e-3


def test_mixed_leaves_the_most_sensitive_products_in_float(model: Path, tmp_path: Path) -> None:
    assert len(constant_products(model)) == PRODUCTS
    found = sensitivities(model, tmp_path / "probe.onnx", INGREDIENTS)
    assert set(found) == set(constant_products(model))
    assert max(found.values()) > 2 * min(found.values()) > 0
    spared = most_sensitive(found)
    kept = {tensor.name for tensor in onnx.load(made("dynamic-mixed", model, tmp_path)).graph.initializer}
    assert 1 <= len(spared) <= PRODUCTS // 4
    assert operators(tmp_path / "dynamic-mixed.onnx").count("MatMulInteger") == PRODUCTS - len(spared)
    assert kept & found.keys() == set(spared)


def test_the_most_sensitive_are_those_that_cause_half_of_it() -> None:
    assert most_sensitive({"a": 5.0, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 0, "h": 0}) == ["a"]
    assert most_sensitive({"a": 1.0, "b": 3, "c": 2.5, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1}) == ["b", "c"]


@pytest.mark.parametrize(
    "recipe", ["dynamic-channel-int8", "dynamic-tensor-uint8", "static-minmax", "weight-only-int8"]
)
@pytest.mark.parametrize("what", ["scale", "code"])
def test_a_damaged_weight_is_found_in_any_layer(recipe: str, what: str, model: Path, tmp_path: Path) -> None:
    path = made(recipe, model, tmp_path)
    quantized = onnx.load(path)
    wanted = {"scale": ("_scale", "_scales"), "code": ("_quantized", "_Q8")}[what]
    tensors = [w for w in quantized.graph.initializer if w.name.startswith("onnx::MatMul") and w.name.endswith(wanted)]
    tensor = tensors[len(tensors) // 2]
    values = onnx.numpy_helper.to_array(tensor).copy()
    if what == "scale":
        values = values * np.float32(1.05)
    else:
        values.flat[7] ^= 64
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(quantized, path)
    with pytest.raises(VerificationError, match=r"`x` does not hold the weights it was made from: `onnx::MatMul_\d+"):
        check_weights(model, path, "x")


def test_a_bias_that_was_changed_is_found(model: Path, tmp_path: Path) -> None:
    path = made("dynamic-channel-int8", model, tmp_path)
    quantized = onnx.load(path)
    tensor = next(w for w in quantized.graph.initializer if w.name.endswith("lin1.bias"))
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(0.01), tensor.name))
    onnx.save(quantized, path)
    with pytest.raises(VerificationError, match=r"`x` has a different `.*lin1.bias` than the model"):
        check_weights(model, path, "x")


@pytest.mark.parametrize(
    ("recipe", "clips", "factor"),
    [
        ("static-minmax", False, 1.1),
        ("static-minmax", False, 0.9),
        ("static-entropy", True, 3),
        ("static-percentile", True, 3),
        ("static-entropy", True, 1 / 50),
        ("static-entropy", True, 0),
        ("static-minmax", False, float("nan")),
    ],
)
def test_a_damaged_range_of_an_activation_is_found(
    recipe: str, clips: bool, factor: float, model: Path, tmp_path: Path
) -> None:
    path = made(recipe, model, tmp_path)
    arguments = (model, path, INGREDIENTS.calibration, "x")
    assert check_ranges(*arguments, clips=clips) > PRODUCTS / 2
    quantized = onnx.load(path)
    scales = {n.input[1] for n in quantized.graph.node if n.op_type == "QuantizeLinear"}
    tensor = [w for w in quantized.graph.initializer if w.name in scales][3]
    spoiled = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(spoiled, tensor.name))
    onnx.save(quantized, path)
    with pytest.raises(VerificationError, match=r"`x` limits `.*` to .* but .* was measured"):
        check_ranges(*arguments, clips=clips)


def test_a_model_without_an_int8_weight_is_refused(model: Path) -> None:
    with pytest.raises(VerificationError, match="holds no int8 weight"):
        check_weights(model, model, "x")


SIZES = {
    "vocab_size": 5 + len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
SHARING = {
    "albert": {"num_hidden_layers": 4, "num_hidden_groups": 2, "embedding_size": 16},
    "deberta-v2": {
        "num_hidden_layers": 2,
        "relative_attention": True,
        "pos_att_type": ["c2p"],
        "position_buckets": 8,
        "share_att_key": True,
    },
}
"""Two ALBERT layers, each used twice; keys that texts and positions share."""


@pytest.fixture(scope="module", params=SHARING)
def sharing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers share weights, as it was converted."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

    set_seed(0)
    config = AutoConfig.for_model(request.param, **SIZES, **SHARING[request.param])
    network = AutoModelForSequenceClassification.from_config(config)
    for weights in network.parameters():
        weights.data.normal_(0, 0.1)
    folder = tmp_path_factory.mktemp("sharing")
    network.save_pretrained(folder / "checkpoint")
    make_tokenizer(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "onnx")
    return folder / "onnx" / "model.onnx"


def test_shared_weights_are_quantized_wherever_they_are_used_and_stored_once(sharing: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(sharing, tmp_path / "model.onnx"))
    finish_conversion(model, {})
    inputs = {node.name for node in onnxruntime.InferenceSession(model).get_inputs()}
    texts = [{name: row.get(name, np.zeros_like(row["input_ids"])) for name in inputs} for row in feeds(4)]
    before = run(model, texts)
    assert np.array_equal(before, run(sharing, texts))
    used = constant_products(model)
    products = [node for nodes in used.values() for node in nodes]
    assert len(products) == len(products_in_float(onnx.load(sharing).graph)) > len(used)
    matrices = [tensor for tensor in onnx.load(model).graph.initializer if tensor.name in used]
    weights = sum(np.prod(tensor.dims) for tensor in matrices)
    for recipe in ("dynamic-channel-int8", "weight-only-int8", "static-minmax", "dynamic-mixed"):
        output = tmp_path / f"{recipe}.onnx"
        leave = next(r for r in RECIPES if r.name == recipe).make(model, output, Ingredients(texts, SingleLabel(2)))
        check_quantized(output, leave)
        assert check_weights(model, output, recipe) > len(used) - len(leave)
        assert np.abs(run(output, texts) - before).max() < np.ptp(before) / 4
        stored = [tensor for tensor in onnx.load(output).graph.initializer if tensor.name.startswith(tuple(used))]
        of_matrices = sum(np.prod(tensor.dims) for tensor in stored if len(tensor.dims) > 1)
        assert len({tensor.name for tensor in stored}) == len(stored)
        assert weights <= of_matrices < 1.1 * weights  # a little more for the scales of blocks


def write_views(path: Path) -> Path:
    """Write a model whose constants stand behind other nodes, and are used in a branch of an `If` as well."""
    rng = np.random.default_rng(0)
    shape = helper.make_tensor_value_info("sum", 1, None)
    branches = [
        helper.make_graph([helper.make_node(sign, ["h3", "again"], ["sum"])], sign, [], [shape])
        for sign in ("Add", "Sub")
    ]
    nodes = [
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("Identity", ["same"], ["again"]),
        helper.make_node("MatMul", ["x", "again"], ["h1"], "behind two identities"),
        helper.make_node("Transpose", ["same"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["h1", "turned"], ["h2"], "behind a transpose"),
        helper.make_node("Squeeze", ["halves", "first"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["floats"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Constant", [], ["square"], value=from_array(np.array([8, 8]))),
        helper.make_node("Reshape", ["floats", "square"], ["matrix"]),
        helper.make_node("Gemm", ["h2", "matrix", "bias"], ["h3"], "behind three", transB=1),
        helper.make_node("If", ["yes"], ["logits"], then_branch=branches[0], else_branch=branches[1]),
    ]
    tensors = {
        "w": rng.normal(size=(8, 8)).astype(np.float32),
        "bias": rng.normal(size=8).astype(np.float32),
        "halves": rng.normal(size=(1, 64)).astype(np.float16),
        "first": np.array([0]),
        "yes": np.array(True),
    }
    ends = [helper.make_tensor_value_info(name, 1, [8, 8]) for name in ("x", "logits")]
    graph = helper.make_graph(nodes, "views", ends[:1], ends[1:], [from_array(v, name) for name, v in tensors.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_a_weight_behind_other_nodes_is_quantized(tmp_path: Path) -> None:
    model, texts = write_views(tmp_path / "model.onnx"), [{"x": np.eye(8, dtype=np.float32)}]
    before, hidden = run(model, texts), products_in_float(onnx.load(model).graph)
    assert hidden == ["behind two identities", "behind a transpose", "behind three"]
    assert constant_products(model) == {}
    with pytest.raises(LeftInFloatError, match=r"left 3 of the products .* such as `behind two identities`"):
        check_quantized(model, ())
    finish_conversion(model, {})
    assert run(model, texts) == pytest.approx(before, abs=1e-6)  # a `Gemm` became two nodes
    assert sum(map(len, constant_products(model).values())) == 3
    check_quantized(made("dynamic-channel-int8", model, tmp_path), ())


def test_equal_weights_are_stored_once() -> None:
    weights, other = np.ones((4, 4), np.float32), np.ones((4, 4), np.float64)
    tensors = [from_array(values, name) for name, values in (("a", weights), ("b", weights), ("c", other))]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "toy", [], [], tensors)
    share_equals(graph)
    assert [tensor.name for tensor in graph.initializer] == ["a", "c"]
    assert graph.node[0].input == ["a", "a"]


def test_what_makes_the_same_again_is_dropped() -> None:
    casts = [helper.make_node("Cast", ["x"], ["y"], "cast", to=1)] * 2
    graph = helper.make_graph([*casts, helper.make_node("Add", ["y", "y"], ["sum"])], "toy", [], [])
    drop_repeats(graph)
    assert [node.op_type for node in graph.node] == ["Cast", "Add"]
