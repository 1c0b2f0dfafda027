"""Where base models and datasets come from: a path, the Hugging Face Hub or its cache, or the built-in sample."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import UserError
from trainer.files.tables import file_type
from trainer.limits import MAX_JSON_BYTES, read_regular
from trainer.model.untrusted import WEIGHTS, WEIGHTS_INDEX, check_checkpoint, weight_files
from trainer.records import file_sha256
from trainer.text.characters import is_unicode

if TYPE_CHECKING:
    import datasets

DEFAULT_MODEL = "distilbert-base-uncased"
DEFAULT_DATASET = "stanfordnlp/imdb"
SAMPLE = "sample"
SAMPLE_MODEL = Path(__file__).parents[1] / "sample" / "model"
SAMPLE_REVIEWS = Path(__file__).parents[1] / "sample" / "reviews.jsonl"

_CHECKPOINT_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
                     "special_tokens_map.json", "spm.model", "*.bpe.model"]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where a base model or a dataset came from."""

    name: str
    """Hub id, path, or `sample`; several paths stand as on a command line."""
    revision: str | None
    """The commit, where it came from the Hub."""
    stands_in_for: str | None
    """The default that could not be reached and that this one replaces."""

    def __post_init__(self) -> None:
        if not is_unicode(self.name):  # it will stand in records and reports
            raise UserError(f"the name of `{self.name}` is not valid UTF-8", "rename it")

    @property
    def short_name(self) -> str:
        """The Hub id, or the names of the files without their folders."""
        return self.name if self.revision else ", ".join(Path(name).name for name in _words(self.name))


class HubUnreachableError(UserError):
    """The Hub does not answer and its cache does not have all that was asked for."""


@dataclass(frozen=True)
class Base:
    """A base checkpoint on this machine: one whose folder is safe to open; any other is a UserError."""

    folder: Path
    source: Source

    def __post_init__(self) -> None:
        check_checkpoint(self.folder)

    def sha256(self) -> str:
        """Return one hash over configuration and weights, by which later stages recognise it."""
        digest = hashlib.sha256()
        files = sorted(self.folder.glob("*.safetensors"))
        if not (self.folder / WEIGHTS).is_file() and weight_files(self.folder) != files:
            files.append(self.folder / WEIGHTS_INDEX)  # it says which of the files are loaded
        for path in [self.folder / "config.json", *files]:
            digest.update(file_sha256(path).encode())
        return digest.hexdigest()


def locate_base(name: str | None, revision: str | None = None) -> Base:
    """Find a base checkpoint: a folder, a Hub id or `sample`; None for DistilBERT, or the sample without the Hub.

    Raises:
        UserError: there is no such checkpoint, or it cannot be reached.
    """
    if name is None:
        try:
            return locate_base(DEFAULT_MODEL)
        except HubUnreachableError:
            return Base(SAMPLE_MODEL, Source(SAMPLE, None, stands_in_for=DEFAULT_MODEL))
    if name == SAMPLE:
        return Base(SAMPLE_MODEL, Source(SAMPLE, None, None))
    folder = Path(name)
    if os.path.isdir(name):  # noqa: PTH112  Path.is_dir raises for a name that is too long
        if not (folder / "config.json").is_file():
            raise UserError(f"`{name}` has no `config.json`", "give the folder of a checkpoint")
        return Base(folder, Source(str(folder.resolve()), None, None))
    if folder.is_absolute() or name.startswith((".", "~")) or os.path.exists(name):  # noqa: PTH110
        raise UserError(f"no checkpoint folder `{name}`", "check the path")
    folder, commit = _checkpoint_folder(name, revision)
    return Base(folder, Source(name, commit, None))


def _checkpoint_folder(name: str, revision: str | None) -> tuple[Path, str]:
    """Fetch a checkpoint from the Hub or its cache, and return its folder and commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_CHECKPOINT_FILES))
    except LocalEntryNotFoundError:
        raise _unreachable(name) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"no model `{name}`: it is neither a folder nor a public id on the Hub ({type(error).__name__})",
            "check the spelling; for a private model set `HF_TOKEN`",
        ) from None
    except (OSError, HTTPError):  # the second is what newer clients raise without a network
        raise _unreachable(name) from None
    if not any(folder.glob("*.safetensors")) or not any(folder.glob("tokenizer*")):
        raise HubUnreachableError(
            f"`{name}` came without safetensors weights or without a tokenizer",
            "check the network, since the cache may be incomplete; otherwise use another checkpoint",
        )
    return folder, folder.name


def find_files(name: str) -> list[Path]:
    """Return the files that a name stands for: one, those of a pattern, or several as on a command line.

    Returns:
        The files, some of which may not exist; none where the name is not that of a file.

    Raises:
        UserError: nothing fits a pattern, or the name is that of a folder.
    """
    words = _words(name)
    if len(words) > 1:
        return list(dict.fromkeys(path for word in words for path in find_files(word)))
    path, exists = Path(name), os.path.exists(name)  # noqa: PTH110  Path.exists raises for a name that is too long
    if exists and path.is_dir():
        raise UserError(
            f"`{name}` is a folder, and not one that the `datasets` library saved",
            f"give its files, such as `--dataset '{name.rstrip('/')}/*.csv'`",
        )
    if not exists and glob.has_magic(name):
        found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
        if not found:
            raise UserError(f"no file fits `{name}`", "check the pattern")
        return [Path(match) for match in found]
    return [path] if exists or file_type(path) or path.is_absolute() else []


def _words(name: str) -> list[str]:
    """Return the names that a name consists of, itself where it is that of one file."""
    with contextlib.suppress(ValueError):  # a quotation mark that is not closed
        words = shlex.split(name)
        is_one = len(words) == 1 or os.path.exists(name)  # noqa: PTH110  as below
        if not is_one and all(file_type(Path(word)) for word in words):
            return words
    return [name]


def source_of_files(files: Sequence[Path]) -> Source:
    """Return the source that stands for these files, and by which `find_files` finds them again."""
    names = [str(file.resolve()) for file in files]
    return Source(names[0] if len(names) == 1 else shlex.join(names), None, None)


def is_saved_dataset(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk` of the `datasets` library."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def saved_splits(folder: Path) -> datasets.DatasetDict:
    """Load the splits that the `datasets` library saved into a folder; a single dataset is `train`.

    Raises:
        UserError: it is damaged, or reaches outside of the folder.
    """
    import datasets

    _check_inside(folder)
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"`{folder}` is damaged: {reason}", "save it again with `save_to_disk`") from None
    return loaded if isinstance(loaded, datasets.DatasetDict) else datasets.DatasetDict(train=loaded)


def _check_inside(folder: Path) -> None:
    """Refuse a saved dataset that names splits or data outside of its folder."""
    try:
        parts = [folder]
        if (notes := folder / "dataset_dict.json").is_file():
            parts = [folder / name for name in json.loads(read_regular(notes, MAX_JSON_BYTES))["splits"]]
        states = {part: json.loads(read_regular(part / "state.json", MAX_JSON_BYTES)) for part in parts}
        files = [part / file["filename"] for part, state in states.items() for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"`{folder}` is damaged", "save it again with `save_to_disk`") from None
    inside = folder.resolve()
    if not all(inside in path.resolve().parents or path == folder for path in (*parts, *files)):
        raise UserError(f"`{folder}` names a file outside of it", "save it again with `save_to_disk`")


def dataset_splits(name: str, revision: str | None = None) -> tuple[datasets.DatasetDict, str | None]:
    """Load every split of a Hub dataset, `owner/name` or `owner/name:configuration`.

    Returns:
        The splits and the commit; None for the commit where the copy in the cache had to be used.

    Raises:
        HubUnreachableError: no network and not in the cache.
        UserError: there is no such public dataset, or it needs a configuration.
    """
    import datasets
    from huggingface_hub.errors import HFValidationError

    repository, _, configuration = name.partition(":")
    try:
        commit = _dataset_commit(repository, revision)
        with _offline() if commit is None else contextlib.nullcontext():
            return datasets.load_dataset(repository, configuration or None, revision=commit or revision), commit
    except datasets.exceptions.DatasetNotFoundError:
        raise _no_dataset(name, "it is neither a file nor a public id on the Hub") from None
    except (ConnectionError, FileNotFoundError):
        raise _unreachable(name) from None
    except (HFValidationError, ValueError, RuntimeError) as error:
        raise _no_dataset(name, str(error).splitlines()[0]) from None


def _dataset_commit(repository: str, revision: str | None) -> str | None:
    """Ask the Hub once for the commit of a dataset's revision, the newest where None; None where it does not answer.

    `datasets` itself asks six times, which takes half a minute on a machine without a network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

    try:
        return str(HfApi().dataset_info(repository, revision=revision, timeout=10).sha)
    except RepositoryNotFoundError:
        raise _no_dataset(repository, "it is neither a file nor a public id on the Hub") from None
    except (HTTPError, OSError):
        return None


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let `datasets` look only into its cache."""
    import datasets
    import huggingface_hub

    modules = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _unreachable(name: str) -> HubUnreachableError:
    return HubUnreachableError(
        f"cannot reach the Hugging Face Hub for `{name}`, and its cache does not have it",
        "check the network, or use a local path or `sample`",
    )


def _no_dataset(name: str, why: str) -> UserError:
    return UserError(
        f"no dataset `{name}`: {why}",
        "check the spelling; `owner/name:configuration` chooses a configuration; for a private dataset set `HF_TOKEN`",
    )
