"""Rows with a question, its answer and, maybe, where the answer was found."""

from typing import Any


def my_name(row: dict[str, Any]) -> dict[str, Any] | None:
    """Turn a raw row into a conversation; None drops it."""
    if not row["answer"]:
        return None
    turns = [("user", row["question"]), ("assistant", row["answer"])]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}
