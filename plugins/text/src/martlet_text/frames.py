"""Reuse a derivation for conversations of the same shape.

A shape is what a conversation has apart from its texts: roles, which fields there are, white space at their ends,
names of functions, tools. The frame of a shape is what the template wrote between the texts, with the model's part of
it marked. A row still gets its own rendering by the template; only if that is, character for character, the frame with
the row's texts filled in, do the frame's marks hold for it. A frame is trusted once three rows have been derived in
full and agree, and is compared again with a full derivation at its 4th, 8th, 16th, ... use. Rows that hold what the
template looks for (``watched``: its own string constants, such as ``</think>``) never use one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from jinja2 import nodes

from .conversation import REASONING, Conversation, Message
from .derive import Derived, Part, Region
from .sandbox import environment
from .weights import Block

CAPACITY = 4096
"""Shapes that are remembered."""

Cut = tuple[int, int]
"""Place in a frame: which literal, and how many characters into it."""


def shape_of(conversation: Conversation) -> tuple[Any, list[str]] | None:
    """Return a hashable shape and the texts that fill it; None for what has no shape worth remembering."""
    key: list[Any] = [conversation.added]
    texts: list[str] = []
    for message in conversation.messages:
        if len(message) == 2:
            content = message.get("content")
            if type(content) is str:
                bare = content.strip()
                whole = 0 < len(bare) == len(content)
                key.append(message["role"] if whole else (message["role"], *_ends(content, bare)))
                if bare:
                    texts.append(bare)
                continue
        found = _shape(message, texts)
        if found is None:
            return None
        key.append(found)
    if conversation.loss:
        key.append(conversation.loss)
    if conversation.tools:
        key.append(json.dumps(conversation.tools))
    return tuple(key), texts


def _ends(text: str, bare: str) -> tuple[str, ...]:
    if not bare:
        return (text,)
    start = text.index(bare)
    return text[:start], text[start + len(bare) :]


_KNOWN = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", *REASONING})


def _shape(message: Message, texts: list[str]) -> Any:
    name = message.get("name")
    if not message.keys() <= _KNOWN or isinstance(message.get("content"), list) or not isinstance(name, str | None):
        return None
    found: list[Any] = [message["role"], name, "tool_call_id" in message]
    thoughts = next((message[name] for name in REASONING if name in message), None)
    found.append(_text(thoughts, texts) if thoughts is not None else None)
    found.append(tuple(name in message for name in REASONING))
    content = message.get("content")
    found.append(_text(content, texts) if content is not None else None)
    for call in message.get("tool_calls", ()):
        body = call["function"]
        found.append((body["name"], _value(body["arguments"], texts), tuple(call), tuple(body)))
    return tuple(found)


def _text(text: str, texts: list[str]) -> tuple[str, ...]:
    bare = text.strip()
    if bare:
        texts.append(bare)
    return _ends(text, bare)


def _value(value: Any, texts: list[str]) -> Any:
    if isinstance(value, str):
        return _text(value, texts)
    if isinstance(value, dict):
        return tuple((key, _value(item, texts)) for key, item in value.items())
    if isinstance(value, list):
        return ("list", *(_value(item, texts) for item in value))
    return type(value).__name__, value


@dataclass(slots=True)
class Frame:
    """What the template writes for a shape: literals, with texts between them."""

    literals: list[str]
    fields: list[int]
    """Which text stands between two literals."""
    regions: list[tuple[Cut, Cut, int]]
    parts: list[tuple[Cut, Cut, int]]
    blocks: list[tuple[Cut, Cut]] | None = None
    """What is trained on, where that does not depend on texts."""
    uses: int = 1

    def fill(self, texts: Sequence[str]) -> Filled:
        """Put texts between the literals."""
        pieces = [self.literals[0]]
        for literal, field in zip(self.literals[1:], self.fields, strict=True):
            pieces.append(texts[field])
            pieces.append(literal)
        return Filled(self, "".join(pieces), [0, *accumulate(map(len, pieces))][0:-1:2])

    @property
    def due(self) -> bool:
        """The next use has to be compared with a full derivation."""
        return self.uses & (self.uses - 1) == 0


@dataclass(slots=True)
class Filled:
    """A frame with the texts of one row in it."""

    frame: Frame
    text: str
    starts: list[int]
    """Where each literal begins."""

    def derived(self) -> Derived:
        """Return what the frame says of this text."""
        starts = self.starts
        regions = [Region(starts[a] + b, starts[c] + d, message) for (a, b), (c, d), message in self.frame.regions]
        parts = [Part(starts[a] + b, starts[c] + d, message) for (a, b), (c, d), message in self.frame.parts]
        return Derived(self.text, regions, parts)

    def blocks(self) -> list[Block]:
        """Return what is trained on."""
        starts = self.starts
        return [Block(starts[a] + b, starts[c] + d) for (a, b), (c, d) in self.frame.blocks or ()]

    def agrees(self, derived: Derived) -> bool:
        """Compare with a full derivation of the same text."""
        mine = self.derived()
        return mine.regions == derived.regions and mine.parts == derived.parts


def learn(derived: Derived, texts: Sequence[str], blocks: Sequence[Block] | None) -> Frame | None:
    """Make the frame of a derived rendering; None where a text does not appear in it as it is, once.

    ``blocks``: what is trained on, if that holds for every row of the shape.
    """
    if derived.fields is None:
        return None
    placed = sorted((start, number) for number, start in enumerate(derived.fields) if start is not None)
    literals, order, starts, last = [], [], [], 0
    for start, number in placed:
        if start < last or not derived.text.startswith(texts[number], start):
            return None
        literals.append(derived.text[last:start])
        starts.append(last)
        order.append(number)
        last = start + len(texts[number])
    literals.append(derived.text[last:])
    starts.append(last)

    def cut(position: int) -> Cut:
        for number, (start, literal) in enumerate(zip(starts, literals, strict=True)):
            if start <= position <= start + len(literal):
                return number, position - start
        raise LookupError

    try:
        return Frame(
            literals,
            order,
            [(cut(item.start), cut(item.end), item.message) for item in derived.regions],
            [(cut(item.start), cut(item.end), item.message) for item in derived.parts],
            None if blocks is None else [(cut(block.start), cut(block.end)) for block in blocks],
        )
    except LookupError:  # a boundary inside a text
        return None


def watched(source: str) -> re.Pattern[str] | None:
    """Return a pattern for the string constants that a chat template compares texts with or changes them by."""
    tree = environment().parse(source)
    found: set[str] = set()
    looks: tuple[type[nodes.Node], ...] = (nodes.Compare, nodes.Call, nodes.Filter, nodes.Test, nodes.Assign)
    for kind in looks:
        for node in tree.find_all(kind):
            if isinstance(node, nodes.Compare) and all(operand.op in ("eq", "ne") for operand in node.ops):
                continue
            found |= {c.value for c in node.find_all(nodes.Const) if isinstance(c.value, str)}
    long = sorted((text for text in found if len(text.strip()) >= 3 and not text.isidentifier()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, long))) if long else None
