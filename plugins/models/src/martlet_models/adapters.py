"""``--adapters``: names and folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from martlet import UsageError

from . import source
from .written import check_adapter

if TYPE_CHECKING:
    from martlet import Run

NAME = re.compile(r"[\w\-]+")


def split_name(entry: str) -> tuple[str, str]:
    """Split ``name=folder``; the name is empty where none is given."""
    name, equals, text = entry.partition("=")
    if equals and NAME.fullmatch(name) and source.local(entry) is None:
        return name, text
    return "", entry


def find(run: Run, entries: list[str]) -> list[tuple[str, Path]]:
    """Return ``(name, folder)`` of each adapter, downloading ids. A name is the given one, else the folder's.

    Every name is unique and fit to be a module's: a dot becomes an underscore. ``CheckpointError`` where the weights
    are not as training wrote them.
    """
    found: list[tuple[str, Path]] = []
    for entry in entries:
        given, text = split_name(entry)
        place = source.locate(run, text, "--adapters")
        check_adapter(place.folder)
        name = given or re.sub(r"[^\w\-]", "_", (place.id or place.folder.name).rpartition("/")[2])
        taken = {known for known, _ in found}
        if given and given in taken:
            raise UsageError(f"--adapters {entry}: the name {given!r} is used twice; choose another.")
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        found.append((unique, place.folder))
    return found
