"""Names from elsewhere stay names in the model card: in Markdown, HTML and YAML."""

from __future__ import annotations

import dataclasses
from html import unescape
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from toys import make_texts, write_csv

from exporter.bundle.artifact import Artifact
from exporter.card import Facts, render
from exporter.records import Comparison
from trainer.data import Columns, load_splits
from trainer.data.sources import Source
from trainer.errors import UserError
from trainer.run import TrainRecord
from trainer.text.characters import visible

LINK = Comparison(**{field.name: 0 for field in dataclasses.fields(Comparison)})
EVIL = [
    "<script>alert(1)</script>",
    "`<img src=x onerror=alert(2)>`",
    "``` x",
    "[a](javascript:alert(3))",
    "![a](http://evil.example/a.png)",
    "a\n\n# Download from evil.example",
    "a\u2028---\u2028b: c",
    "&lt;b&gt;",
    '"quoted" \\ and: {a, b} # c',
    "**bold** _a_ ~b~ |c|",
    "http://evil.example",
    "\x1b[31mred\x00",
    "\u202eback",
    "--- !!python/object:os.system",
    "half \udc80",
]


def read_source(name: str, revision: str | None) -> Source:
    """Return a source as a stranger's record may spell it: nothing checks it."""
    source = Source("", revision, None)
    object.__setattr__(source, "name", name)
    return source


def card(labels: tuple[str, ...], dataset: str, base: str, revision: str | None) -> str:
    artifact = Artifact("onnx-fp32", "model.onnx", "fp32", labels, 64, "head", 0, 1)
    train = TrainRecord(
        base=read_source(base, revision), base_sha256="", dataset=read_source(dataset, revision), label_names=labels,
        max_length=64, truncation="head", pad_token_id=0, evaluation_texts=1, training=None, versions={},
        adapter_sha256={}, evaluation_sha256="",
    )  # fmt: skip
    return render(artifact, train, Facts(0.9, 10, LINK))


def check_card(labels: tuple[str, ...], dataset: str, base: str, revision: str | None) -> None:
    _, metadata, text = card(labels, dataset, base, revision).split("---\n", 2)
    (model,) = yaml.safe_load(metadata)["model-index"]
    assert model["results"][0]["dataset"]["name"] == visible(dataset if revision else Path(dataset).name)
    plain = MarkdownIt("commonmark", {"html": True}).parse(card(("a",), "a", "a", None).split("---\n", 2)[2])
    parsed = MarkdownIt("commonmark", {"html": True}).parse(text)
    assert [token.type for token in parsed] == [token.type for token in plain]  # no heading, list, rule or HTML more
    inner = [child for token in parsed for child in token.children or []]
    assert {child.content for child in inner if child.type == "html_inline"} <= {"<code>", "</code>"}
    assert {child.type for child in inner} <= {"text", "code_inline", "html_inline", "softbreak", "text_special"}
    shown = unescape("".join(child.content for child in inner).replace("<code>", "").replace("</code>", ""))
    assert all(visible(label).strip() in shown for label in labels if "&" not in label)


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("revision", [None, "0123abc"])
def test_a_name_is_never_markdown_html_or_yaml(evil: str, revision: str | None) -> None:
    check_card((evil, "good"), f"{evil}.csv", evil, revision)
    text = card((evil, "good"), f"{evil}.csv", evil, revision)
    assert not [raw for raw in ("<script", "<img", "\x1b", "\u202e", "\u2028") if raw in text]


@settings(max_examples=100)
@given(st.lists(st.text(min_size=1), min_size=1).map(tuple), st.text(min_size=1))
def test_no_name_at_all_is(labels: tuple[str, ...], name: str) -> None:
    check_card(labels, name, name, "0123abc")


def test_usual_names_read_as_they_are() -> None:
    text = card(("very good", "n/a", "größer als 5", "C++"), "/home/me/my data-2.csv", "someone/base_v2", "0123abc")
    assert "one of `very good`, `n/a`, `größer als 5`, `C++`." in text
    assert "on top of `someone/base_v2`" in text


@pytest.mark.parametrize("label", ["good\n# bad", "a\r\nb", "a\x85b", "a\u2028b"])
def test_a_label_of_several_lines_is_refused(label: str, tmp_path: Path) -> None:
    rows = [(text, label if topic == "food" else topic) for text, topic in make_texts(40)]
    with pytest.raises(UserError, match="has a line break"):
        load_splits(str(write_csv(tmp_path / "a.csv", list(rows))), None)
    numbered = [(text, int(topic == "food")) for text, topic in make_texts(40)]
    with pytest.raises(UserError, match="has a line break"):
        load_splits(
            str(write_csv(tmp_path / "b.csv", list(numbered))), None, columns=Columns(names=("x", f"{label}\n"))
        )
