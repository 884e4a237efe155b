"""The standard row: what every layout is brought to, and what every algorithm reads."""

from __future__ import annotations

from typing import Any

from .blocks import MEDIA, Media, medium
from .calls import tools_of
from .cells import check_text, listed, parsed
from .fields import channel, label, margin, objects
from .json_values import kind_of
from .messages import ASKING, Message, columnwise, read, role_of
from .rows import Row, RowError

STANDARD_COLUMNS = frozenset(
    {
        "messages",
        "tools",
        "rejected_messages",
        "positive_messages",
        "negative_messages",
        *MEDIA.values(),
        "objects",
        "label",
        "channel",
        "margin",
    }
)
_NONE: tuple[Any, ...] = (None, "", [])
_REJECTED = ("rejected_messages", "rejected_response", "rejected")
MORE = frozenset(
    {*STANDARD_COLUMNS, *_REJECTED, "functions", "positive", "negative", *MEDIA} - {"messages"},
)
"""Columns that are looked at beside the messages."""


def standardise(row: Row, system: Any = None) -> Row:
    """Return a row whose standard columns are in the standard form; others stay, but for nulls. Pure; idempotent.

    ``system`` is put in front of conversations that have no system message. ``RowError`` says what is wrong with a row.
    """
    found = dict(row)
    if None in found.values():
        found = {name: value for name, value in found.items() if value is not None}
    media: Media = {}
    given = found.get("messages")
    found["messages"] = read(given, media, opening(given, system) if system not in _NONE else ())
    if media or not MORE.isdisjoint(found):
        _complete(found, media, system)
    return found


def opening(given: Any, system: Any) -> list[Message]:
    """Return the system message to put before a conversation: none where it has one."""
    items = columnwise(listed(given))
    if isinstance(items, list) and items and role_of(items[0]) in ("system", "developer"):
        return []
    media: Media = {}
    try:
        found = read([{"role": "system", "content": system}], media)
    except RowError as error:
        raise RowError(error.reason, error.detail.replace("message 1 (system)", "the column system")) from None
    if media:
        raise RowError("bad content", f"the column system shows {', '.join(media)}; only messages may")
    return found


def _complete(row: Row, media: Media, system: Any) -> None:
    for name in MORE & row.keys():
        value = listed(row[name])
        if (isinstance(value, list | dict) and not value) or (isinstance(value, str) and not value.strip()):
            del row[name]
    if (name := only_one(row, "tools", "functions")) and (tools := tools_of(row.pop(name))):
        row["tools"] = tools
    _list_media(row, media)
    _reject(row, media, system)
    for name in ("positive", "negative"):
        if given := only_one(row, f"{name}_messages", name):
            row[f"{name}_messages"] = _conversations(row.pop(given), given)
    if "objects" in row:
        row["objects"] = objects(row["objects"], row)
    for name, check in (("label", label), ("channel", channel), ("margin", margin)):
        if name in row:
            row[name] = check(row[name])


def only_one(row: Row, *names: str) -> str:
    """Return which of several names for one thing the row has a value for; two are one too many."""
    found = [name for name in names if row.get(name) is not None]
    if len(found) > 1:
        raise RowError("ambiguous columns", f"{' and '.join(found)} say the same; keep one")
    return found[0] if found else ""


def _list_media(row: Row, media: Media) -> None:
    """List what the tags of the messages stand for."""
    for kind, column in MEDIA.items():
        name = only_one(row, column, kind)
        if name and column in media:
            raise RowError("ambiguous columns", f"{column} are given by {name} and in the messages; keep one")
        if name:
            given = listed(row.pop(name))
            given = given if isinstance(given, list) else [given]
            row[column] = [medium(one, kind, f"{name}[{place}]") for place, one in enumerate(given)]
        elif column in media:
            row[column] = media[column]
        if column in row:
            row["messages"] = _tagged(row["messages"], kind, len(row[column]), "messages")


def _tagged(messages: list[Message], kind: str, count: int, name: str) -> list[Message]:
    """Put tags before the first user message where there are none; refuse another number of them."""
    tag = f"<{kind}>"
    tags = sum(message["content"].count(tag) for message in messages)
    if tags == count:
        return messages
    if tags:
        raise RowError(f"bad {MEDIA[kind]}", f"{name} have {tags} {tag} tags, but the row has {count} {MEDIA[kind]}")
    at = next((k for k, message in enumerate(messages) if message["role"] == "user"), 0)
    first = {**messages[at], "content": tag * count + messages[at]["content"]}
    return [*messages[:at], first, *messages[at + 1 :]]


def conversation_of(given: Any, role: str) -> list[Any]:
    """Return messages that are given as a list, as JSON text, as one message, or as the text of one of ``role``."""
    items = listed(given)
    if isinstance(items, dict) and role_of(items):
        return [items]
    if isinstance(items, list) and items and isinstance(items[0], dict) and ("role" in items[0] or "from" in items[0]):
        return items
    return [{"role": role, "content": given}]


def is_whole(items: list[Any]) -> bool:
    """Tell whether messages hold a question, and not only the answer to one."""
    return any(role_of(item) in ASKING for item in items)


def _reject(row: Row, media: Media, system: Any) -> None:
    """Make ``rejected_messages`` of what is given: a text for the last answer, its messages, or a conversation."""
    name = only_one(row, *_REJECTED)
    if not name:
        return
    messages: list[Message] = row["messages"]
    if messages[-1]["role"] != "assistant":
        raise RowError("bad pair", f"{name} is given, but the messages end with {messages[-1]['role']}, not an answer")
    given = row.pop(name)
    if name == "rejected_messages":
        given = parsed(given, name, "bad messages")
    items = conversation_of(given, "assistant")
    if is_whole(items):
        before = opening(items, system) if system not in _NONE else []
    elif isinstance(listed(given), list):
        asked = [k for k, message in enumerate(messages) if message["role"] in ASKING]
        before = messages[: asked[-1] + 1] if asked else []
    else:
        before = messages[:-1]
    found: Media = {}
    rejected = _named(name, items, found, before)
    if any(value != row.get(column) for column, value in found.items()):
        raise RowError("bad pair", f"{name} shows other media than the messages")
    for kind, column in MEDIA.items():
        if column in row:
            rejected = _tagged(rejected, kind, len(row[column]), name)
    if rejected[-1]["role"] != "assistant":
        raise RowError("bad pair", f"{name} ends with {rejected[-1]['role']}, not an answer")
    if rejected == messages:
        raise RowError("equal answers", f"{name} is the same as the answer; there is nothing to prefer")
    row["rejected_messages"] = rejected


def _named(name: str, items: Any, media: Media, before: list[Message]) -> list[Message]:
    """Read messages of another column than ``messages``, and say so of what is wrong with them."""
    try:
        return read(items, media, before)
    except RowError as error:
        raise RowError(error.reason, f"{name}: {error.detail}") from None


def _conversations(given: Any, name: str) -> list[list[Message]]:
    """Make a conversation of each text or list of messages; a text is a user message."""
    given = listed(given)
    one = not isinstance(given, list) or isinstance(given[0], dict)
    found = []
    for place, item in enumerate([given] if one else given):
        where, media = f"{name}[{place}]", Media()
        if isinstance(item, str):
            check_text(item, where)
        elif not isinstance(item, list):
            raise RowError("bad messages", f"{where} is {kind_of(item)}, not text or a list of messages")
        found.append(_named(where, conversation_of(item, "user"), media, []))
        if media:
            raise RowError("bad content", f"{where} shows media of its own; only messages may")
    return found
