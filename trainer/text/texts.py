"""What a classifier reads: a text, or a pair of texts such as a premise and a hypothesis."""

from __future__ import annotations

from trainer.text.characters import is_unicode

Text = str | tuple[str, str]

LOOKED_AT = 1000
"""Characters of a text of any length from which the line that is shown of it is made."""


def parts_of(text: Text) -> tuple[str, ...]:
    """Return the one text, or the two of a pair."""
    return (text,) if isinstance(text, str) else text


def is_valid(text: Text) -> bool:
    """Return whether a text, or both of a pair, are valid Unicode."""
    return all(map(is_unicode, parts_of(text)))


def shortened(text: Text, width: int) -> str:
    """Return a text on one line of at most `width` characters, or both of a pair, for a person."""
    return " | ".join(_shortened(part, width) for part in parts_of(text))


def _shortened(text: str, width: int) -> str:
    flat = " ".join(text[:LOOKED_AT].split())
    return flat if len(flat) <= width and len(text) <= LOOKED_AT else flat[: width - 1] + "…"


def joined(text: Text) -> str:
    """Return a text for a reader who makes no difference between the two of a pair."""
    return "\n".join(parts_of(text))
