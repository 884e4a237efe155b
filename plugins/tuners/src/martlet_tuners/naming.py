"""Find modules and parameters by what a flag says, and complain about what is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable

from martlet import UsageError
from martlet.errors import suggest


def pattern(flag: str, text: str) -> re.Pattern[str]:
    """Compile the regular expression of a flag."""
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--{flag} {text}: not a regular expression: {error}.") from error


def ends_with(name: str, end: str) -> bool:
    """Tell whether a dotted name is ``end`` or ends with it, whole parts only."""
    return name == end or name.endswith(f".{end}")


def check_ends(flag: str, ends: Iterable[str], names: Iterable[str], what: str) -> None:
    """Refuse an end that no name has; suggest last parts of names that are spelled like it."""
    known = [name for name in names if name]
    for end in ends:
        if not any(ends_with(name, end) for name in known):
            raise UsageError(f"--{flag} {end}: the model has no {what} of this name. {_nearest(end, known)}")


def check_starts(flag: str, starts: Iterable[str], names: Iterable[str]) -> None:
    """Refuse a beginning that no parameter has; suggest beginnings of as many parts."""
    known = list(names)
    for start in starts:
        if not any(name.startswith(start) for name in known):
            parts = start.rstrip(".").count(".") + 1
            beginnings = {".".join(name.split(".")[:parts]) for name in known}
            hint = suggest(start, beginnings, listed="They begin with")
            raise UsageError(f"--{flag} {start}: no parameter of the model begins with it. {hint}")


def _nearest(end: str, names: list[str]) -> str:
    parts = end.count(".") + 1
    endings = {".".join(name.split(".")[-parts:]) for name in names}
    words = {ending for ending in endings if not ending.rpartition(".")[2].isdigit()}
    return suggest(end, words, listed="It has")
