"""LoRA goes where it should, everything new is trained, and the seed decides every new weight."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from toys import make_tokenizer
from transformers import AutoConfig, AutoModel, PretrainedConfig, set_seed

from exporter.convert.graph import fuse
from exporter.convert.shortcut import shorten
from exporter.convert.to_onnx import convert
from exporter.proof.reference import takes_whole_masks
from trainer.data.sources import Base, HubUnreachableError, Source, locate_base
from trainer.errors import UserError
from trainer.model import architectures
from trainer.model.architectures import ARCHITECTURES, Architecture, architecture_of
from trainer.model.load import build_model, inputs_of, load_tokenizer

LORA: dict[str, Any] = {
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "lora_targets": None,
    "seed": 0,
}
BINARY = ("negative", "positive")

SIZE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip
TOYS: dict[str, tuple[PretrainedConfig, str]] = {
    # by model type: a small configuration, and what is trained in full on top of LoRA
    "bert": (transformers.BertConfig(**SIZE), "classifier"),
    "albert": (transformers.AlbertConfig(**SIZE, embedding_size=16), "classifier"),
    "mpnet": (transformers.MPNetConfig(**SIZE | {"pad_token_id": 1}), "classifier"),
    "roberta": (transformers.RobertaConfig(**SIZE), "classifier"),
    "camembert": (transformers.CamembertConfig(**SIZE), "classifier"),
    "xlm-roberta": (transformers.XLMRobertaConfig(**SIZE), "classifier"),
    "electra": (transformers.ElectraConfig(**SIZE, embedding_size=32), "classifier"),
    "deberta": (transformers.DebertaConfig(**SIZE, pos_att_type=["c2p"], relative_attention=True), "classifier pooler"),
    "deberta-v2": (
        transformers.DebertaV2Config(**SIZE, pos_att_type=["c2p"], relative_attention=True),
        "classifier pooler",
    ),
    "modernbert": (
        transformers.ModernBertConfig(**SIZE, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3),
        "classifier head",
    ),
    "distilbert": (
        transformers.DistilBertConfig(vocab_size=64, dim=32, hidden_dim=64, n_layers=2, n_heads=2),
        "classifier pre_classifier",
    ),
}


def make_base(folder: Path, config: PretrainedConfig) -> Base:
    AutoModel.from_config(config).save_pretrained(folder)
    return Base(folder, Source("toy", None, None))


def test_distilbert_at_its_true_size_trains_739_586_parameters(tmp_path: Path) -> None:
    base = make_base(tmp_path, transformers.DistilBertConfig())
    trainable, total = build_model(base, BINARY, **LORA).get_nb_trainable_parameters()
    assert trainable == 739_586
    assert total == 66_955_010 + 739_586  # peft keeps a frozen copy of the head beside the trained one


@pytest.mark.parametrize("architecture", TOYS)
def test_every_architecture_trains_its_new_modules_and_its_lora_alone(tmp_path: Path, architecture: str) -> None:
    config, full = TOYS[architecture]
    base = make_base(tmp_path, config)
    model = build_model(base, BINARY, **LORA)
    trained = {name for name, weights in model.named_parameters() if weights.requires_grad}
    lora = {name for name in trained if ".lora_A." in name or ".lora_B." in name}
    whole = {name.split(".modules_to_save")[0].rpartition(".")[2] for name in trained - lora}
    assert whole == set(full.split())
    assert len(lora) >= 2 * config.num_hidden_layers
    known = AutoModel.from_pretrained(base.folder).state_dict()
    frozen = {n: w for n, w in model.get_base_model().named_parameters() if not w.requires_grad}
    body = {n.partition(".")[2].replace(".base_layer", ""): w for n, w in frozen.items() if "original_module" not in n}
    assert len(known.keys() & body.keys()) > 10
    assert all(torch.equal(body[name], weights) for name, weights in known.items() if name in body)


def test_every_known_architecture_is_tried_here() -> None:
    assert TOYS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("architecture", TOYS)
def test_the_table_describes_each_architecture(architecture: str) -> None:
    config = TOYS[architecture][0]
    model = AutoModel.from_config(config)
    known = architecture_of(config.model_type)
    assert known.shape(config.to_dict()) == (2, 32)
    assert known.takes_token_types == ("token_type_ids" in inspect.signature(model.forward).parameters)


@pytest.mark.parametrize("architecture", [name for name in TOYS if architecture_of(name).fused_as])
def test_onnxruntime_fuses_every_layer_that_the_table_says(tmp_path: Path, architecture: str) -> None:
    model = transformers.AutoModelForSequenceClassification.from_config(TOYS[architecture][0])
    model.save_pretrained(tmp_path / "model")
    make_tokenizer(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "onnx")
    fused = fuse(tmp_path / "onnx" / "model.onnx", tmp_path / "fused.onnx", tmp_path / "model")
    assert fused["Attention"] + fused.get("MultiHeadAttention", 0) == 2
    assert shorten(tmp_path / "onnx" / "model.onnx")
    fused = fuse(tmp_path / "onnx" / "model.onnx", tmp_path / "fused.onnx", tmp_path / "model", shortened=True)
    assert (fused["Attention"], fused["MultiHeadAttention"]) == (1, 1)  # the second has one query a text


def test_the_page_about_architectures_shows_the_table() -> None:
    page = (Path(architectures.__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (`\w.*`) \| (\S+) \| yes \| 4\.57, 5 \|$", page, re.MULTILINE)
    assert rows == [
        (
            name,
            ", ".join(f"`{target}`" for target in known.lora_targets),
            f"`{known.fused_as}`" if known.fused_as else "–",
        )
        for name, known in ARCHITECTURES.items()
    ]
    assert all(f"`{field.name}`" in page for field in fields(Architecture))


def test_an_unknown_architecture_is_described_by_what_most_have_in_common() -> None:
    unknown = architecture_of("newest")
    assert (unknown.lora_targets, unknown.fused_as) == ((), None)
    assert unknown.shape({"num_hidden_layers": 3, "hidden_size": 48}) == (3, 48)
    assert unknown.shape({"depth": 3}) is None


def test_an_unknown_architecture_asks_for_its_targets(tmp_path: Path) -> None:
    base = make_base(tmp_path, transformers.ErnieConfig(**SIZE))
    with pytest.raises(UserError, match="`ernie`") as error:
        build_model(base, BINARY, **LORA)
    assert "--lora-targets" in error.value.hint
    assert build_model(base, BINARY, **LORA | {"lora_targets": ("query", "value")})


def test_targets_that_do_not_exist_are_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="no layer `nowhere`"):
        build_model(locate_base(str(checkpoint)), BINARY, **LORA | {"lora_targets": ("q_lin", "nowhere")})


def test_the_seed_decides_head_and_adapter_whatever_was_drawn_before(checkpoint: Path) -> None:
    def trained_weights(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(7)
        model = build_model(locate_base(str(checkpoint)), BINARY, **LORA | {"seed": seed})
        return {name: weights for name, weights in model.named_parameters() if weights.requires_grad}

    first, again, other = trained_weights(1), trained_weights(1), trained_weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first if "lora_A" in name)
    assert any(not torch.equal(first[name], other[name]) for name in first if "classifier" in name)


def test_weights_are_loaded_in_fp32_whatever_they_are_stored_in(checkpoint: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(checkpoint).half().save_pretrained(tmp_path)
    model = build_model(locate_base(str(tmp_path)), BINARY, **LORA)
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}


def test_a_base_with_another_head_gets_a_new_one(checkpoint: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(checkpoint, num_labels=5)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    model = build_model(locate_base(str(tmp_path)), BINARY, **LORA)
    assert model.get_base_model().config.id2label == {0: "negative", 1: "positive"}
    assert model.get_base_model().classifier.modules_to_save["default"].out_features == 2


def test_the_built_in_tokenizer_marks_where_a_text_begins_and_ends() -> None:
    tokenizer = load_tokenizer(locate_base("sample").folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer("A film.")["input_ids"]) == ["[CLS]", "a", "film", ".", "[SEP]"]


def test_pickled_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "pickled"))
    torch.save(AutoModel.from_pretrained(checkpoint).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load"):
        build_model(Base(folder, Source("pickled", None, None)), BINARY, **LORA)


def test_code_in_a_checkpoint_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "code"))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {n: f"evil.{n}" for n in ("AutoConfig", "AutoModelForSequenceClassification")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UserError):
        build_model(locate_base(str(folder)), BINARY, **LORA)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path, TOYS["bert"][0])
    with pytest.raises(UserError, match="no usable tokenizer"):
        load_tokenizer(base.folder)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(UserError, match="no checkpoint folder"):
        locate_base(name)


def test_without_the_hub_the_default_is_replaced_and_a_name_is_not() -> None:
    source = locate_base(None).source
    assert (source.name, source.stands_in_for) == ("sample", "distilbert-base-uncased")
    with pytest.raises(HubUnreachableError):
        locate_base("distilbert-base-uncased")


def test_what_the_cache_holds_needs_no_network(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(checkpoint, tmp_path / "models--acme--tiny" / "snapshots" / commit)
    refs = tmp_path / "models--acme--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    base = locate_base("acme/tiny")
    assert base.source == Source("acme/tiny", commit, None)
    assert base.sha256() == locate_base(str(checkpoint)).sha256()
    assert locate_base("acme/tiny", commit) == base
    (base.folder / "model.safetensors").unlink()
    with pytest.raises(HubUnreachableError, match="without safetensors"):
        locate_base("acme/tiny")


def test_a_base_is_known_by_its_weights(checkpoint: Path, tmp_path: Path) -> None:
    before = locate_base(str(checkpoint))
    set_seed(5)
    after = make_base(tmp_path, AutoConfig.from_pretrained(checkpoint))
    make_tokenizer(tmp_path)
    assert replace(before, folder=tmp_path).sha256() == after.sha256() != before.sha256()


@pytest.mark.parametrize(
    ("config", "takes"),
    [
        (TOYS["distilbert"][0], True),
        (TOYS["bert"][0], True),
        (TOYS["modernbert"][0], False),  # half of its layers look at near tokens only
        (transformers.LlamaConfig(**SIZE, num_key_value_heads=2), False),  # it looks back only
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_only_models_that_look_at_all_tokens_are_given_masks_in_the_shape_of_the_attention(
    config: PretrainedConfig, takes: bool
) -> None:
    torch.manual_seed(0)
    config = type(config).from_dict(config.to_dict() | {"max_position_embeddings": 512})
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    takes = takes and int(transformers.__version__.partition(".")[0]) >= 5
    assert takes_whole_masks(model, inputs_of(model), 400) is takes
