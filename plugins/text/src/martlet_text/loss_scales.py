"""Which spans are trained on: ``(messages, spans) -> one weight a span``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from martlet.protocols import Span

Messages = Sequence[Mapping[str, Any]]


def default(messages: Messages, spans: Sequence[Span]) -> list[float]:
    """Train on everything that the model wrote, in every turn."""
    return [1.0 if span.generated else 0.0 for span in spans]


def last_round(messages: Messages, spans: Sequence[Span]) -> list[float]:
    """Train on what the model wrote after the last user message."""
    return [1.0 if span.generated and span.last_round else 0.0 for span in spans]


def everything(messages: Messages, spans: Sequence[Span]) -> list[float]:
    """Train on every token, as pre-training does."""
    return [1.0] * len(spans)


STRUCTURAL = frozenset({default, last_round, everything})
"""These look at what a span is, never at its text: rows of one shape get the same weights."""
