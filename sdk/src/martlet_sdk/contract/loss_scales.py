"""Loss scales: ``(messages, spans) -> one weight, or pieces (text, weight), for each span``."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from martlet.protocols import Span
from martlet.specs import LossScale

from .base import require
from .kit import Kit

ANSWERS = (
    "Grass is green.",
    "<think>\nThe user wants a number: 6 * 7.\n</think>\n\nIt is 42.",
    'Thought: look it up.\nAction: search\nAction Input: {"query": "grass"}\nObservation: green\nFinal Answer: green',
    '<tool_call>\n{"name": "search", "arguments": {"query": "草"}}\n</tool_call>',
)


def conversation(answers: Sequence[str]) -> tuple[list[dict[str, Any]], list[Span]]:
    """Return messages and the spans of a plain rendering of them: a system message, then a question an answer."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    spans = [Span("system: Be brief.\n", "system", False, 0)]
    for number, answer in enumerate(answers):
        last = number == len(answers) - 1
        place = len(messages)
        messages += [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": answer}]
        spans += [
            Span("user: Go on.\n", "user", False, place),
            Span("assistant: ", "assistant", False, place + 1, last),
            Span(answer + "<|im_end|>", "assistant", True, place + 1, last),
            Span("\n", "", False, -1, last),
        ]
    return messages, spans


CASES = (*((answer,) for answer in ANSWERS), ANSWERS)


def check_one_entry_a_span(kit: Kit, spec: LossScale) -> None:
    """It returns one entry for each span, in order."""
    scale = kit.build(spec)
    for answers in CASES:
        messages, spans = conversation(answers)
        found = scale(messages, spans)
        good = isinstance(found, Sequence) and not isinstance(found, str)
        require(good, f"it returned {type(found).__name__}; return a list with one entry for each span.")
        require(len(found) == len(spans), f"it returned {len(found)} entries for {len(spans)} spans.")


def check_pieces_make_the_span(kit: Kit, spec: LossScale) -> None:
    """Where it divides a span, the pieces join to the span's text."""
    scale = kit.build(spec)
    for answers in CASES:
        messages, spans = conversation(answers)
        for span, entry in zip(spans, scale(messages, spans), strict=False):
            if isinstance(entry, Real):
                continue
            pairs = isinstance(entry, Sequence) and all(isinstance(p, Sequence) and len(p) == 2 for p in entry)
            good = pairs and not isinstance(entry, str)
            require(good, f"for a span it returned {entry!r}; return a weight or pieces (text, weight).")
            joined = "".join(text for text, _ in entry)
            require(joined == span.text, f"the pieces of the span {span.text!r} join to {joined!r}.")


def check_weights(kit: Kit, spec: LossScale) -> None:
    """Weights are finite and not negative."""
    scale = kit.build(spec)
    for answers in CASES:
        messages, spans = conversation(answers)
        for span, entry in zip(spans, scale(messages, spans), strict=False):
            for weight in [entry] if isinstance(entry, Real) else [pair[1] for pair in entry]:
                good = isinstance(weight, Real) and math.isfinite(weight) and float(weight) >= 0
                require(good, f"a piece of {span.text!r} weighs {weight!r}; weights are finite and at least 0.")


def check_pure(kit: Kit, spec: LossScale) -> None:
    """It changes neither messages nor spans, and answers the same twice."""
    scale = kit.build(spec)
    messages, spans = conversation(ANSWERS)
    before = copy.deepcopy((messages, spans))
    first = scale(messages, spans)
    require((messages, spans) == before, "it changes the messages or the spans that it is given.")
    require(list(first) == list(scale(messages, spans)), "it returns other weights when it is called again.")


CHECKS = (check_one_entry_a_span, check_pieces_make_the_span, check_weights, check_pure)
