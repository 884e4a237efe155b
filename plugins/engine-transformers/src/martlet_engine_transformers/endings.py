"""Where an answer ends, and what of it is text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Decode = Callable[[Sequence[int]], str]
Finish = Literal["stop", "length", ""]


@dataclass
class Endings:
    """The rule that ends an answer, a pure function of its tokens: batches, beams and streams share it."""

    stop_ids: frozenset[int]
    """The model ends its turn with one of these; it is no part of the text."""
    words: Sequence[str] = ()
    """Text that ends the answer and stays in it."""
    decode: Decode = field(default=lambda ids: "", repr=False)

    def __post_init__(self) -> None:
        # A token is at least one byte of text, so this many tokens at the end hold any word that just came about.
        self._window = max((len(word.encode()) for word in self.words), default=0) + 4

    def reached(self, ids: Sequence[int]) -> bool:
        """Tell whether the last of ``ids`` ends the answer."""
        return ids[-1] in self.stop_ids or self._word_reached(ids)

    def _word_reached(self, ids: Sequence[int]) -> bool:
        if not self.words:
            return False
        tail = self.decode(ids[-self._window :])
        return any(word in tail for word in self.words)

    def trim(self, ids: Sequence[int], limit: int) -> tuple[list[int], Finish]:
        """Cut what was generated after the end: tokens up to and with the one that ended it, and why it ended."""
        for count in range(1, min(len(ids), limit) + 1):
            if ids[count - 1] in self.stop_ids or (self.words and self._word_reached(ids[:count])):
                return list(ids[:count]), "stop"
        return list(ids[:limit]), "length"

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of a trimmed answer: without its stop token, up to and with its first stop word."""
        kept = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        text = self.decode(kept)
        ends = [at + len(word) for word in self.words if (at := text.find(word)) >= 0]
        return text[: min(ends)] if ends else text


class TextStream:
    """Turn tokens into text piece by piece, holding back a character whose bytes are not complete.

    The pieces join to what ``Endings.text`` gives for all tokens. Only a window at the end is decoded again for each
    token, so the cost of a long answer is linear.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = self._read = 0
        self._sent = ""

    def push(self, token: int) -> str:
        """Return the text that ``token`` completes; empty while a character is incomplete."""
        self._ids.append(token)
        known = self._decode(self._ids[self._start : self._read])
        text = self._decode(self._ids[self._start :])
        if len(text) <= len(known) or text.endswith("\ufffd"):
            return ""
        piece = text[len(known) :]
        self._start, self._read = self._read, len(self._ids)
        self._sent += piece
        return piece

    def finish(self, text: str) -> str:
        """Return what of the whole ``text`` was not given yet."""
        return text[len(self._sent) :]
