"""The deployed classifier: batches, threads, providers and answers, with the base dependencies alone."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from cascades import put_into
from hypothesis import given
from hypothesis import strategies as st

from exporter.checksums import IntegrityError
from exporter.engines.cores import quota_cores, usable_cores
from exporter.engines.engine import ALL_AT_ONCE, ONE_BY_ONE, Batching, batches_of
from exporter.engines.onnxruntime import NOT_ON_CPU, OnnxModel
from exporter.runtime import Classifier, Prediction
from trainer.errors import UserError
from trainer.run import RunDir
from trainer.tasks import SingleLabel
from trainer.text.tokenizing import TokenizerError


@given(
    lengths=st.lists(st.integers(1, 512)),
    tokens=st.none() | st.integers(1, 5000),
    texts=st.none() | st.integers(1, 40),
)
def test_batches_hold_every_text_once_within_the_limits(
    lengths: list[int], tokens: int | None, texts: int | None
) -> None:
    batches = batches_of(lengths, Batching(texts, tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert texts is None or len(batch) <= texts
        assert tokens is None or len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens


def test_batches_put_similar_lengths_together() -> None:
    assert batches_of([9, 1, 10, 2], Batching(tokens=20)) == [[1, 3], [0, 2]]
    assert batches_of([9, 1, 10], Batching(texts=2)) == [[1, 0], [2]]
    assert batches_of([9, 1], ALL_AT_ONCE) == [[0, 1]]
    assert batches_of([], ALL_AT_ONCE) == batches_of([], Batching(tokens=5)) == []


def test_a_batching_has_a_name() -> None:
    named = (ONE_BY_ONE, ALL_AT_ONCE, Batching(tokens=2048), Batching(texts=32), Batching(8, 99))
    assert [batching.name for batching in named] == [
        "one by one",
        "all at once",
        "batches of 2,048 tokens",
        "batches of 32 texts",
        "batches of 8 texts and 99 tokens",
    ]


def test_softmax_is_stable() -> None:
    np.testing.assert_allclose(
        SingleLabel(2).probabilities(np.float32([[1000, 1000], [0, np.log(3)]])), [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6
    )


def test_predictions_come_in_order_with_all_probabilities(exported: RunDir) -> None:
    classifier = Classifier.load(exported.export / "onnx-int8")
    texts = ["goal race team ball coach goal race", "soup bread cheese", "", "bank loan price coin tax " * 9]
    predictions = classifier.predict(texts)
    assert [p.label for p in predictions][:2] == ["sport", "food"]
    assert [p.truncated for p in predictions] == [False, False, False, True]
    for p in predictions:
        assert list(p.probabilities) == ["food", "money", "music", "sport"]
        assert sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert p.label == max(p.probabilities, key=p.probabilities.__getitem__)
    assert classifier.predict([]) == []


def test_text_beyond_the_limit_changes_nothing(exported: RunDir) -> None:
    classifier = Classifier.load(exported.export / "onnx-fp32")
    start = "drum song choir tune harp " * 5  # 25 words: the limit is 24 tokens, two of them special
    first, second = classifier.logits([start + "goal " * 20, start + "bank " * 3])
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_what_was_asked(exported: RunDir, threads: int) -> None:
    model = Classifier.load(exported.export / "onnx-fp32", threads=threads).engine.model
    assert isinstance(model, OnnxModel)
    options = model.session.get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.get_session_config_entry(NOT_ON_CPU[0]) == NOT_ON_CPU[1]


def test_a_device_that_this_onnxruntime_lacks_is_refused(exported: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="no `CUDAExecutionProvider`"):
        Classifier.load(exported.export / "onnx-fp32", device="cuda")


def test_a_silent_fall_back_to_the_cpu_is_an_error(exported: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *args, **_: real(*args, providers=["CPUExecutionProvider"])
    )
    with pytest.raises(UserError, match="fell back from `CUDAExecutionProvider` to `CPUExecutionProvider`"):
        Classifier.load(exported.export / "onnx-fp32", device="cuda")


def test_a_checkpoint_is_not_an_onnx_artifact(exported: RunDir) -> None:
    with pytest.raises(UserError, match="not an ONNX artifact"):
        Classifier.load(exported.export / "pytorch-fp32")


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, np.inf),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, np.inf),
        ({"cpu.max": "nonsense"}, np.inf),
        ({}, np.inf),
    ],
)
def test_the_quota_of_the_container_limits_the_cores(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert quota_cores(tmp_path) == quota
    assert usable_cores(tmp_path) == max(1, int(min(quota, usable_cores(tmp_path / "no such folder"))))


HELD: list[Classifier] = []
"""What a forked process has without being handed anything."""


def ask_held(texts: list[str]) -> list[Prediction]:
    return HELD[0].predict(texts)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_another_process_loads_it_again_with_all_checks(
    exported: RunDir, method: str, copy_of: Callable[[RunDir], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(exported).export / "onnx-int8"
    monkeypatch.chdir(folder.parent)
    classifier = Classifier.load(folder.name, threads=2)
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys.modules[__name__], "HELD", [classifier])

    def ask(texts: list[str]) -> list[Prediction]:
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            return pool.submit(ask_held if method == "fork" else classifier.predict, texts).result(timeout=100)

    texts = ["goal race team", "soup bread cheese"]
    assert ask(texts) == classifier.predict(texts)
    shutil.copytree(exported.export / "onnx-fp32", folder, dirs_exist_ok=True)  # whole, but another one
    with pytest.raises(IntegrityError, match=r"`.*SHA256SUMS` is not the required one"):
        ask(texts)
    assert classifier.predict(texts)  # what is loaded stays


def test_a_pickle_holds_the_folder_and_not_the_model_and_errors_can_be_pickled(exported: RunDir) -> None:
    classifier = Classifier.load(exported.export / "onnx-fp32", golden=False)
    pickled = pickle.dumps(classifier)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)  # noqa: S301
    assert again.artifact == classifier.artifact
    assert again.predict(["soup"]) == classifier.predict(["soup"])
    error = pickle.loads(pickle.dumps(TokenizerError("why")))  # noqa: S301
    assert (error.message, error.hint) == (TokenizerError("why").message, TokenizerError("why").hint)


BLOCKED = (
    "torch",
    "transformers",
    "peft",
    "optimum",
    "datasets",
    "sklearn",
    "scipy",
    "safetensors",
    "onnx",
    "pandas",
    "pyarrow",
    "huggingface_hub",
)


def test_it_answers_where_nothing_but_the_base_dependencies_can_be_imported(
    exported: RunDir, tmp_path: Path, copy_of: Callable[[RunDir], RunDir]
) -> None:
    folder = (copy_of(exported).export / "onnx-int8").rename(tmp_path / "deployed")
    put_into(folder)
    code = f"""
import sys
for name in {BLOCKED}:
    sys.modules[name] = None
import runpy
sys.argv = ["exporter.predict", "--artifact", {str(folder)!r}, "--explain", "goal race team ball", "the a of"]
runpy.run_module("exporter.predict", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, *reasons, last = done.stdout.splitlines()
    assert first.startswith("sport  (sport ")
    assert ("[lexical]" in first, "[model]" in last) == (True, True)
    assert any(line.endswith("goal race") for line in reasons)
