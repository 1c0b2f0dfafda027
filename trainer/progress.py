"""Progress on stderr and results on stdout, for a person: what files of strangers say is shown, not obeyed."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from trainer.data.sources import Source
from trainer.locks import is_first_process
from trainer.text.characters import visible

if TYPE_CHECKING:
    from trainer.text.encoding import Encoder


def say(message: str) -> None:
    """Write a line of progress to stderr, once in a run of several processes."""
    if is_first_process():
        sys.stderr.write(visible(message) + "\n")


def show(result: str) -> None:
    """Print a result to stdout."""
    print(*map(visible, result.split("\n")), sep="\n")  # noqa: T201


def left_text(seconds: float) -> str:
    """Render how much time is left, to stand at the end of a line of progress."""
    return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {max(seconds, 0):.0f} s left"


def quiet_libraries() -> None:
    """Keep off the terminal what transformers remarks, its bars for work of a moment, and peft's old names of things.

    Bars of downloads stay.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers import logging

    downloads_are_shown = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if downloads_are_shown:
        enable_progress_bars()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


def say_source(kind: str, source: Source) -> None:
    """Say where a base model or a dataset came from, with a warning where it replaces one that was out of reach."""
    say(f"{kind}: {source.name}{f' at {source.revision}' if source.revision else ''}")
    if source.stands_in_for:
        say(
            f"WARNING: the Hugging Face Hub cannot be reached for `{source.stands_in_for}`. "
            f"The built-in {source.name} is used instead: scores say nothing about `{source.stands_in_for}`."
        )


def say_unseparated(encoder: Encoder) -> None:
    """Say so where a model cannot see at which token the second text of a pair begins."""
    if not encoder.separates:
        say("note: this model's tokenizer puts nothing between the two texts of a pair")
