"""A text's tokens, or as many as are needed from both of its ends: bounded in time and in memory.

A tokenizer may come from a stranger. Its regular expressions are Oniguruma's, which gives up a single match after ten
million steps (a panic, told as an error here), but can be made to try as often as the text has characters. Refusing
nested repetitions would not do (`a*a*a*b` has none) and would refuse tokenizers in use, so that a tokenizer with
regular expressions of its own gets a deadline. All others take a time that grows with the text, once WordPiece's words
have a limit.

Of a text of megabytes a few hundred tokens are read. It is tokenized piece by piece from both ends until these are
known. That no token changes holds where, for every cut between two pieces, tokens(left + right) = tokens(left) +
tokens(right). Every cut is before a space or a line break (or between two CJK ideographs that the normalizer has set
apart), and `_boundary` accepts a tokenizer only if each of its steps keeps to its side of such a cut:

1. Added tokens are matched first. Theirs are ASCII without white space, so none reaches across a cut; the conditions
   of a `single_word` one see no letter beyond it in either case.
2. The normalizers look at one character after the other, or, for Unicode's normal forms, at a base and its marks; a
   space is a base of its own that nothing composes with.
3. The pre-tokenizers end a word at white space. Bert's and the two of words drop the white space, so any cut will do.
   ByteLevel and Metaspace put one space before the next word, so a cut is before a single space between two letters
   or digits; where the normalizer is SentencePiece's, ASCII ones that it is seen to leave alone.
4. The model sees one word at a time.

For any other tokenizer there is no such proof: it gets the whole text.
"""

from __future__ import annotations

import base64
import json
import queue
import re
import string
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tokenizers import Tokenizer

from trainer.errors import UserError
from trainer.limits import ENCODING_SECONDS, MAX_GROWTH, MAX_WORD_CHARACTERS

T = TypeVar("T")

PIECE_CHARACTERS = 2**16
"""Longer texts are tokenized in pieces. All tokens of a piece take some 10 MB."""
PART_CHARACTERS = 2**18
"""Of the texts that are tokenized together."""

BY_CHARACTER = frozenset({"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"})
AT_WHITE_SPACE = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
WHITE_SPACE = r"[ \n]"
IDEOGRAPHS = r"(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])"
ONE_SPACE = r"(?<=\w) (?=\w)"
ONE_ASCII_SPACE = ONE_SPACE.replace(r"\w", "[0-9A-Za-z]")


class TokenizerError(UserError):
    """The tokenizer cannot do its work."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the tokenizer fails: {reason}", "use another tokenizer, or a text that it can read")
        self.reason = reason
        self.args = (reason,)  # what it is made of again, pickled to another process


class TextTokenizer:
    """Finds the tokens of texts, special tokens not included.

    Args:
        tokenizer: its own truncation and padding are switched off.
        piece_characters: how long a text may be to be tokenized whole, and about how long its pieces are.
    """

    def __init__(self, tokenizer: Tokenizer, piece_characters: int = PIECE_CHARACTERS) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._piece_characters = piece_characters
        normalizer, pre_tokenizer = _described(tokenizer.normalizer), _described(tokenizer.pre_tokenizer)
        _check_growth(_steps(normalizer, "normalizers"))
        _check_words(tokenizer)
        self._has_regex = '"Regex"' in json.dumps([normalizer, pre_tokenizer])
        self._boundary = _boundary(tokenizer, normalizer, pre_tokenizer)
        self._squeeze = _squeeze(tokenizer, pre_tokenizer)

    def probe(self, text: str, second: str | None) -> tuple[list[int], list[int], list[int | None]]:
        """Return the tokens of a short text, or of a pair, with the special ones.

        Returns:
            The tokens, their types, and for each the index of the text that it is from, None for a special one.
        """
        encoding = guarded(lambda: self._tokenizer.encode(text, second))
        return encoding.ids, encoding.type_ids, encoding.sequence_ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some tokens."""
        return guarded(lambda: self._tokenizer.decode(ids, skip_special_tokens=False))

    def vocabulary(self) -> list[int]:
        """Return all tokens but special ones."""
        added = self._tokenizer.get_added_tokens_decoder()
        return sorted(set(self._tokenizer.get_vocab(with_added_tokens=False).values()) - set(added))

    def tokens(self, texts: Sequence[str], room: int, tail: int) -> Iterator[list[int]]:
        """Yield each text's tokens. Of a longer text than `room` tokens some in the middle may be missing.

        Args:
            texts: the texts.
            room: how many tokens the reader takes at most. If a text has more, more than that are returned.
            tail: how many of the last tokens must be right then. The first `room` always are.

        Raises:
            UserError: the tokenizer cannot, or takes too long.
        """
        for part in _parts(texts, self._piece_characters):
            if len(part[0]) > self._piece_characters and self._boundary:
                yield self._both_ends(part[0], self._boundary, room, tail)
            else:
                yield from self._whole(part)

    def _both_ends(self, text: str, boundary: re.Pattern[str], room: int, tail: int) -> list[int]:
        first: list[int] = []
        for piece in _pieces(text, boundary, self._piece_characters):
            first += self._piece(piece)
            if len(first) > room:
                break
        else:
            return first
        last: list[int] = []
        for piece in _pieces_from_the_end(text, boundary, self._piece_characters):
            if len(last) >= tail:
                break
            last = self._piece(piece) + last
        return first + last

    def _piece(self, piece: str) -> list[int]:
        if self._squeeze and len(piece) > 2 * self._piece_characters:
            piece = self._squeeze(piece)
        return self._whole([piece])[0]

    def _whole(self, texts: Sequence[str]) -> list[list[int]]:
        def encode() -> list[list[int]]:
            return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

        if not self._has_regex:
            return guarded(encode)
        return within(ENCODING_SECONDS * max(1, sum(map(len, texts)) / PART_CHARACTERS), encode)


def guarded(call: Callable[[], T]) -> T:
    """Call the tokenizers library; raise a TokenizerError if it fails."""
    try:
        return call()
    except BaseException as error:  # what it cannot do is a bare Exception, a panic of its Rust code a BaseException
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(str(error)) from None


def within(seconds: float, call: Callable[[], T]) -> T:
    """Call the tokenizers library as `guarded` does, and leave it to itself if it does not return in time.

    A thread of Rust code cannot be stopped; it ends with the process.
    """
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((guarded(call), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TokenizerError(f"no answer within {seconds:.0f} seconds") from None
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _parts(texts: Iterable[str], longest: int) -> Iterator[list[str]]:
    """Yield the texts in order, a long one alone and the others together."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and (len(text) > longest or size + len(text) > PART_CHARACTERS):
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
        if len(text) > longest:
            yield part
            part, size = [], 0
    if part:
        yield part


def _pieces(text: str, boundary: re.Pattern[str], size: int) -> Iterator[str]:
    start = 0
    while start < len(text):
        found = boundary.search(text, start + size)
        end = found.start() if found else len(text)
        yield text[start:end]
        start = end


def _pieces_from_the_end(text: str, boundary: re.Pattern[str], size: int) -> Iterator[str]:
    end = len(text)
    while end > 0:
        start, stop, width = 0, end - size, size
        while stop > 0:  # look for the last boundary before `stop`, in ever larger windows
            window = max(0, stop - width)
            if starts := [found.start() for found in boundary.finditer(text, window, stop)]:
                start = starts[-1]
                break
            stop, width = window + 1 if window else 0, width * 2
        yield text[start:end]
        end = start


def _described(step: Any) -> Any:
    """Return what `tokenizer.json` says of a normalizer or a pre-tokenizer."""
    return None if step is None else json.loads(step.__getstate__())


def _steps(described: Any, inner: str) -> list[dict[str, Any]]:
    if described is None:
        return []
    if described["type"] != "Sequence":
        return [described]
    return [step for part in described[inner] for step in _steps(part, inner)]


def _check_growth(normalizers: Sequence[dict[str, Any]]) -> None:
    """Refuse replacements that, one after the other, make a short text fill the memory."""
    growth = 1
    for step in normalizers:
        longest = max(len(step.get("content") or ""), _longest_of(step.get("precompiled_charsmap") or ""))
        growth *= max(1, -(-longest // max(1, len(step.get("pattern", {}).get("String", "")))))
        if growth > MAX_GROWTH:
            raise TokenizerError("its replacements make texts too long")


def _longest_of(charsmap: str) -> int:
    """Return the longest replacement's length in SentencePiece's map: a trie's size, the trie, and NUL after each."""
    content = base64.b64decode(charsmap)
    return max(map(len, content[4 + int.from_bytes(content[:4], "little") :].split(b"\0")))


def _check_words(tokenizer: Tokenizer) -> None:
    """Refuse a WordPiece that would look for the pieces of a word without end."""
    if (getattr(tokenizer.model, "max_input_chars_per_word", None) or 0) > MAX_WORD_CHARACTERS:
        raise TokenizerError(f"it takes words of more than {MAX_WORD_CHARACTERS} characters apart")


def _boundary(tokenizer: Tokenizer, normalizer: Any, pre_tokenizer: Any) -> re.Pattern[str] | None:
    """Return where a text can be cut without changing a token, None where there is no proof (see the module)."""
    added = tokenizer.get_added_tokens_decoder().values()
    if not all(token.content.isascii() and not re.search(r"\s", token.content) for token in added):
        return None
    if getattr(tokenizer.model, "dropout", None):
        return None
    normalizers = {step["type"] for step in _steps(normalizer, "normalizers")}
    kind = pre_tokenizer and pre_tokenizer["type"]
    if kind in AT_WHITE_SPACE and normalizers <= BY_CHARACTER:
        apart = normalizer and normalizer["type"] == "BertNormalizer" and normalizer["handle_chinese_chars"]
        return re.compile(f"{WHITE_SPACE}|{IDEOGRAPHS}" if apart and kind == "BertPreTokenizer" else WHITE_SPACE)
    is_byte_level = kind == "ByteLevel" and pre_tokenizer.get("use_regex", True)
    takes_spaces = any(token.rstrip for token in added)
    if is_byte_level and normalizers <= {"NFC", "NFD"} and not takes_spaces:
        return re.compile(ONE_SPACE)
    if _ends_words_by_metaspace(pre_tokenizer) and not takes_spaces and _leaves_ascii_alone(tokenizer, normalizer):
        return re.compile(ONE_ASCII_SPACE)
    return None


def _ends_words_by_metaspace(pre_tokenizer: Any) -> bool:
    """Return whether words end at spaces, each with the mark `▁` before it, wherever a text begins."""
    steps = _steps(pre_tokenizer, "pretokenizers")
    if [step["type"] for step in steps] not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        return False
    return bool(steps[-1]["split"]) and (len(steps) == 1 or steps[-1]["prepend_scheme"] == "always")


def _leaves_ascii_alone(tokenizer: Tokenizer, normalizer: Any) -> bool:
    """Return whether letters and digits stay such next to a space, and the space stays one.

    Precompiled maps one grapheme after the other, and the end of a word is the end of one. A replacement that reaches
    across a cut has a space in its pattern; that of several spaces by one does not meet a single one.
    """
    for step in _steps(normalizer, "normalizers"):
        kind, pattern = step["type"], step.get("pattern", {})
        is_plain = not re.search(r"[\s\w▁]", pattern.get("String", " ") + step.get("content", ""))
        is_spaces = pattern.get("Regex") == " {2,}" and step["content"] in (" ", "▁")
        if kind == "Replace" and not (is_plain or is_spaces):
            return False
        if kind not in BY_CHARACTER | {"Precompiled", "Replace"} and (kind, step.get("strip_left")) != ("Strip", False):
            return False
    words = [f"{c}{c} {c}{c}" for c in string.ascii_letters + string.digits]
    seen = [word if normalizer is None else tokenizer.normalizer.normalize_str(word) for word in words]
    return all(re.fullmatch(r"[0-9A-Za-z]+ [0-9A-Za-z]+", word) for word in seen)


def _squeeze(tokenizer: Tokenizer, pre_tokenizer: Any) -> Callable[[str], str] | None:
    """Return what shortens words that are too long for WordPiece: it gives one unknown token for each.

    A run of ASCII letters and digits is never taken apart by the accepted steps. What is left of it is still too long,
    whatever added token is matched at one of its ends.
    """
    longest = getattr(tokenizer.model, "max_input_chars_per_word", None)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    splits = pre_tokenizer is not None and pre_tokenizer["type"] in AT_WHITE_SPACE
    if longest is None or not splits or any(content.isalnum() for content in added):
        return None
    keep = longest + 2 + max(map(len, added), default=0)
    run = re.compile(f"([0-9A-Za-z]{{{keep}}})[0-9A-Za-z]*+(?<=([0-9A-Za-z]{{{keep}}}))")
    return lambda text: run.sub(r"\1\2", text)
