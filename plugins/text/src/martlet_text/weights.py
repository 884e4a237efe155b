"""From spans and loss scales to weighted ranges of characters, and from those to weighted tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from martlet import UsageError
from martlet.protocols import Span

from .conversation import SYSTEM, Conversation, RowError
from .derive import Derived
from .loss_scales import STRUCTURAL, everything
from .vocabulary import token_range

Scale = Callable[[Sequence[Any], Sequence[Span]], Sequence[Any]]
"""``(messages, spans) -> one entry a span``: a weight, or pieces ``(text, weight)`` that join to the span's text."""
Weighted = tuple[int, int, float]
"""Characters ``[start, end)`` and their weight."""


@dataclass(frozen=True, slots=True)
class Block:
    """Characters ``[start, end)`` that are all trained on; ``pieces`` where not everything weighs 1."""

    start: int
    end: int
    pieces: tuple[Weighted, ...] = ()


def spans_of(derived: Derived, conversation: Conversation) -> list[Span]:
    """Divide a rendering: the model's text, the text of the other messages, and what belongs to no message."""
    roles = [message["role"] for message in conversation.messages]
    marks = [(region.start, region.end, region.message, True) for region in derived.regions]
    others = [part for part in derived.parts if roles[part.message] != "assistant"]
    marks += [(part.start, part.end, part.message, False) for part in others]
    asked = max((number for number, role in enumerate(roles) if role == "user"), default=-1)
    users = [part.end for part in derived.parts if roles[part.message] == "user"]
    turn = max(users or [region.end for region in derived.regions if region.message < asked], default=0)
    spans: list[Span] = []
    last = 0
    for start, end, message, generated in sorted(marks):
        if start < last:
            raise RowError("unproven mask", f"message {conversation.place(message) + 1} appears inside another one")
        if start > last:
            spans.append(Span(derived.text[last:start], "", False, -1, last >= turn))
        place = conversation.place(message)
        role = "system" if roles[message] in SYSTEM else roles[message]
        late = message > asked if generated else start >= turn
        spans.append(Span(derived.text[start:end], role, generated, place, late))
        last = end
    if last < len(derived.text):
        spans.append(Span(derived.text[last:], "", False, -1, last >= turn))
    return spans


class Weights:
    """A chain of loss scales; their weights multiply. A message's own ``loss`` overrides the first, the base."""

    def __init__(self, chain: Sequence[Scale], names: Sequence[str]) -> None:
        self.chain, self.names = tuple(chain), tuple(names)
        self.structural = all(scale in STRUCTURAL for scale in chain)
        """Weights do not depend on any text."""

        self.need_answers = everything not in chain
        """A conversation without an answer has nothing to train on."""

    def blocks(self, conversation: Conversation, messages: Sequence[Any], spans: Sequence[Span]) -> list[Block]:
        """Return what is trained on, in characters of the rendering."""
        starts = [0, *accumulate(len(span.text) for span in spans)]
        weighted: list[Weighted] = [(starts[n], starts[n + 1], 1.0) for n in range(len(spans))]
        for number, (scale, name) in enumerate(zip(self.chain, self.names, strict=True)):
            entries = _entries(scale, name, messages, spans)
            if number == 0:
                entries = _overridden(entries, conversation, spans)
            try:
                weighted = _multiplied(weighted, _placed(entries, spans, starts, name))
            except (TypeError, ValueError):
                raise RowError("loss scale", f"{name} returned neither weights nor pieces (text, weight)") from None
        return _joined(weighted)


def _entries(scale: Scale, name: str, messages: Sequence[Any], spans: Sequence[Span]) -> list[Any]:
    try:
        entries = list(scale(messages, spans))
    except Exception as error:
        raise RowError("loss scale", f"{name} raised {type(error).__name__}: {error}") from None
    if len(entries) != len(spans):
        raise RowError("loss scale", f"{name} returned {len(entries)} entries for {len(spans)} spans")
    return entries


def _overridden(entries: list[Any], conversation: Conversation, spans: Sequence[Span]) -> list[Any]:
    if not conversation.loss:
        return entries
    found = list(entries)
    shown = {span.message + conversation.added for span in spans if span.message >= 0}
    for index, wanted in enumerate(conversation.loss):
        if wanted and index not in shown:
            number = conversation.place(index) + 1
            raise RowError("bad loss", f"message {number} has loss true, but where it stands cannot be proven")
    for number, span in enumerate(spans):
        if span.message >= 0:
            wanted = conversation.loss[span.message + conversation.added]
            found[number] = entries[number] if wanted is None else float(wanted)
    return found


def _placed(entries: Sequence[Any], spans: Sequence[Span], starts: Sequence[int], name: str) -> list[Weighted]:
    found: list[Weighted] = []
    for number, entry in enumerate(entries):
        if isinstance(entry, int | float):
            found.append((starts[number], starts[number + 1], float(entry)))
            continue
        if "".join(text for text, _ in entry) != spans[number].text:
            raise RowError("loss scale", f"the pieces of {name} do not join to the text of their span")
        place = starts[number]
        for text, weight in entry:
            found.append((place, place + len(text), float(weight)))
            place += len(text)
    if any(not 0 <= weight < float("inf") for _, _, weight in found):
        raise RowError("loss scale", f"{name} returned a weight that is negative or not finite")
    return [piece for piece in found if piece[0] < piece[1]]


def _multiplied(first: Sequence[Weighted], second: Sequence[Weighted]) -> list[Weighted]:
    """Multiply two divisions of the same text."""
    found: list[Weighted] = []
    one, other = 0, 0
    while one < len(first) and other < len(second):
        start = max(first[one][0], second[other][0])
        end = min(first[one][1], second[other][1])
        if start < end:
            found.append((start, end, first[one][2] * second[other][2]))
        if first[one][1] == end:
            one += 1
        if other < len(second) and second[other][1] == end:
            other += 1
    return found


def _joined(weighted: Sequence[Weighted]) -> list[Block]:
    """Join neighbours that are trained on; keep the pieces where weights differ from 1."""
    groups: list[list[Weighted]] = []
    for piece in weighted:
        if piece[2] <= 0 or piece[0] == piece[1]:
            continue
        if groups and groups[-1][-1][1] == piece[0]:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [
        Block(group[0][0], group[-1][1], tuple(group) if any(weight != 1 for _, _, weight in group) else ())
        for group in groups
    ]


def token_labels(
    encoding: Any, ids: list[int], text: str, blocks: Sequence[Block]
) -> tuple[list[int], list[float] | None]:
    """Return labels and, where a weight is not 1, the weight of every token.

    A token gets the weight of the first character in it that is not white space.
    """
    labels = [-100] * len(ids)
    weights: list[float] | None = None
    for block in blocks:
        first, last = token_range(encoding, text, block.start, block.end)
        labels[first:last] = ids[first:last]
        if block.pieces and weights is None:
            weights = [float(label != -100) for label in labels]
        if weights is not None:
            weights[first:last] = _token_weights(encoding, text, first, last, block)
    return labels, weights


def _token_weights(encoding: Any, text: str, first: int, last: int, block: Block) -> list[float]:
    pieces = block.pieces or ((block.start, block.end, 1.0),)
    found, current = [], 0
    for token in range(first, last):
        begins, ends = encoding.token_to_chars(token)
        while begins < ends - 1 and text[begins].isspace():
            begins += 1
        while current < len(pieces) - 1 and begins >= pieces[current][1]:
            current += 1
        found.append(pieces[current][2])
    return found


def chain_of(run: Any) -> Weights:
    """Build the loss scales that ``--loss_scale`` names; a chain without a base begins with ``default``.

    A command that does not train has no such flag: its chain is ``default`` alone.
    """
    specs = list(run.selected("loss_scales"))
    functions: list[Callable[..., Any]] = list(run.all("loss_scales"))
    names = [spec.name for spec in specs]
    bases = [spec.name for spec in specs if spec.base]
    if len(bases) > 1:
        raise UsageError(f"--loss_scale {'+'.join(names)}: {' and '.join(bases)} are both a base; keep one.")
    if bases:
        place = names.index(bases[0])
        functions.insert(0, functions.pop(place))
        names.insert(0, names.pop(place))
    else:
        functions.insert(0, run.get("loss_scales", "default"))
        names.insert(0, "default")
    return Weights(functions, names)
