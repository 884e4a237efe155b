"""Row converters: each takes one layout to the standard row. Pure; columns that they do not know stay."""

from __future__ import annotations

from typing import Any

from .messages import parsed, standardise
from .rows import Row, RowError

QUERY = ("query", "prompt", "question")
RESPONSE = ("response", "completion", "answer")
ROW_COLUMNS = frozenset({"messages", "conversations", "conversation", "instruction", "text", *QUERY, *RESPONSE})
"""Any of these makes a JSON object a row."""


def messages(row: Row) -> Row:
    """Standardise ``{"messages": [{"role": ..., "content": ...}, ...], "tools": [...]}``.

    A ``system`` column is put in front when the messages have none.
    """
    rest, system = _without(row, "system")
    items = rest["messages"] = parsed(rest.get("messages"), "messages")
    if system and isinstance(items, list) and items:
        first = items[0] if isinstance(items[0], dict) else {}
        if first.get("role", first.get("from")) not in ("system", "developer"):
            rest["messages"] = [{"role": "system", "content": system}, *items]
    return standardise(rest)


def sharegpt(row: Row) -> Row:
    """Convert ``{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}``.

    ``{"conversation": [{"human": ..., "assistant": ...}]}`` holds a question and its answer in each item; the first
    may have a ``system``.
    """
    name = "conversations" if "conversations" in row else "conversation"
    rest, items = _without(row, name)
    items = parsed(items, "messages")
    if isinstance(items, list) and items and all(isinstance(item, dict) and "human" in item for item in items):
        items = [
            {"role": role, "content": item[key]}
            for item in items
            for key, role in (("system", "system"), ("human", "user"), ("assistant", "assistant"))
            if item.get(key) or (key in item and key != "system")
        ]
    return messages({**rest, "messages": items})


def alpaca(row: Row) -> Row:
    """Convert ``{"instruction": ..., "input": ..., "output": ...}``, with ``system`` and ``history`` if given.

    Instruction and input are joined by a newline.
    """
    rest = {k: v for k, v in row.items() if k not in ("instruction", "input", "output", "system", "history")}
    query = row["instruction"]
    if extra := row.get("input"):
        if not isinstance(extra, str):
            raise RowError("bad content", f"input is a {type(extra).__name__}, not text")
        query = f"{query}\n{extra}" if isinstance(query, str) and query else query or extra
    answer = [("assistant", row["output"])] if "output" in row else []
    return _turns(rest, row, [("user", query), *answer])


def query_response(row: Row) -> Row:
    """Convert ``{"query": ..., "response": ...}``, with ``system`` and ``history`` ([[query, response], ...]) if given.

    ``prompt`` and ``completion``, ``question`` and ``answer`` are read alike; either may be a list of messages.
    A response without query is text to continue.
    """
    query = next((name for name in QUERY if name in row), "")
    response = next((name for name in RESPONSE if name in row), "")
    rest = {k: v for k, v in row.items() if k not in (query, response, "system", "history")}
    turns = [(role, row[name]) for role, name in (("user", query), ("assistant", response)) if name]
    return _turns(rest, row, turns)


def text(row: Row) -> Row:
    """Convert ``{"text": ...}``: text to continue, as one assistant message."""
    rest, content = _without(row, "text")
    return standardise({**rest, "messages": [{"role": "assistant", "content": content}]})


def _turns(rest: Row, row: Row, turns: list[tuple[str, Any]]) -> Row:
    found: list[Any] = []
    if row.get("system"):
        found.append({"role": "system", "content": row["system"]})
    history = parsed(row.get("history"), "history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
        raise RowError("bad history", "history is not a list of [query, response] pairs")
    for query, response in history:
        found += [{"role": "user", "content": query}, {"role": "assistant", "content": response}]
    for role, content in turns:
        if isinstance(content, list) and content and isinstance(content[0], dict) and "role" in content[0]:
            found += content
        else:
            found.append({"role": role, "content": content})
    return standardise({**rest, "messages": found})


def _without(row: Row, name: str) -> tuple[Row, Any]:
    rest = dict(row)
    return rest, rest.pop(name, None)
