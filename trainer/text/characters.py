"""Characters that are no Unicode, and those that a terminal obeys."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"
"""Written between letters and between emoji; they change nothing but how these are joined."""


def is_unicode(text: str) -> bool:
    """Return whether a text is free of halves of surrogate pairs, which JSON can spell and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def visible(text: str) -> str:
    r"""Return a text as it may be printed on a terminal: each control character as its escape, such as `\x1b`.

    Format characters are among them, because some of them reverse the order in which a line is shown.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def _escaped(character: str) -> str:
    return character if character in JOINERS else character.encode("unicode_escape").decode("ascii")
