"""Where base models and datasets come from: a path, the Hugging Face Hub or its cache, or the built-in sample."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import UserError
from trainer.records import file_sha256
from trainer.untrusted import WEIGHTS, WEIGHTS_INDEX, check_checkpoint, weight_files

if TYPE_CHECKING:
    import datasets

DEFAULT_MODEL = "distilbert-base-uncased"
DEFAULT_DATASET = "stanfordnlp/imdb"
SAMPLE = "sample"
SAMPLE_MODEL = Path(__file__).parent / "sample" / "model"
SAMPLE_REVIEWS = Path(__file__).parent / "sample" / "reviews.jsonl"

_CHECKPOINT_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
                     "special_tokens_map.json", "spm.model", "*.bpe.model"]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where a base model or a dataset came from."""

    name: str
    """Hub id, path, or `sample`."""
    revision: str | None
    """The commit, where it came from the Hub."""
    stands_in_for: str | None
    """The default that could not be reached and that this one replaces."""


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
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"`{name}` has no `config.json`", "give the folder of a checkpoint")
        return Base(folder, Source(str(folder.resolve()), None, None))
    if folder.is_absolute() or name.startswith((".", "~")) or folder.exists():
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
