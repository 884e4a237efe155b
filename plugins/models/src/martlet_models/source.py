"""Find the folder of a model or an adapter: a local folder wins, else a hub is asked."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from martlet import MartletError, UsageError

if TYPE_CHECKING:
    from martlet import Run

ID = re.compile(r"[A-Za-z0-9_][\w.\-]*(/[A-Za-z0-9_][\w.\-]*)?")


@dataclass(frozen=True)
class Source:
    """Where something is read from."""

    folder: Path
    id: str = ""
    """Its id, where it came from a hub."""


def split(text: str) -> tuple[str, str]:
    """Split ``scheme::id``; the scheme is empty where none is named."""
    scheme, _, rest = text.rpartition("::")
    return scheme, rest


def local(text: str) -> Path | None:
    """Return the absolute path of an existing file or folder, or None."""
    path = expand(text)
    try:
        return path.absolute() if path.exists() else None
    except (OSError, ValueError):
        return None


def expand(text: str) -> Path:
    """Return a path with ``~`` replaced, where it stands for a home."""
    return Path(os.path.expanduser(text))


def check(text: str, flag: str) -> Path | None:
    """Return the local folder that ``text`` names, or None if it can only be an id on a hub.

    Raises ``UsageError`` with the nearest names where it is neither.
    """
    found = local(text)
    if found is not None:
        if found.is_dir():
            return found
        raise UsageError(f"{flag} {text}: this is a file; name the folder it is in: {found.parent}")
    scheme, rest = split(text)
    if not rest.strip():
        raise UsageError(f"{flag} is empty; name a folder or a hub id.")
    if (scheme and not _is_path(rest)) or (not _is_path(text) and ID.fullmatch(text)):
        return None
    raise UsageError(f"{flag} {text}: there is no such folder.{near(text)}")


def locate(run: Run, text: str, flag: str, revision: str | None = None) -> Source:
    """Return the folder that ``text`` names, downloading it where it is an id."""
    folder = check(text, flag)
    if folder is not None:
        return Source(folder)
    scheme, rest = split(text)
    hub = run.get("hubs", scheme) if scheme else run.one("hubs")
    try:
        return Source(Path(hub.download(rest, "model", revision, run)), rest)
    except MartletError as error:
        hint = "" if scheme else near(text)
        raise type(error)(f"{flag} {text}: there is no such folder here, and {error}{hint}") from error


def cached(run: Run, text: str, flag: str, revision: str | None = None) -> Source:
    """Return a folder that is on this machine already; ``MartletError`` where it would have to be downloaded."""
    folder = check(text, flag)
    if folder is not None:
        return Source(folder)
    scheme, rest = split(text)
    hub = run.get("hubs", scheme) if scheme else run.one("hubs")
    look = getattr(hub, "cached", None)
    found = look(rest, "model", revision) if look else None
    if found is None:
        raise MartletError(f"{flag} {text} is not on this machine yet; it is downloaded when the run starts.")
    return Source(Path(found), rest)


def _is_path(text: str) -> bool:
    return text.startswith(("/", ".", "~", "\\")) or text.endswith("/") or text.count("/") > 1 or "\\" in text


def near(text: str) -> str:
    """Return " Did you mean ...?" for names beside ``text`` that are spelled like it, or an empty string."""
    path = expand(text)
    wrong, parent = path, path.parent
    try:
        while not parent.is_dir() and parent != parent.parent:
            wrong, parent = parent, parent.parent
        names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(wrong.name, names, n=3, cutoff=0.6)
    if close:
        return f" Did you mean {' or '.join(str(parent / name) for name in close)}?"
    return f" {parent} has no folder {wrong.name}." if wrong != path and parent != Path(".") else ""
