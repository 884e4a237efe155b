"""Every error that Martlet raises on purpose: what is wrong, where (flag, file, row, plugin) and what to do next."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from traceback import extract_tb


class MartletError(Exception):
    """Base of them all: the run failed."""

    exit_code = 1


class UsageError(MartletError):
    """The command, a flag or a value is wrong; nothing was started."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file, or a combination of settings, is wrong."""


class DataError(MartletError):
    """A dataset cannot be used as it is."""


class CheckpointError(MartletError):
    """A checkpoint is incomplete, altered or does not fit this run."""


class UnknownComponent(UsageError):
    """No loaded plugin provides the name."""


class AmbiguousComponent(UsageError):
    """Two plugins provide the requested name."""


class PluginError(UsageError):
    """A plugin broke its contract; ``plugin`` and ``phase`` say which and when."""

    def __init__(self, plugin: str, phase: str, cause: BaseException) -> None:
        super().__init__(f"plugin {plugin!r} failed while {phase}: {told(cause)}")
        self.plugin, self.phase, self.__cause__ = plugin, phase, cause


def told(cause: BaseException, *callers: str) -> str:
    """Return an error as a sentence: our own as it is, an accident with its type and its place.

    The place is the innermost line of a plugin: the first file outside the kernel and ``callers`` names its folder.
    """
    if isinstance(cause, MartletError):
        return str(cause)
    places = [(os.path.dirname(f.filename), f"{f.filename}:{f.lineno}") for f in extract_tb(cause.__traceback__)]
    callers = ("", *map(os.path.dirname, (__file__, *callers)))
    own = [place for place in places if place[0] not in callers and "importlib" not in place[0]]
    where = next((f" ({place})" for folder, place in reversed(own) if folder == own[0][0]), "")
    return f"{type(cause).__name__}: {cause}{where}"


@contextmanager
def blame(plugin: str, phase: str) -> Iterator[None]:
    """Turn an accident into a ``PluginError`` that names the plugin; let our own errors through."""
    try:
        yield
    except MartletError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(plugin, phase, error) from error


def suggest(name: str, known: Iterable[str], *, listed: str = "Known") -> str:
    """Return "Did you mean ...?" for the nearest of ``known``, or the list of them, unless ``listed`` is empty."""
    names = sorted(set(known))
    if close := difflib.get_close_matches(str(name), names, n=3):
        return f"Did you mean {' or '.join(close)}?"
    shown = names if len(names) < 50 else [*difflib.get_close_matches(str(name), names, n=9, cutoff=0), "…"]
    return f"{listed}: {', '.join(shown) or 'none'}." if listed else ""
