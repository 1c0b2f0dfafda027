"""Rows of a table of positions that are cut out at once are the rows that were looked up before."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from test_convert import BATCHES, CONFIGS, LENGTHS, feeds, make_model
from test_shortcut import session

from exporter.convert.graph import finish_conversion
from exporter.convert.positions import slice_positions
from exporter.convert.to_onnx import convert


@pytest.mark.parametrize(("name", "is_changed"), [("distilbert", True), ("bert", True), ("roberta", False)])
def test_answers_stay_the_same_to_the_bit(name: str, is_changed: bool, tmp_path: Path) -> None:
    make_model(name, tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "onnx")
    looked_up, cut = tmp_path / "onnx" / "model.onnx", tmp_path / "cut.onnx"
    finish_conversion(looked_up, {})
    shutil.copyfile(looked_up, cut)
    assert slice_positions(cut) == is_changed
    assert (cut.read_bytes() != looked_up.read_bytes()) == is_changed
    before, after = session(looked_up), session(cut)
    names, pad = {node.name for node in before.get_inputs()}, CONFIGS[name].pad_token_id
    for tokens in LENGTHS:
        for texts in BATCHES:
            given = feeds(texts, tokens, pad, names)
            np.testing.assert_array_equal(after.run(None, given)[0], before.run(None, given)[0])
    assert not slice_positions(cut)  # there is nothing left to do


LOOKED_UP = """
<ir_version: 8, opset_import: ["": 17]>
look (int64[1] end) => (float[n, m, 2] rows)
<float[3, 2] table = {1, 2, 3, 4, 5, 6}, int64[2, 3] numbers = {2, 0, 1, 1, 1, 0},
 int64[1] start = {0}, int64[1] axis = {AXIS}>
{
    part = Slice (numbers, start, end, axis)
    rows = Gather <axis = 0> (table, part)
}
"""


@pytest.mark.parametrize(("axis", "is_changed"), [(0, True), (1, True), (-1, False)])
def test_any_axis_counted_from_the_first(axis: int, is_changed: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(parser.parse_model(LOOKED_UP.replace("AXIS", str(axis))), path)
    ends = [{"end": np.array([end])} for end in (1, 2, 3)]
    expected = [session(path).run(None, end)[0] for end in ends]
    assert slice_positions(path) == is_changed
    for end, rows in zip(ends, expected, strict=True):
        np.testing.assert_array_equal(session(path).run(None, end)[0], rows)
    assert (len(onnx.load(path).graph.node) == 1) == is_changed
