"""Numbers in an answer count twice."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from martlet.protocols import Span


def my_name(messages: Sequence[Mapping[str, Any]], spans: Sequence[Span]) -> list[float | list[tuple[str, float]]]:
    """Return an entry a span: its weight, or pieces (text, weight) that join to its text."""
    return [_pieces(span.text) if span.generated else 1.0 for span in spans]


def _pieces(text: str) -> list[tuple[str, float]]:
    return [(piece, 2.0 if piece.strip().isdigit() else 1.0) for piece in re.split(r"(\s*\d+)", text) if piece]
