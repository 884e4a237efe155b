"""Show a row as text, with what is trained on in colour."""

from __future__ import annotations

import os
import sys
from itertools import groupby
from typing import Any, TextIO

from .batch import IGNORED, Row

COLOUR, PLAIN = "\x1b[32m", "\x1b[0m"
LIMIT = 2000
"""Tokens that are shown at most."""


def show_sample(row: Row, tokenizer: Any, stream: TextIO | None = None) -> None:
    """Print the decoded row; the supervised parts are green, or stand in ⟦brackets⟧ where there are no colours."""
    stream = stream or sys.stderr
    colours = stream.isatty() and not os.environ.get("NO_COLOR")
    opening, closing = (COLOUR, PLAIN) if colours else ("⟦", "⟧")
    text = marked_text(row, tokenizer, opening, closing)
    mark = "green" if colours else "in ⟦ ⟧"
    supervised = sum(1 for label in row.labels if label != IGNORED)
    print(f"First row ({len(row.input_ids)} tokens; the {supervised} {mark} are trained on):\n{text}\n", file=stream)


def marked_text(row: Row, tokenizer: Any, opening: str, closing: str) -> str:
    """Return the row's text with each supervised run between two marks."""
    pairs = list(zip(row.input_ids[:LIMIT], row.labels[:LIMIT], strict=True))
    parts = []
    for supervised, group in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        text = tokenizer.decode([int(token) for token, _ in group], skip_special_tokens=False)
        parts.append(f"{opening}{text}{closing}" if supervised else text)
    return "".join(parts) + (" ..." if len(row.input_ids) > LIMIT else "")
