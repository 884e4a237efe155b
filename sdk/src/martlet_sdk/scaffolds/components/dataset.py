"""Rows of the file beside this module, as conversations."""

from typing import Any


def my_name(row: dict[str, Any]) -> dict[str, Any] | None:
    """Turn a row of the file into a conversation; None drops it."""
    turns = [("user", row["question"]), ("assistant", row["answer"])]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}
