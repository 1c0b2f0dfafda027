"""The engines that can be measured: which there are, why one cannot be used, and what it takes to add one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cascades import give_openvino, put_into
from toy_engine import Majority
from toys import TOPICS

from bench.engines.cuda_graph import GraphModel, Replay, widths_of
from bench.engines.peers import own_best
from bench.engines.pytorch import _batched
from bench.engines.table import ENGINES, choose_engines, reference_of
from bench.measure.calls import first_stage_count, timed
from exporter.cascade.engine import CascadeEngine
from exporter.engines.engine import ONE_BY_ONE, Batching, ModelEngine
from exporter.engines.onnxruntime import load_engine
from exporter.engines.shapes import FewShapes
from exporter.engines.table import LOAD
from exporter.proof.reference import TorchModel, load_merged
from trainer.data import read_examples
from trainer.errors import UserError
from trainer.run import RunDir
from trainer.tasks import FloatArray, SingleLabel
from trainer.text.encoding import IntArray

BY_NAME = {spec.name: spec for spec in ENGINES}
ARTIFACTS = ("pytorch-fp32", "onnx-fp32", "onnx-int8")
PEERS = [spec.name for spec in ENGINES if spec.is_peer and spec.device == "cpu" and not spec.absent()]


def test_unknown_names_are_refused_and_peers_are_measured_on_request() -> None:
    with pytest.raises(UserError, match="no engine `nope`"):
        choose_engines(["nope"])
    assert not any(spec.is_peer for spec in choose_engines(None))
    installed = [spec for spec in ENGINES if not (spec.is_extra and spec.absent())]
    assert choose_engines(None, peers=True) == installed
    assert choose_engines(["onnx-int8-cpu"] * 2) == [BY_NAME["onnx-int8-cpu"]]


def test_only_what_the_exporter_made_can_be_shipped() -> None:
    for_openvino = {"onnx-int8-openvino", "onnx-bf16-openvino"}
    assert {spec.artifact for spec in ENGINES if spec.can_ship} == {*ARTIFACTS, "onnx-fp16", *for_openvino}
    assert not any(spec.can_ship and spec.is_peer for spec in ENGINES)


def test_the_reference_is_pytorch_on_the_cpu_or_else_another_of_ours_in_fp32() -> None:
    names = ["onnx-int8-cpu", "transformers-pipeline", "onnx-fp32-cpu", "pytorch-fp32-cpu"]
    assert reference_of(choose_engines(names)).name == "pytorch-fp32-cpu"
    assert reference_of(choose_engines(names[:3])).name == "onnx-fp32-cpu"
    assert reference_of(choose_engines(names[:2])).name == "onnx-int8-cpu"
    assert reference_of(choose_engines(["cascade-int8-cpu", "onnx-int8-cpu"])).name == "onnx-int8-cpu"


def test_reasons(exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
    def why(name: str, gpu: str | None = None, artifacts: tuple[str, ...] = ARTIFACTS, run: RunDir = exported) -> str:
        return BY_NAME[name].why_unusable(run, artifacts, gpu) or ""

    assert why("onnx-int8-cpu") == ""
    assert why("pytorch-bf16-cuda") == "no CUDA device"
    assert why("pytorch-bf16-cuda", "H100") == ""
    assert "onnxruntime-gpu" in why("onnx-fp32-cuda", "H100")
    assert "`python -m exporter --target cuda` makes it" in why("onnx-fp16-cuda", "H100")
    assert "`python -m exporter --quantize` makes it" in why("onnx-int8-cpu", artifacts=ARTIFACTS[:2])
    absent = replace(BY_NAME["onnx-int8-cpu"], imports=("onnxruntime", "no_such_package"))
    assert (
        absent.why_unusable(exported, ARTIFACTS, None)
        == "`no_such_package` is not installed; `pip install onnxruntime tokenizers numpy` to have it"
    )
    run = copy_of(exported)
    (run.adapter / "adapter_config.json").unlink()
    assert "whole checkpoint" in why("adapter-fp32-cpu", run=run)


def test_a_cascade_is_measured_where_the_artifact_has_one(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], tmp_path: Path
) -> None:
    spec = BY_NAME["cascade-int8-cpu"]
    assert spec.why_unusable(exported, ARTIFACTS, None) == "`onnx-int8` has no first stage"
    with pytest.raises(UserError, match="onnx-int8` has no first stage"):
        spec.load(exported, 1, tmp_path)
    run = copy_of(exported)
    put_into(run.export / "onnx-int8")
    assert spec.why_unusable(run, ARTIFACTS, None) is None
    engine, alone = spec.load(run, 1, tmp_path), BY_NAME["onnx-int8-cpu"].load(run, 1, tmp_path)
    texts = read_examples(run.evaluation, run.load().label_names).texts
    assert isinstance(engine, CascadeEngine)
    count = first_stage_count(engine, texts)
    assert 0 < count < len(texts)
    same = np.isclose(engine.logits(texts, ONE_BY_ONE), alone.logits(texts, ONE_BY_ONE), atol=1e-5).all(axis=1)
    assert same.sum() == len(texts) - count
    call = timed(engine, texts[0], SingleLabel(4))
    assert (call.tokenise_s, call.run_s) == (None, None)


def test_a_cascade_before_openvino_is_a_row_where_its_artifact_has_one(
    exported: RunDir, copy_of: Callable[[RunDir], RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, artifacts = copy_of(exported), (*ARTIFACTS, "onnx-int8-openvino")
    spec, installed = BY_NAME["cascade-int8-openvino"], {"onnxruntime", "openvino", "tokenizers"}
    monkeypatch.setattr("exporter.engines.spec.is_installed", lambda name: name in installed)
    monkeypatch.setitem(LOAD, "openvino", load_engine)
    assert "`python -m exporter --quantize` makes it" in (spec.why_unusable(run, ARTIFACTS, None) or "")
    give_openvino(run)
    assert spec.why_unusable(run, artifacts, None) == "`onnx-int8-openvino` has no first stage"
    put_into(run.export / "onnx-int8-openvino")
    assert BY_NAME["cascade-int8-cpu"].why_unusable(run, artifacts, None) == "`onnx-int8` has no first stage"
    assert spec.why_unusable(run, artifacts, None) is None
    engine = spec.load(run, 1, tmp_path)
    assert isinstance(engine, CascadeEngine)
    assert first_stage_count(engine, read_examples(run.evaluation, run.load().label_names).texts)
    assert spec in choose_engines(None)
    installed.remove("openvino")
    assert "`openvino` is not installed" in (spec.why_unusable(run, artifacts, None) or "")
    assert spec not in choose_engines(None)


def test_cuda_in_onnxruntime_is_refused_where_it_would_fall_back(exported: RunDir, tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(UserError, match="no `CUDAExecutionProvider`"):
        BY_NAME["onnx-fp32-cuda"].load(exported, 1, tmp_path)


@pytest.mark.parametrize("name", PEERS)
def test_peers_answer_about_as_our_adapter_does(exported: RunDir, name: str, tmp_path: Path) -> None:
    spec = BY_NAME[name]
    examples = read_examples(exported.evaluation, exported.load().label_names)
    if spec.prepare:
        spec.prepare(exported, tmp_path)
    peer = spec.load(exported, torch.get_num_threads(), tmp_path)  # of this process: others' sums depend on it
    alone, together = peer.logits(examples.texts[:5], ONE_BY_ONE), peer.logits(examples.texts[:5], Batching(texts=4))
    np.testing.assert_allclose(peer.logits(examples.texts[:1], ONE_BY_ONE), alone[:1], atol=1e-4)
    assert SingleLabel(4).probabilities(alone).sum(-1) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(SingleLabel(4).probabilities(together), SingleLabel(4).probabilities(alone), atol=0.05)
    for batching in peer.batchings:
        answers = SingleLabel(4).probabilities(peer.logits(examples.texts[:5], batching))
        np.testing.assert_allclose(answers, SingleLabel(4).probabilities(alone), atol=0.05)
    right = np.mean(peer.logits(examples.texts, Batching(texts=8)).argmax(-1) == examples.labels)
    assert right > 0.6  # chance is 0.25


def test_peers_on_streams_are_asked_in_all_ways_that_they_recommend() -> None:
    names = ["one by one", "one by one, 2 at a time", "batches of 32 texts", "batches of 32 texts, 2 at a time"]
    names += ["batches of 1,024 tokens", "batches of 1,024 tokens, 2 at a time"]
    assert [batching.name for batching in own_best(2)] == names
    assert len(own_best(1)) == 3


def test_optimum_has_the_threads_that_the_others_have(exported: RunDir, tmp_path: Path) -> None:
    spec = BY_NAME["optimum-pipeline-fp32"]
    if spec.absent():
        pytest.skip("optimum is not installed")
    peer: Any = spec.load(exported, 1, tmp_path)
    assert peer._pipe.model.session.get_session_options().intra_op_num_threads == 1


class Pipe:
    """Stands in for what `transformers.pipeline` returns, and remembers how it was made and asked."""

    def __init__(self, **made_with: Any) -> None:
        self.made_with, self.sizes = made_with, []

    def __call__(self, texts: Any, batch_size: int = 1) -> Any:
        self.sizes.append(batch_size)
        answer = [{"label": name, "score": 0.25} for name in TOPICS]
        return [answer] * (1 if isinstance(texts, str) else len(texts))


def test_pipelines_on_cuda_are_asked_for_the_device_and_its_precision(
    exported: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No card is needed to see what is asked for."""
    import transformers

    pipes: list[Pipe] = []
    monkeypatch.setattr(transformers, "pipeline", lambda _, **how: pipes.append(Pipe(**how)) or pipes[-1])
    peer = BY_NAME["transformers-pipeline-fp16-cuda"].load(exported, 1, tmp_path)
    assert pipes[0].made_with["device"] == torch.device("cuda:0")
    assert {weight.dtype for weight in pipes[0].made_with["model"].parameters()} == {torch.float16}
    assert peer.logits(["a", "b"], Batching(texts=32)).shape == (2, 4)
    assert pipes[0].sizes == [32]


class TestGraphs:
    """On the CPU, with a stand-in for what is captured: the inputs are copied into one place, and run from there."""

    def test_widths_are_few_and_reach_the_longest_text(self) -> None:
        assert widths_of(512) == [*range(32, 513, 32)]
        assert widths_of(100) == [32, 64, 96, 100]
        assert widths_of(20) == [20]
        assert widths_of(8192) == [*range(256, 8193, 256)]

    def test_one_text_is_padded_to_the_next_width_and_answers_as_usual(self, exported: RunDir) -> None:
        eager, asked = load_merged(exported.export / "pytorch-fp32").model, []

        def capture(model: TorchModel, width: int) -> Replay:
            rows = torch.zeros((len(model.inputs), 1, width), dtype=torch.int64)

            def replay(arrays: IntArray) -> FloatArray:
                asked.append(width)
                rows.copy_(torch.from_numpy(arrays))
                return model.forward(rows).detach().numpy()

            return replay

        graphs = GraphModel(eager, capture)
        texts = eager.encoder.encode(["the soup", "a " * 50, "it"])
        for text in texts:
            np.testing.assert_allclose(graphs.run([text]), eager.run([text]), atol=1e-4)
        assert asked == [24] * 3  # the longest that this classifier reads is shorter than a step
        np.testing.assert_allclose(graphs.run([texts[0]], 10), eager.run([texts[0]], 10), atol=1e-4)
        assert len(asked) == 4
        np.testing.assert_allclose(graphs.run(texts), eager.run(texts), atol=1e-6)
        np.testing.assert_allclose(graphs.run([texts[0]], 40), eager.run([texts[0]], 40), atol=1e-6)
        assert len(asked) == 4

    def test_transformers_that_look_at_the_mask_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import bench.engines.cuda_graph as module

        monkeypatch.setattr(module, "version", lambda _: "4.57.6")
        assert "before transformers 5" in (module.without_capturing(RunDir(Path())) or "")
        monkeypatch.setattr(module, "version", lambda _: "5.24.0")
        assert module.without_capturing(RunDir(Path())) is None


def test_pytorch_answers_the_same_in_few_sizes(exported: RunDir) -> None:
    engine = load_merged(exported.export / "pytorch-fp32")
    texts = [f"a film {'that I ' * (i % 5)}liked" for i in range(5)]
    usual = engine.logits(texts)
    engine.model.shapes = FewShapes(engine.model.encoder.max_length)
    np.testing.assert_allclose(engine.logits(texts), usual, atol=1e-5)


def test_rows_of_pytorch_on_cuda_try_large_batches() -> None:
    engine = ModelEngine(Majority)  # type: ignore[type-var]
    assert [b.tokens for b in _batched(engine, "cuda").batchings] == [8192, 32768, 131072]
    assert _batched(ModelEngine(Majority), "cpu").batchings == ModelEngine.batchings  # type: ignore[type-var]


class TestWordCounts:
    SPEC = BY_NAME["tfidf-logistic-regression"]

    def test_it_is_fitted_on_the_runs_own_training_texts_and_answers_as_scikit_learn_does(
        self, trained: RunDir, tmp_path: Path
    ) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        from trainer.run import reload_splits

        assert self.SPEC.prepare
        self.SPEC.prepare(trained, tmp_path)
        splits = reload_splits(trained.load())
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
        model = LogisticRegression(C=10, max_iter=1000).fit(
            words.fit_transform(splits.train.texts), splits.train.labels
        )
        expected = model.predict_proba(words.transform(splits.evaluation.texts))
        found = SingleLabel(4).probabilities(self.SPEC.load(trained, 1, tmp_path).logits(splits.evaluation.texts))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_a_run_whose_data_has_changed_is_refused(
        self, trained: RunDir, copy_of: Callable[[RunDir], RunDir], tmp_path: Path
    ) -> None:
        run = copy_of(trained)
        source = Path(run.load().dataset.name)
        grown = tmp_path / "grown.csv"
        grown.write_text(source.read_text() + "soup and bread again,food\n")
        run.record.write_text(run.record.read_text().replace(str(source), str(grown)))
        assert self.SPEC.prepare
        with pytest.raises(UserError, match="has changed since"):
            self.SPEC.prepare(run, tmp_path)
