"""The machine's limits, cores, packages, cold starts and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnx.parser
import pytest
import torch

from bench.measure.cold import cold_start
from bench.measure.cores import choose_cores
from bench.measure.environment import packages_bytes
from bench.measure.machine import measure_machine, products_of
from bench.measure.memory import driver_bytes, gpu_bytes
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
    assert driver_bytes(9) is None
    monkeypatch.setenv("PATH", "")
    assert gpu_bytes() is None
