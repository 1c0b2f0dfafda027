"""Whether a checkpoint, tokenizer or adapter from elsewhere is safe to open, before transformers or peft opens it.

Both libraries follow what the files in a folder say: a configuration can name code, a repository or a file outside of
the folder, an index can name pickled weights, a link can lead anywhere. None of that is needed here: it is refused.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.limits import MAX_JSON_BYTES, read_regular

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
SPECIAL_TOKENS, ADDED_TOKENS = "special_tokens_map.json", "added_tokens.json"

_ATTENTION = re.compile(r"_?attn_implementation(_internal)?")
ATTENTION = ("eager", "sdpa", "flex_attention")
FLASH_ATTENTION = ("flash_attention_2", "flash_attention_3")
"""Where the package is missing, transformers fetches code from the Hub instead."""

AUTO_MAPPING = "auto_mapping"
"""Where an adapter without a task names the class that it was trained on."""
_CODE = re.compile(
    r"auto_map|custom_pipelines?|quantization_config|transformers_weights|use_kernels|init_inputs|gguf_file"
    r"|megatron_config|adapters|shadow_model|(.+_)?backbone"
)
"""What names code, another model, or weights under another name."""
_PLACE = re.compile(
    r"(.*_)?(files?|paths?|dirs?|director(y|ies)|folders?|dic|spm|urls?|repos?|repo_id|repository|ckpt)"
)
_SOURCES = ("_name_or_path", "name_or_path", "base_model_name_or_path")
"""Where something came from: transformers does not open it, and adapters are asked for their base by `locate_base`."""
_NEVER_OPENED = ("special_tokens_map_file", "added_tokens_file", "tokenizer_config_file")
"""Paths on the machine of whoever saved a tokenizer; transformers writes and never reads them."""
_FREE_TEXT = ("id2label", "label2id", "finetuning_task", "task_specific_params")
"""What a configuration may say with slashes."""
_TOKENIZER_ONLY = re.compile(r"((src|tgt)_)?vocab|merges")


def check_checkpoint(folder: Path) -> None:
    """Check a folder with a model.

    Raises:
        UserError: see `check_folder`; or it has no safetensors weights, or transformers would load another model.
    """
    check_folder(folder)
    if (folder / ADAPTER_CONFIG).exists():  # transformers would load the base that it names
        raise UserError(
            f"`{folder}` holds an adapter, not only a checkpoint", "use `python -m trainer.adopt` for an adapter"
        )
    weight_files(folder)


def check_adapter(folder: Path) -> None:
    """Check a folder with a peft adapter, of which only safetensors weights are read.

    Raises:
        UserError: see `check_folder`; or it has no such weights.
    """
    check_folder(folder)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"`{folder}` has no `{ADAPTER_WEIGHTS}`", "save the adapter again with a peft that writes safetensors"
        )
    tensor_shapes(folder / ADAPTER_WEIGHTS)


def check_folder(folder: Path) -> None:
    """Check that nothing in a folder leads out of it or names code.

    Raises:
        UserError: a link leaves the folder, or a configuration is damaged or names code, a repository or a place.
    """
    _check_links(folder)
    for name in (CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS, ADAPTER_CONFIG):
        if (folder / name).exists():
            for keys, value in _walk(read_object(folder / name)):
                if value is not None and (problem := _problem(name, keys, value)):
                    raise UserError(
                        f"`{'.'.join(keys)}` in `{folder / name}` {problem}",
                        "do not use this folder if you do not trust it; otherwise remove this entry",
                    )
    if (folder / ADDED_TOKENS).exists():  # its keys are tokens
        read_object(folder / ADDED_TOKENS)


def check_tokenizer_class(folder: Path) -> None:
    """Check that a checkpoint's tokenizer is of a class that loads one tokenizer and nothing else.

    transformers takes any of its names, also that of a model, or of RAG's two tokenizers, whose folders nobody checked.

    Raises:
        UserError: it is not.
    """
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    for file in (CONFIG, TOKENIZER_CONFIG):
        for keys, value in _walk(read_object(folder / file) if (folder / file).exists() else {}):
            if keys[-1] not in ("tokenizer_class", "model_type") or not isinstance(value, str):
                continue
            named = TOKENIZER_MAPPING_NAMES.get(value) or () if keys[-1] == "model_type" else value
            named = (named,) if isinstance(named, str) else named  # transformers 4 names two
            names = {name.removesuffix("Fast") + end for name in named if name for end in ("", "Fast")}
            found = [kind for kind in map(tokenizer_class_from_name, sorted(names)) if kind is not None]
            if not all(isinstance(kind, type) and issubclass(kind, PreTrainedTokenizerBase) for kind in found):
                raise UserError(
                    f"`{'.'.join(keys)}` in `{folder / file}` is `{value}`, which does not load one tokenizer",
                    "use another checkpoint",
                )


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise a UserError if the file holds anything else."""
    try:
        values = json.loads(read_regular(path, MAX_JSON_BYTES))
    except OSError as error:
        raise UserError(f"cannot read `{path}`: {error.strerror}", "restore the file") from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"`{path}` is not a JSON object", "restore the file")
    return values


def tokenizer_files(folder: Path) -> dict[str, str]:
    """Return the paths of the files that a tokenizer's configuration names, all of them in `folder`.

    transformers would look for them in the current folder.
    """
    path = folder / TOKENIZER_CONFIG
    values = read_object(path) if path.is_file() else {}
    return {key: str(folder / value) for key, value in values.items() if isinstance(value, str) and _names_files(key)}


def weight_files(folder: Path) -> list[Path]:
    """Return the files that a model is loaded from: one, or those that an index names.

    Raises:
        UserError: one is not a safetensors file of this folder, or the index is not exactly what is in them.
    """
    if (folder / WEIGHTS).is_file():
        tensor_shapes(folder / WEIGHTS)
        return [folder / WEIGHTS]
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        raise UserError(f"cannot load `{folder}`: it has no `{WEIGHTS}`", "save the model as safetensors")
    by_tensor = read_object(index).get("weight_map")
    if not isinstance(by_tensor, dict) or not by_tensor:
        raise UserError(f"`{index}` names no weights", "download the folder again")
    if not _are_names(by_tensor.values()) or not all(name.endswith(".safetensors") for name in by_tensor.values()):
        raise UserError(f"`{index}` names weights that are no safetensors files beside it", "do not trust this folder")
    files = sorted(folder / name for name in {*by_tensor.values()})
    if sorted(by_tensor.items()) != sorted((tensor, file.name) for file in files for tensor in tensor_shapes(file)):
        raise UserError(f"`{index}` does not say what is in the files that it names", "download the folder again")
    return files


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a safetensors file, or raise a UserError if it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as weights:
            return {name: list(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"`{path}` is not a safetensors file: {first_line(error)}", "download it again") from None


@contextlib.contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Raise a UserError if what is inside takes longer: matching a regular expression can take for ever.

    A signal ends it: Python looks for signals while it matches. They reach the main thread alone, so that in another
    one there is no deadline, nor on Windows, which has no such signal.
    """

    def expire(*_: object) -> None:
        raise UserError(f"{what} takes more than {seconds:.0f} seconds", "do not use it: a pattern in it may never end")

    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again each second, if a library catches the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _check_links(folder: Path) -> None:
    """Refuse what leads out of a folder, but for the links of the Hub's cache, and what is neither file nor folder."""
    root = folder.resolve()
    inside = [root, *[root.parent.parent / "blobs"] * (root.parent.name == "snapshots")]
    try:
        for path in (*folder.iterdir(), *(folder / "additional_chat_templates").glob("*")):
            target = path.resolve()
            if not any(target.is_relative_to(place) for place in inside):
                raise UserError(f"`{path}` is a link out of its folder", "replace it by the file, if you trust it")
            if not target.is_file() and not target.is_dir():
                raise UserError(f"`{path}` is neither a file nor a folder", "remove it")
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        raise UserError(f"cannot read `{folder}`: {first_line(error)}", "check the folder") from None


def _walk(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (keys that lead to it, value) for all of nested objects; the items of a list have the keys of the list."""
    left: list[tuple[tuple[str, ...], Any]] = [((key,), value) for key, value in values.items()]
    while left:
        keys, value = left.pop()
        if isinstance(value, list):
            left += [(keys, item) for item in value]
            continue
        yield keys, value
        if isinstance(value, dict):
            left += [((*keys, key), item) for key, item in value.items()]


def _problem(file: str, keys: tuple[str, ...], value: Any) -> str | None:
    """Return what is wrong with a value, None where nothing is."""
    key = keys[-1]
    if any(_ATTENTION.fullmatch(name) for name in keys):
        return None if isinstance(value, dict) else _attention_problem(value)
    if _CODE.fullmatch(key) and value:
        return "names code, a model or weights elsewhere"
    if key == AUTO_MAPPING:
        return None if file == ADAPTER_CONFIG and _is_of_transformers(value) else "names code"
    if key in _SOURCES:
        return None if isinstance(value, str) else "is not a name"
    if file in (TOKENIZER_CONFIG, SPECIAL_TOKENS) and _names_files(key) and key not in _NEVER_OPENED:
        is_beside = file == TOKENIZER_CONFIG and len(keys) == 1 and _are_names([value])
        return None if is_beside else "names a file that is not in its folder"
    if file in (CONFIG, ADAPTER_CONFIG) and _PLACE.fullmatch(key) and isinstance(value, str) and value:
        return "names a place"
    if file == CONFIG and isinstance(value, str) and re.search(r"[/\\]", value) and not {*keys} & {*_FREE_TEXT}:
        return "names a repository or a place"
    return None


def _is_of_transformers(mapping: Any) -> bool:
    """Return whether a class that peft would import, and we never do, is what peft writes for one of transformers."""
    return (
        isinstance(mapping, dict)
        and mapping.keys() == {"base_model_class", "parent_library"}
        and bool(re.fullmatch(r"[A-Z]\w*", str(mapping["base_model_class"]), re.ASCII))
        and bool(re.fullmatch(r"transformers(\.models(\.\w+)*)?", str(mapping["parent_library"]), re.ASCII))
    )


def _attention_problem(value: Any) -> str | None:
    if value in ATTENTION:
        return None
    if value not in FLASH_ATTENTION:
        return "is not a built-in kind of attention"
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    is_here = is_flash_attn_2_available() if value == FLASH_ATTENTION[0] else is_flash_attn_3_available()
    return None if is_here else f"is `{value}`, which is not installed here"


def _names_files(key: str) -> bool:
    return bool(_PLACE.fullmatch(key) or _TOKENIZER_ONLY.fullmatch(key))


def _are_names(values: Any) -> bool:
    """Return whether all of these are names of files, without a folder."""
    return all(isinstance(value, str) and re.fullmatch(r"(?!\.{1,2}$)[^/\\\0]+", value) for value in values)
