# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""A loss scale: numbers in an answer count twice."""

import re

from martlet import LossScale, hookimpl


def my_name(messages, spans):
    """Return an entry a span: its weight, or pieces (text, weight) that join to its text."""
    return [_pieces(span.text) if span.generated else 1.0 for span in spans]


def _pieces(text):
    return [(piece, 2.0 if piece.strip().isdigit() else 1.0) for piece in re.split(r"(\s*\d+)", text) if piece]


@hookimpl
def provide_loss_scales():
    yield LossScale("my-name", my_name, summary="Numbers weigh twice as much as other text.")
