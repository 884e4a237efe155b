"""Prefer short answers."""

from collections.abc import Sequence


def my_name(completions: Sequence[str], **columns: object) -> list[float | None]:
    """Score each completion; None where the reward does not apply. ``columns`` are the dataset's, as lists."""
    return [1.0 / (1 + len(text)) for text in completions]
