"""The standard row: one spelling of roles, tool calls and tools, in an order that makes sense."""

from __future__ import annotations

import json
from typing import Any

from .rows import Row, RowError

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "function": "tool",
    "tool_call": "call",
    "function_call": "call",
}
"""Spelling -> role. ``call`` is no role of its own: it becomes ``tool_calls`` of an assistant message."""

_REASONING = ("reasoning_content", "thinking", "reasoning")
_FOLLOWS = {
    "system": (None,),
    "developer": (None, "system"),
    "user": (None, "system", "developer", "assistant"),
    "assistant": (None, "system", "developer", "user", "tool", "assistant"),
    "tool": ("assistant", "tool"),
}


def standardise(row: Row) -> Row:
    """Return a row whose ``messages`` and ``tools`` are in the standard form. Pure; idempotent.

    A message has ``role`` (system, developer, user, assistant, tool), ``content`` (text) and perhaps ``tool_calls``
    (``[{"type": "function", "function": {"name", "arguments": {...}}}]``), ``reasoning_content``, ``tool_call_id``,
    ``name``, ``loss`` (also given as OpenAI's ``weight``) and whatever else a template reads; keys with null are left
    out. ``RowError`` says what is wrong with a row: system and developer messages come first, no user message follows
    another, tool results follow the assistant, and the assistant answers them.
    """
    found = dict(row)
    found["messages"] = _messages(row.get("messages"))
    if "tools" in row:
        tools = _tools(row["tools"])
        if tools:
            found["tools"] = tools
        else:
            del found["tools"]
    return found


def _messages(given: Any) -> list[dict[str, Any]]:
    given = parsed(given, "messages")
    if not isinstance(given, list):
        raise RowError("bad messages", f"messages is {_kind(given)}, not a list of messages")
    messages: list[dict[str, Any]] = []
    before: str | None = None
    for place, item in enumerate(given, 1):
        if not isinstance(item, dict):
            raise RowError("bad messages", f"message {place} is {_kind(item)}, not an object")
        message = _message(item, place)
        role = message["role"]
        if role == "assistant" and before == "assistant" and _only_calls(message, messages[-1]):
            last = messages[-1] = dict(messages[-1])
            last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]
            continue
        if before not in _FOLLOWS[role]:
            after = f"follows {before}" if before else "comes first"
            raise RowError("roles out of order", f"message {place} ({role}) {after}")
        before = role
        messages.append(message)
    if not messages:
        raise RowError("no messages", "the list of messages is empty")
    return messages


def _message(item: dict[str, Any], place: int) -> dict[str, Any]:
    named = item.get("role", item.get("from"))
    role = ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        shown = f"role {named!r}" if named is not None else "no role"
        raise RowError("unknown role", f"message {place} has {shown}; known: {', '.join(ROLES)}")
    content = item["content"] if "content" in item else item.get("value")
    if type(content) is str and len(item) == 2 and role != "call":
        message: dict[str, Any] = {"role": role, "content": content}
    else:
        message = {"role": role, "content": ""}
        message |= {k: v for k, v in item.items() if v is not None and k not in ("role", "from", "content", "value")}
        if role == "call":
            message |= {"role": "assistant", "tool_calls": _calls(parsed(content, "tool_call"), place)}
            content = ""
        elif "tool_calls" in message:
            calls = parsed(message.pop("tool_calls"), "tool_calls")
            if calls:
                message["tool_calls"] = _calls(calls, place)
        message["content"] = content = _content(content, message, place)
        if message["role"] == "assistant" and "weight" in message:
            message["loss"] = _loss(message.pop("weight"), message.get("loss"), place)
    silent = not content or content.isspace()
    if silent and (role == "user" or (role == "assistant" and not _says_otherwise(message))):
        raise RowError("empty content", f"message {place} ({role}) is empty")
    for value in message.values():
        if isinstance(value, str) and not value.isascii():
            _check_characters(value, f"message {place} ({role})")
    return message


def _loss(weight: Any, loss: Any, place: int) -> bool:
    """Return what ``weight``, as OpenAI writes it, says of an answer: whether it is trained on."""
    if not isinstance(weight, int | float) or weight not in (0, 1):
        raise RowError("bad weight", f"message {place} (assistant) has weight {weight!r}; write 0 or 1")
    if loss not in (None, bool(weight)):
        raise RowError("bad weight", f"message {place} (assistant) has weight {weight!r} and loss {loss!r}; keep one")
    return bool(weight)


def _says_otherwise(message: dict[str, Any]) -> bool:
    """Tell whether an assistant message without content calls a tool or at least thinks."""
    thoughts = next((message[name] for name in _REASONING if name in message), "")
    return "tool_calls" in message or (isinstance(thoughts, str) and bool(thoughts.strip()))


def _only_calls(message: dict[str, Any], last: dict[str, Any]) -> bool:
    """Tell whether a message has nothing but calls that ``last``, the one before it, lacks."""
    if message["content"] or "tool_calls" not in message:
        return False
    return all(last.get(key) == value for key, value in message.items() if key not in ("role", "content", "tool_calls"))


def _content(content: Any, message: dict[str, Any], place: int) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    where = f"message {place} ({message['role']})"
    if isinstance(content, list):
        parts = []
        for part in content:
            if isinstance(part, str):
                raise RowError("bad content", f"the content of {where} is a list of texts; keep one, or join them")
            text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
            if not isinstance(text, str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                raise RowError("bad content", f"{where} has a part of type {kind!r}; only text is supported")
            parts.append(text)
        return "".join(parts)
    raise RowError("bad content", f"the content of {where} is {_kind(content)}, not text")


def _calls(given: Any, place: int) -> list[dict[str, Any]]:
    """Bring tool calls to the OpenAI form, with ``arguments`` as an object."""
    calls = []
    for call in given if isinstance(given, list) else [given]:
        call = parsed(call, "tool_call")
        body = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            raise RowError("bad tool call", f"a tool call of message {place} has no function name")
        arguments = parsed(body.get("arguments", body.get("parameters")) or {}, "arguments")
        if not isinstance(arguments, dict):
            raise RowError("bad tool call", f"arguments of {body['name']} in message {place} are no object")
        outer = {k: v for k, v in call.items() if k not in ("function", "type") and v is not None}
        kept = outer if body is not call else {}
        calls.append({**kept, "type": "function", "function": {"name": body["name"], "arguments": arguments}})
    if not calls:
        raise RowError("bad tool call", f"message {place} holds no call")
    _check_characters(json.dumps(calls, ensure_ascii=False), f"a tool call of message {place}")
    return calls


def _tools(given: Any) -> list[Any]:
    tools = parsed(given, "tools")
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise RowError("bad tools", f"tools is {_kind(tools)}, not a list")
    found = [parsed(tool, "tools") for tool in tools]
    for place, tool in enumerate(found, 1):
        if not isinstance(tool, dict):
            raise RowError("bad tools", f"tool {place} is {_kind(tool)}, not an object")
    if found:
        _check_characters(json.dumps(found, ensure_ascii=False), "tools")
    return found


def parsed(value: Any, what: str) -> Any:
    """Parse a value that is given as a JSON string, as CSV and Parquet files do."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        reason = f"bad {what}" if what in ("messages", "tools", "history") else "bad tool call"
        raise RowError(reason, f"{what} is text, but not JSON: {str(error).partition(';')[0]}") from None


def _check_characters(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        sign = f"U+{ord(text[error.start]):04X}"
        raise RowError("bad characters", f"{where} holds {sign}, half of a surrogate pair, which is no text") from None


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)
