"""The engines that can be measured, and why one cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.engines.table import PEERS, SPECS, choose_specs, load_engine, why_unusable
from exporter.bundle.probabilities import softmax
from exporter.records import load_export
from trainer.errors import UserError
from trainer.run import RunDir


class TestEngines:
    def test_unknown_names_are_refused(self) -> None:
        with pytest.raises(UserError, match="no engine `nope`"):
            choose_specs(["nope"])
        assert choose_specs(None) == list(SPECS)
        assert choose_specs(None, peers=True) == [*SPECS, *PEERS]

    def test_reasons(self, exported: RunDir, copy_of: Callable[[RunDir], RunDir]) -> None:
        specs = {spec.name: spec for spec in (*SPECS, *PEERS)}
        export = load_export(exported)
        assert why_unusable(specs["onnx-int8-cpu"], exported, export, None) is None
        assert why_unusable(specs["pytorch-bf16-cuda"], exported, export, None) == "no CUDA device"
        assert why_unusable(specs["pytorch-bf16-cuda"], exported, export, "H100") is None
        assert "onnxruntime-gpu" in (why_unusable(specs["onnx-fp32-cuda"], exported, export, "H100") or "")
        assert "--target cuda" in (why_unusable(specs["onnx-fp16-cuda"], exported, export, "H100") or "")
        without = replace(export, artifacts=export.artifacts[:2])
        assert "--quantize" in (why_unusable(specs["onnx-int8-cpu"], exported, without, None) or "")
        run = copy_of(exported)
        (run.adapter / "adapter_config.json").unlink()
        assert "merged checkpoint" in (why_unusable(specs["adapter-fp32-cpu"], run, export, None) or "")

    def test_cuda_in_onnxruntime_is_refused_where_it_would_fall_back(self, exported: RunDir) -> None:
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime has CUDA")
        (spec,) = choose_specs(["onnx-fp32-cuda"])
        with pytest.raises(UserError, match="no `CUDAExecutionProvider`"):
            load_engine(spec, exported, 1)

    @pytest.mark.parametrize("name", [spec.name for spec in PEERS if spec.peer != "OpenVino"])
    def test_peers_answer_about_as_our_adapter_does(self, exported: RunDir, name: str) -> None:
        from trainer.data import read_examples

        (spec,) = choose_specs([name])
        texts = read_examples(exported.evaluation, exported.load().label_names)
        peer = load_engine(spec, exported, torch.get_num_threads())  # of this process: others' sums depend on it
        alone, together = peer.score(texts.texts[:5], 1), peer.score(texts.texts[:5], 4)
        np.testing.assert_allclose(peer.score(texts.texts[:1], 1), alone[:1], atol=1e-4)
        assert softmax(alone).sum(-1) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(softmax(together), softmax(alone), atol=0.05)
        right = np.mean(peer.score(texts.texts, 8).argmax(-1) == texts.labels)
        assert right > 0.6  # chance is 0.25
