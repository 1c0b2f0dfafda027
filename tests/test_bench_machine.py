"""The machine's limits, cores, packages, cold starts and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.parser
import pytest
import torch

from bench.measure.cold import cold_start
from bench.measure.cores import choose_cores, siblings_beside
from bench.measure.environment import packages_bytes, read_environment
from bench.measure.gpu import bytes_of, cuda_versions, find_card, read_gpu_clocks, used_bytes
from bench.measure.machine import measure_machine, products_of
from bench.measure.memory import gpu_bytes
from bench.results import Card
from trainer.run import RunDir
from trainer.tasks import SingleLabel


def test_limits_are_those_of_the_graphs_own_products(exported: RunDir) -> None:
    model = exported.export / "onnx-fp32" / "model.onnx"
    products = products_of(model)
    # In the first layer query, key and value in one matrix, the output and two of the feed-forward; in the last one key
    # and value for every token, and the rest for one, as the two of the head.
    assert sorted(products.per_token) == sorted([(32, 96), (32, 32), (32, 64), (64, 32), (32, 32), (32, 32)])
    assert sorted(products.per_text) == sorted([(32, 32), (32, 32), (32, 64), (64, 32), (32, 32), (32, 4)])
    machine = measure_machine(None, model, torch.get_num_threads(), repeat_s=0.001)
    assert machine
    assert machine.product_weights == sum(a * b for a, b in (*products.per_token, *products.per_text))
    assert machine.flops_per_token == sum(2 * a * b for a, b in products.per_token)
    assert machine.flops_per_text == sum(2 * a * b for a, b in products.per_text)
    assert machine.flops_per_token_squared == 4 * 1 * 32
    assert {limit.precision for limit in machine.limits} == {"fp32", "int8", "bf16"}
    assert all(limit.flops > 0 for limit in machine.limits)
    assert machine.bytes_per_s > 1e6


def test_a_slice_that_names_no_axis_takes_texts_and_no_tokens(tmp_path: Path) -> None:
    weights = ", ".join(["1"] * 8)
    for axes, expected in (("", (1, 0)), (", one", (0, 1))):
        model = onnx.parser.parse_model(
            f"""<ir_version: 9, opset_import: ["" : 18]>
            graph (float[texts, tokens, 4] x) => (float[] y)
            <float[4, 2] w = {{{weights}}}, int64[1] zero = {{0}}, int64[1] one = {{1}}>
            {{ s = Slice(x, zero, one{axes}) y = MatMul(s, w) }}"""
        )
        onnx.save(model, tmp_path / "model.onnx")
        products = products_of(tmp_path / "model.onnx")
        assert (len(products.per_token), len(products.per_text)) == expected


class TestCores:
    def test_threads_get_a_physical_core_each_before_two_share_one(self, tmp_path: Path) -> None:
        for core, siblings in {0: "0-1", 1: "0-1", 2: "2,3", 3: "2,3"}.items():
            (tmp_path / f"cpu{core}" / "topology").mkdir(parents=True)
            (tmp_path / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(siblings + "\n")
        assert choose_cores({0, 1, 2, 3}, 2, tmp_path) == {0, 2}
        assert choose_cores({0, 1, 2, 3}, 3, tmp_path) == {0, 1, 2}
        assert choose_cores({1, 2, 3, 9}, 2, tmp_path) == {2, 9}  # of core 9 nothing is known
        assert choose_cores({5}, 4, tmp_path) == {5}
        assert siblings_beside({0, 2}, tmp_path) == {1, 3}
        assert siblings_beside({0, 1, 9}, tmp_path) == set()

    @pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say where a process may run")
    def test_a_process_stays_on_as_many_cores_as_it_has_threads(self) -> None:
        where = "import os; from bench.measure.cores import pin; pin(1); print(len(os.sched_getaffinity(0)))"
        assert subprocess.run([sys.executable, "-c", where], capture_output=True, text=True, check=True).stdout == "1\n"


def test_the_size_of_packages_counts_what_they_require() -> None:
    numpy, onnxruntime = packages_bytes(("numpy",)), packages_bytes(("onnxruntime",))
    assert 5e6 < numpy < onnxruntime
    assert packages_bytes(("onnxruntime", "NumPy", "numpy")) == onnxruntime
    assert packages_bytes(("no-such-package",)) == 0


def test_a_cold_start_ends_with_the_process_that_measures(exported: RunDir, tmp_path: Path) -> None:
    asked = {"engine": "onnx-fp32-cpu", "run_dir": str(exported.path), "threads": 1, "prepared": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-m", "bench.measure.cold"], stdin=subprocess.PIPE, text=True) as process:
        process.communicate(json.dumps(asked | {"text": "soup"}) + "\n")  # and closes the pipe
    assert process.returncode == 1


def test_a_cold_start_is_a_new_process_in_parts(exported: RunDir, tmp_path: Path) -> None:
    found = cold_start("onnx-fp32-cpu", exported.path, 1, tmp_path, "soup", SingleLabel(4))
    assert found
    assert set(found) == {"total_s", "import_s", "load_s", "first_s"}
    assert found["total_s"] > found["import_s"] + found["load_s"] + found["first_s"] > found["first_s"] > 0
    assert cold_start(
        "onnx-fp32-cpu", exported.path, 1, tmp_path, "soup " * 50_000, SingleLabel(4)
    )  # longer than a command's argument may be
    assert cold_start("onnx-fp32-cpu", exported.path / "gone", 1, tmp_path, "soup", SingleLabel(4)) is None


def test_memory_on_a_gpu_is_the_drivers_where_pytorch_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\necho '1, 700'\necho '{os.getpid()}, 312'\necho '9, [N/A]'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_bytes() == 312 * 2**20
    assert bytes_of(9) is None
    monkeypatch.setenv("PATH", "")
    assert gpu_bytes() is None


DRIVER = """#!/bin/sh
case "$*" in
    *--id=1*) echo 'NVIDIA T4, 570.1, [N/A]' ;;
    *driver_version*) echo 'NVIDIA H200, 580.95.05, 143771'; echo 'NVIDIA T4, 570.1, 15360' ;;
    *clocks.sm*) echo '1980'; echo '300' ;;
    *memory.used*) echo '1024'; echo '7' ;;
esac
"""


class TestTheCard:
    @pytest.fixture(autouse=True)
    def driver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A tool that answers as the driver's does where there are two cards."""
        tool = tmp_path / "nvidia-smi"
        tool.write_text(DRIVER)
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        find_card.cache_clear()
        yield
        find_card.cache_clear()

    def test_it_is_described_by_its_driver(self) -> None:
        assert find_card() == ("NVIDIA H200", Card("580.95.05", 143_771 * 2**20))
        assert read_gpu_clocks() == [1.98e9]
        assert used_bytes() == 2**30
        environment = read_environment(1)
        assert (environment.gpu, environment.card) == find_card()
        assert cuda_versions().items() <= environment.versions.items()

    def test_it_is_the_one_that_cuda_sees_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
        assert find_card() == ("NVIDIA T4", Card("570.1", None))

    def test_without_one_nothing_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        if find_card():
            pytest.skip("PyTorch sees a card without that tool")
        assert (read_gpu_clocks(), used_bytes()) == ([], None)
        environment = read_environment(1)
        assert (environment.gpu, environment.card) == (None, None)
        assert not any("cuda" in name.lower() for name in environment.versions)
