"""Folders from strangers: no code is run, no pickle is read, nothing outside of the folder is opened, nothing hangs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    DistilBertForSequenceClassification,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

from exporter.proof.reference import load_trained
from trainer.adopt.checks import check_complete, locate_model
from trainer.data.sources import SAMPLE_MODEL, Base, locate_base
from trainer.errors import UserError
from trainer.model.adapters import attach_adapter
from trainer.model.load import build_model, check_types, load_classifier, load_tokenizer
from trainer.model.untrusted import deadline
from trainer.records import file_sha256
from trainer.run import RunDir

NAMES = ("food", "money")
LORA: dict[str, Any] = {"lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_targets": None}
INDEX = "model.safetensors.index.json"


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.proof), "w"))


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def adapter(trained: RunDir, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.adapter, tmp_path / "adapter"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))


def load(folder: Path) -> None:
    """Load a folder as training does."""
    base = locate_base(str(folder))
    load_tokenizer(base.folder)
    build_model(base, NAMES, **LORA, seed=0)


def adopt(folder: Path) -> None:
    """Load a folder as adoption and the export do."""
    base = locate_model(folder, None)
    check_complete(folder, base, load_tokenizer(folder), ("food", "money", "music", "sport"))
    attach_adapter(load_classifier(base, ("food", "money", "music", "sport"))[0], folder)


def shard(folder: Path) -> dict[str, str]:
    """Save the weights of a checkpoint in two files and an index; return the index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for part, inside in parts.items():
        save_file({name: weights[name] for name in inside}, folder / part, {"format": "pt"})
    index = {name: part for part, inside in parts.items() for name in inside}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return index


CODE: dict[str, tuple[str, dict[str, Any]]] = {
    "attention of a repository": ("config.json", {"_attn_implementation": "someone/attention:forward"}),
    "attention under another key": ("config.json", {"attn_implementation": "someone/attention"}),
    "attention of a part": ("config.json", {"text_config": {"_attn_implementation": "someone/attention@main"}}),
    "attention by part": ("config.json", {"_attn_implementation": {"text_config": "someone/attention"}}),
    "attention by number": ("config.json", {"_attn_implementation": 5}),
    "attention that is not installed": ("config.json", {"_attn_implementation": "flash_attention_2"}),
    "remote code": ("config.json", {"auto_map": {"AutoConfig": "someone/code--evil.Config"}}),
    "remote code of a tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
    "other weights": ("config.json", {"transformers_weights": "other.safetensors"}),
    "quantized": ("config.json", {"quantization_config": {"quant_method": "hqq"}}),
    "backbone": ("config.json", {"vision_config": {"backbone": "someone"}}),
    "some path": ("config.json", {"extra": {"list": ["..\\weights"]}}),
    "vocabulary outside": ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}),
    "vocabulary above": ("tokenizer_config.json", {"vocab_file": "../secret.txt"}),
    "vocabulary by descriptor": ("tokenizer_config.json", {"vocab_file": 0}),
    "merges": ("tokenizer_config.json", {"merges_file": "../merges.txt"}),
    "pieces": ("tokenizer_config.json", {"spm_file": "~/spm.model"}),
    "pieces of two": ("tokenizer_config.json", {"source_spm": "sub/spm.model"}),
    "whole tokenizer": ("tokenizer_config.json", {"tokenizer_file": "/tmp/tokenizer.json"}),  # noqa: S108
    "versions": ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.1.0.json"]}),
    "dictionary": ("tokenizer_config.json", {"mecab_kwargs": {"mecab_dic": "unidic"}}),
    "positional": ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}),
    "gguf": ("tokenizer_config.json", {"gguf_file": "model.gguf"}),
    "vocabulary among tokens": ("special_tokens_map.json", {"vocab_file": "vocab.txt"}),
}


@pytest.mark.parametrize("what", CODE)
def test_a_checkpoint_that_names_code_or_a_place_is_refused_with_the_entry(folder: Path, what: str) -> None:
    file, values = CODE[what]
    edit(folder / file, **values)
    with pytest.raises(UserError) as error:
        load(folder)
    assert f"{next(iter(values))}" in error.value.message
    assert str(folder / file) in error.value.message


def test_what_checkpoints_usually_say_is_accepted(folder: Path) -> None:
    edit(folder / "config.json", _name_or_path="someone/base", _attn_implementation="eager", id2label={"0": "yes/no"},
         label2id={"yes/no": 0}, _attn_implementation_autoset=True, finetuning_task="glue/mnli")  # fmt: skip
    edit(folder / "tokenizer_config.json", name_or_path="someone/base", merges_file=None,
         special_tokens_map_file="/home/someone/.cache/x.json", do_lower_case=True)  # fmt: skip
    load(folder)


def test_a_vocabulary_is_read_from_the_folder_whatever_the_current_one_holds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_tokenizer(folder).get_vocab()
    (folder / "tokenizer.json").unlink()
    (folder / "words.txt").write_text("".join(f"{token}\n" for token in sorted(expected, key=lambda t: expected[t])))
    edit(folder / "tokenizer_config.json", tokenizer_class="DistilBertTokenizer", vocab_file="words.txt")
    (tmp_path / "words.txt").write_text("secret\n")
    monkeypatch.chdir(tmp_path)
    assert load_tokenizer(folder).get_vocab() == expected


def test_links_stay_in_the_folder_or_are_those_of_the_hubs_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--someone--base"
    snapshot = Path(shutil.copytree(folder, cache / "snapshots" / "0123abc"))
    (cache / "blobs").mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(cache / "blobs" / f"blob-{path.name}")
        path.symlink_to(f"../../blobs/blob-{path.name}")
    load(snapshot)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123abc")
    (snapshot / "vocab.txt").symlink_to("../../refs/main")
    with pytest.raises(UserError, match="is a link out of its folder"):
        load(snapshot)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "additional_chat_templates/a.jinja"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    target = tmp_path / "elsewhere"
    (folder / name).rename(target) if (folder / name).exists() else target.write_text("secret")
    (folder / name).symlink_to(target)
    with pytest.raises(UserError, match="is a link out of its folder"):
        load(folder)


def test_pipes_loops_and_links_to_nothing_are_refused_at_once(folder: Path) -> None:
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    os.mkfifo(folder / "special_tokens_map.json")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        load(folder)
    (folder / "special_tokens_map.json").unlink()
    (folder / "vocab.txt").symlink_to("vocab.txt")
    with pytest.raises(UserError, match=r"cannot read|neither a file nor a folder"):
        load(folder)


def plant_index(folder: Path, proof: Path) -> None:
    index = shard(folder)
    torch.save(Planted(proof), folder / "w.bin")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index | {next(iter(index)): "w.bin"}}))


def plant_as(name: str, proof: Path, folder: Path, *, replace: bool = True) -> None:
    if replace:
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Planted(proof)))


PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "index": plant_index,
    "name": lambda folder, proof: plant_as("model.safetensors", proof, folder),
    "bin": lambda folder, proof: plant_as("pytorch_model.bin", proof, folder),
    "index of bin": lambda folder, proof: (
        plant_as("pytorch_model.pt", proof, folder),
        (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model.pt"}}'),
    )[0],
}


@pytest.mark.parametrize("what", PLANTED)
def test_planted_pickles_in_a_checkpoint_are_refused_and_not_read(folder: Path, tmp_path: Path, what: str) -> None:
    PLANTED[what](folder, tmp_path / "proof")
    with pytest.raises(UserError):
        load(folder)
    assert not (tmp_path / "proof").exists()


def test_planted_pickles_in_an_adapter_or_beside_weights_are_not_read(
    folder: Path, adapter: Path, trained: RunDir, copy_of: Callable[[RunDir], RunDir], tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    plant_as("pytorch_model.bin", proof, folder, replace=False)
    plant_as("training_args.bin", proof, folder, replace=False)
    load(folder)
    plant_as("adapter_model.bin", proof, adapter, replace=False)
    adopt(adapter)
    run = copy_of(trained)
    refused = {"adapter_model.bin": "has no `adapter_model", "adapter_model.safetensors": "is not a safetensors file"}
    for name, message in refused.items():
        (run.adapter / "adapter_model.safetensors").unlink(missing_ok=True)
        plant_as(name, proof, run.adapter, replace=False)
        record = json.loads(run.record.read_text())
        record["adapter_sha256"] = {path.name: file_sha256(path) for path in run.adapter.iterdir()}
        run.record.write_text(json.dumps(record))  # as a stranger would, whose run it is
        with pytest.raises(UserError, match=message):
            load_trained(run)
    assert not proof.exists()
    pickle.loads((adapter / "adapter_model.bin").read_bytes()).close()  # noqa: S301  the trap works
    assert proof.exists()


def test_weights_in_several_files_are_loaded_and_all_of_them_hashed(folder: Path, checkpoint: Path) -> None:
    index = shard(folder)
    base = locate_base(str(folder))
    whole = load_classifier(locate_base(str(checkpoint)), NAMES)[0].state_dict()
    parts = load_classifier(base, NAMES)[0].state_dict()
    assert all(torch.equal(parts[name], whole[name]) for name in whole if name.startswith("distilbert."))
    before = base.sha256()
    save_file({"unused": torch.zeros(1)}, folder / "c.safetensors")
    assert base.sha256() != before
    edit(folder / INDEX, weight_map=index | {"unused": "c.safetensors"})  # which of the files are loaded counts, too
    assert len({before, base.sha256(), Base(folder, base.source).sha256()}) == 2


@pytest.mark.parametrize("change", [{"a": "a.safetensors"}, None, "x", {}, {"a": 5}, {"a": "../a.safetensors"}])
def test_an_index_says_exactly_what_is_in_its_files(folder: Path, change: Any) -> None:
    shard(folder)
    edit(folder / INDEX, weight_map=change)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json` (names|does not say)"):
        locate_base(str(folder))


def test_the_base_of_an_adapter_in_the_folder_is_not_loaded_instead(folder: Path) -> None:
    edit(folder / "adapter_config.json", base_model_name_or_path="/elsewhere")
    with pytest.raises(UserError, match="holds an adapter"):
        load(folder)


CLASSES = [
    {"base_model_class": "Popen", "parent_library": "subprocess"},
    {"base_model_class": "Evil", "parent_library": "transformers_evil"},
    {"base_model_class": "Evil", "parent_library": "transformers.models/../evil"},
    {"base_model_class": "Evil", "parent_library": "transformers.utils"},
    {"base_model_class": "Evil", "parent_library": ["transformers"]},
    {"base_model_class": "load", "parent_library": "transformers"},
    {"base_model_class": "A", "parent_library": "transformers", "call": "b"},
    {"base_model_class": "A"},
    "subprocess.Popen",
]
"""What peft would import a class from."""

ADAPTERS: dict[str, dict[str, Any]] = {
    "module": {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
    "statistics": {"corda_config": {"cache_file": "/tmp/planted.pt"}},  # noqa: S108
    "other adapters": {"peft_type": "XLORA", "adapters": {"a": "someone/adapter"}},
    "other model": {"peft_type": "SHADOW", "shadow_model": "someone-base"},
    "base by number": {"base_model_name_or_path": 5},
    "bases": {"base_model_name_or_path": ["a"]},
    "revision": {"revision": {"a": 1}},
    "rank as text": {"r": "four"},
    "great rank": {"r": 10**12},
    "no layers": {"target_modules": {"a": [1]}},
    "nested": {"rank_pattern": [[[[]]]]},
    "type": {"peft_type": ["LORA"]},
    "task": {"task_type": {}},
    "broken expression": {"target_modules": "(((q_lin"},
    **{f"class {i}": {"auto_mapping": mapping} for i, mapping in enumerate(CLASSES)},
}


@pytest.mark.parametrize("what", ADAPTERS)
def test_an_adapter_that_names_code_or_has_odd_values_is_refused(adapter: Path, what: str) -> None:
    edit(adapter / "adapter_config.json", **ADAPTERS[what])
    with pytest.raises(UserError):
        adopt(adapter)


ENDLESS = "(.*.*.*)*.*(.*.*)*#"


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": ENDLESS},
        {"exclude_modules": ENDLESS},
        {"rank_pattern": {ENDLESS: 4}},
        {"layers_to_transform": [0], "layers_pattern": ENDLESS},
    ],
)
def test_an_expression_that_never_ends_is_ended(checkpoint: Path, adapter: Path, values: dict[str, Any]) -> None:
    edit(adapter / "adapter_config.json", **values)
    model = load_classifier(locate_base(str(checkpoint)), ("food", "money", "music", "sport"))[0]
    with pytest.raises(UserError, match="takes more than 1 seconds"):
        attach_adapter(model, adapter, seconds=1)


@pytest.mark.slow
def test_an_adoption_with_such_an_expression_is_ended(adapter: Path) -> None:
    edit(adapter / "adapter_config.json", target_modules=ENDLESS)
    with pytest.raises(UserError, match="takes more than"):
        adopt(adapter)


def test_a_deadline_leaves_nothing_behind() -> None:
    with deadline(0.2, "a nap"):
        pass
    time.sleep(0.3)
    with pytest.raises(UserError, match="a nap takes more than"), deadline(0.1, "a nap"):
        time.sleep(10)


ODD: dict[str, tuple[str, Any]] = {
    "a list for an object": ("config.json", []),
    "no object in a tokenizer": ("tokenizer_config.json", "x"),
    "no object in tokens": ("added_tokens.json", [1]),
    "no object in special tokens": ("special_tokens_map.json", 5),
    "text for a number": ("config.json", {"n_heads": "two"}),
    "list for a number": ("config.json", {"dropout": [0.1]}),
    "object for a name": ("config.json", {"activation": {"a": 1}}),
    "nothing": ("config.json", {"dim": 0}),
    "more layers than weights": ("config.json", {"n_layers": 100, "hidden_dim": 10_000}),
    "a vocabulary of terabytes": ("config.json", {"vocab_size": 10**11}),
    "unknown model": ("config.json", {"model_type": ["bert"]}),
    "tokens of numbers": ("tokenizer_config.json", {"added_tokens_decoder": {"x": 5}}),
    "class": ("tokenizer_config.json", {"tokenizer_class": {"a": 1}}),
    "padding": ("tokenizer_config.json", {"pad_token": 7}),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_values_are_refused_in_words(folder: Path, what: str) -> None:
    file, values = ODD[what]
    whole = json.loads((folder / file).read_text()) | values if isinstance(values, dict) else values
    (folder / file).write_text(json.dumps(whole))
    with pytest.raises(UserError):
        load(folder)


@pytest.mark.parametrize(
    "config", [LlamaConfig(eos_token_id=[1, 2]), Qwen2Config(max_window_layers=0), BertConfig(type_vocab_size=0)]
)
def test_rare_values_of_models_in_use_are_taken(config: PretrainedConfig) -> None:
    check_types(config, "rare")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "\xff", "", '{"a": 1' + "0" * 5000 + "}", "NaN"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_json_that_is_none_is_refused_in_words(folder: Path, file: str, content: str) -> None:
    (folder / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="is not a JSON object"):
        load(folder)


def test_chat_templates_stay_behind(folder: Path, tmp_path: Path) -> None:
    edit(folder / "tokenizer_config.json", chat_template={"a": 1})
    load_tokenizer(folder).save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template is None


@pytest.mark.parametrize("name", ["RagTokenizer", "AutoTokenizer", "AutoModel", "DistilBertConfig", "Trainer"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_tokenizer_is_of_no_class_that_loads_something_else(folder: Path, file: str, name: str) -> None:
    edit(folder / file, tokenizer_class=name)
    with pytest.raises(UserError, match=rf"`tokenizer_class` in `.*{file}` is `{name}`"):
        load_tokenizer(folder)


def test_the_two_tokenizers_of_a_model_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    """RAG's have folders of their own, with code that nobody looked for."""
    proof, inner = tmp_path / "proof", folder / "question_encoder_tokenizer"
    inner.mkdir()
    (inner / "evil.py").write_text(f"open({str(proof)!r}, 'w')")
    edit(inner / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    kinds = {"question_encoder": {"model_type": "dpr"}, "generator": {"model_type": "bart"}}
    (folder / "config.json").write_text(json.dumps({"model_type": "rag", **kinds}))
    edit(folder / "tokenizer_config.json", tokenizer_class=None)
    with pytest.raises(UserError, match=r"`model_type` in `.*` is `rag`"):
        load_tokenizer(folder)
    assert not proof.exists()


AUDITED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event in ("open", "os.listdir", "os.scandir") else None)
from trainer.model.load import load_classifier, load_tokenizer
from trainer.data.sources import locate_base
for folder in sys.argv[1:]:
    base = locate_base(folder)
    load_tokenizer(base.folder)
    load_classifier(base, ("a", "b"))
print(*(path for path in opened if isinstance(path, str)), sep="\\n")
"""


def test_loading_opens_nothing_but_the_folder_and_the_installation(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    shard(folder)
    shutil.copyfile(SAMPLE_MODEL / "vocab.txt", folder / "words.txt")
    edit(folder / "tokenizer_config.json", vocab_file="words.txt")
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, str(folder), str(checkpoint)],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HOME": str(work), "TMPDIR": str(work)},
        capture_output=True,
        text=True,
        check=True,
    )
    opened = {Path(os.path.normpath(work / line)) for line in done.stdout.splitlines()}
    assert {folder / "config.json", checkpoint / "config.json"} <= opened
    installed = [Path(path).resolve() for path in sysconfig.get_paths().values()] + [Path(sys.prefix)]
    system = [Path(path) for path in ("/proc", "/sys", "/dev", "/usr", "/lib", "/etc/ld.so.cache", sys.base_prefix)]
    allowed = (folder, checkpoint, work, Path(__file__).parents[1], *installed, *system)
    assert {path for path in opened if not any(path.is_relative_to(place) for place in allowed)} == set()


def test_a_merged_checkpoint_from_elsewhere_is_checked_as_any_other(folder: Path, checkpoint: Path) -> None:
    DistilBertForSequenceClassification.from_pretrained(checkpoint, num_labels=4).save_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    assert check_complete(folder, locate_model(folder, None), tokenizer, ("food", "money", "music", "sport"))
    edit(folder / "config.json", _attn_implementation="someone/attention")
    with pytest.raises(UserError, match="built-in"):
        locate_model(folder, None)
