"""Templates that are a few strings: a prefix, a turn of the user, the end of a turn of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from martlet import Run, Template, UsageError
from martlet.protocols import Row, Span

from .bound import Bound, Laid, Limits
from .conversation import SYSTEM, Conversation, RowError, read
from .derive import Derived, Part, Region
from .settings import limits_of, refuse_plain_text, system_of, tokenizer_of
from .vocabulary import name_of, pattern_of
from .weights import Weights, chain_of, spans_of

_SLOT = re.compile(r"\{(bos|eos|system|content)(\|trim)?\}")


@dataclass(frozen=True, slots=True)
class Format:
    """The strings of a declarative template, with the tokenizer's own tokens put in."""

    prefix: str
    system: tuple[str, str]
    """Before and behind a system message."""
    default_system: str | None
    prompt: tuple[str, str]
    """Before a question, and between it and the answer."""
    suffix: str
    separator: str
    trim: bool
    """Drop white space at both ends of questions and answers."""
    trim_system: bool
    """Drop it at both ends of a system message."""


def format_of(spec: Template, tokenizer: Any) -> Format:
    """Read the declarative fields of a template. ``UsageError`` where they cannot make a conversation."""
    names = {"bos": tokenizer.bos_token or "", "eos": tokenizer.eos_token}

    def filled(text: str, slot: str = "") -> str:
        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name == slot:
                return match.group()
            if name not in names:
                raise UsageError(f"template {spec.name!r}: {match.group()} has no place in {text!r}.")
            if names[name] is None:
                raise UsageError(
                    f"template {spec.name!r} ends turns with the end-of-text token, and the tokenizer of "
                    f"{name_of(tokenizer)} has none; choose another with --template."
                )
            return str(names[name])

        return _SLOT.sub(value, text)

    def divided(text: str, slot: str) -> tuple[str, str]:
        pieces = re.split(rf"\{{{slot}(?:\|trim)?\}}", filled(text, slot))
        if len(pieces) != 2:
            raise UsageError(f"template {spec.name!r}: {text!r} needs {{{slot}}} exactly once.")
        return pieces[0], pieces[1]

    if not spec.suffix:
        raise UsageError(f"template {spec.name!r} has no suffix, so the model would not learn where an answer ends.")
    return Format(
        prefix=filled(spec.prefix),
        system=divided(spec.system, "system") if spec.system else ("", ""),
        default_system=spec.default_system,
        prompt=divided(spec.prompt, "content"),
        suffix=filled(spec.suffix),
        separator=filled(spec.separator),
        trim="{content|trim}" in spec.prompt,
        trim_system="{system|trim}" in spec.system,
    )


class DeclarativeTemplate:
    """Target of templates that have declarative fields and no target of their own."""

    def __init__(self, spec: Template) -> None:
        self.spec = spec

    def bind(self, processor: Any, run: Run) -> DeclarativeBound:
        """Join with a tokenizer. ``UsageError`` where it lacks a token that the template needs."""
        refuse_plain_text(run, self.spec.name)
        tokenizer = tokenizer_of(processor)
        bound = DeclarativeBound(tokenizer, self.spec, chain_of(run), limits_of(run, tokenizer), system_of(run))
        end = bound.format.suffix.strip()
        if not bound.vocabulary.trailing(end):
            run.warn(
                f"Template {self.spec.name} ends a turn with {end!r}, which is no special token of "
                f"{name_of(tokenizer)}: generation will not stop at it. --new_special_tokens can add it."
            )
        return bound


class DeclarativeBound(Bound):
    """A declarative template joined with one tokenizer."""

    def __init__(
        self, tokenizer: Any, spec: Template, weights: Weights, limits: Limits, system: str | None = None
    ) -> None:
        super().__init__(tokenizer, weights, limits)
        self.format = format_of(spec, tokenizer)
        self.takes_system = bool(spec.system)
        self.system = self.format.default_system if system is None else system
        ends = {tokenizer.eos_token, self.vocabulary.trailing(self.format.suffix.rstrip()), *spec.stop_words}
        ends &= self.vocabulary.ids.keys()
        self.stop_ids = frozenset(self.vocabulary.ids[token] for token in ends)
        literals = "".join([self.format.prefix, *self.format.system, *self.format.prompt, self.format.suffix])
        used = self.vocabulary.added_in(literals)
        self._control = pattern_of(used | self.vocabulary.special)
        self._reserved = pattern_of(used | ends)

    def lay(self, row: Row) -> Laid:
        conversation = read(row, self.system, answered=self.weights.need_answers)
        derived = self._rendered(conversation)
        spans = spans_of(derived, conversation)
        return Laid(derived.text, self.weights.blocks(conversation, row["messages"], spans), derived.apart)

    def divide(self, row: Row) -> list[Span]:
        conversation = read(row, self.system, answered=self.weights.need_answers)
        return spans_of(self._rendered(conversation), conversation)

    def lay_prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None) -> Laid:
        row = {"messages": [dict(message) for message in messages], "tools": tools}
        conversation = read(row, self.system, answered=False)
        if conversation.messages[-1]["role"] != "user":
            raise RowError("roles out of order", "the last message of a prompt is the user's")
        derived = self._rendered(conversation)
        return Laid(derived.text, (), derived.apart)

    def _rendered(self, conversation: Conversation) -> Derived:
        form = self.format
        pieces, length = [form.prefix], len(form.prefix)
        found = Derived("", [])

        def write(text: str, *more: str) -> tuple[int, int]:
            nonlocal length
            start = length
            pieces.append(text)
            pieces.extend(more)
            length += len(text) + sum(map(len, more))
            return start, start + len(text)

        before = "system"
        if conversation.tools:
            raise RowError("no tools", "this template has no place for tools; use --template jinja")
        for index, message in enumerate(conversation.messages):
            role, text = message["role"], self._text(message, conversation.place(index) + 1)
            if role in SYSTEM and index == 0 and self.takes_system:
                write(form.system[0])
                place = write(text, form.system[1])
            elif role == "user" and before != "user":
                write(form.prompt[0])
                place = write(text, form.prompt[1])
            elif role == "assistant" and before == "user":
                start, _ = write(text, form.suffix)
                place = (start, length)
                found.regions.append(Region(*place, index))
                found.apart.append((start, start))
                write(form.separator)
            else:
                what = f"message {conversation.place(index) + 1} is of role {role}"
                raise RowError("roles out of order", f"{what}; this template takes user and assistant in turn")
            before = role
            if role != "assistant":
                blank = len(text) - len(text.lstrip())
                found.parts.append(Part(place[0] + blank, place[0] + blank + len(text.strip()), index))
                if self._control:
                    found.apart += [(place[0] + m.start(), place[0] + m.end()) for m in self._control.finditer(text)]
        found.text = "".join(pieces)
        return found

    def _text(self, message: Mapping[str, Any], number: int) -> str:
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str) or "tool_calls" in message:
            raise RowError("no tools", "this template has no place for tool calls; use --template jinja")
        if message["role"] == "assistant" and self._reserved and (found := self._reserved.search(content)):
            raise RowError("special token", f"message {number} (assistant) holds {found.group()!r}")
        trimmed = self.format.trim_system if message["role"] in SYSTEM else self.format.trim
        return content.strip() if trimmed else content
