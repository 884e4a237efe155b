"""Home of ``--external_plugins``: ``my_reward.py`` is importable as ``martlet.external.my_reward``.

The list travels in an environment variable, so any child process can unpickle an object defined in one of them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from .errors import UsageError

PACKAGE = "martlet.external"
VARIABLE = "MARTLET_EXTERNAL_PLUGINS"
loaded: dict[str, str] = {}  # module name -> SHA-256 of what was loaded


def references() -> list[str]:
    """Return what the environment lists: absolute paths and dotted module names."""
    return [entry for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]


def _is_path(reference: str) -> bool:
    return reference.endswith(".py") or os.sep in reference or os.path.exists(reference)


def _stem(reference: str) -> str:
    return Path(reference).stem.replace("-", "_")


class _Loader(SourceFileLoader):
    def path_stats(self, path: Any) -> Any:  # read the source: a file edited within a second has old bytecode
        raise OSError


class _Finder:  # resolves ``martlet.external.NAME`` to a listed file or folder
    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != PACKAGE:
            return None
        for entry in references():
            if not _is_path(entry) or _stem(entry) != name:
                continue
            init, inside = (f"{entry}/__init__.py", [entry]) if os.path.isdir(entry) else (entry, None)
            loader = _Loader(fullname, init)
            return spec_from_file_location(fullname, init, loader=loader, submodule_search_locations=inside)
        return None


sys.meta_path.append(_Finder)


def add(reference: str) -> str:
    """List a file, package folder or dotted module for every child process; return its module name."""
    if _is_path(reference):
        file, flag = Path(reference).expanduser().resolve(), f"--external_plugins {reference}"
        if not (file / "__init__.py" if file.is_dir() else file).is_file() or (file.suffix != ".py" and file.is_file()):
            what = "has no __init__.py" if file.is_dir() else "is no .py file" if file.exists() else "does not exist"
            raise UsageError(f"{flag}: {file} {what}. Give a .py file, a package folder or a module.")
        if os.pathsep in str(file):
            raise UsageError(f"{flag}: a path with {os.pathsep!r} cannot be handed to child processes; rename it.")
        if not _stem(str(file)).isidentifier():
            raise UsageError(f"{flag}: {file.stem!r} is not a Python name; rename the file.")
        for other in references():
            if _is_path(other) and _stem(other) == _stem(str(file)) and other != str(file):
                raise UsageError(f"{flag}: {other} and {file} have the same module name; rename one of them.")
        reference = str(file)
        name, seen = f"{PACKAGE}.{_stem(reference)}", digest(reference)
        if loaded.setdefault(name, seen) != seen:
            loaded[name] = seen
            for stale in [module for module in sys.modules if f"{module}.".startswith(f"{name}.")]:
                del sys.modules[stale]
    if reference not in references():
        os.environ[VARIABLE] = os.pathsep.join([*references(), reference])
    return f"{PACKAGE}.{_stem(reference)}" if _is_path(reference) else reference


@contextmanager
def remembered() -> Iterator[None]:
    """Put the environment variable back as it was."""
    before = {name: value for name, value in os.environ.items() if name == VARIABLE}
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        os.environ.update(before)


def digest(path: str) -> str:
    """Return the SHA-256 of a file, or of the ``.py`` files of a folder and their paths."""
    root = Path(path)
    if root.is_file():
        return hashlib.sha256(root.read_bytes()).hexdigest()
    sums = [f"{digest(str(file))}  {file.relative_to(root)}\n" for file in sorted(root.rglob("*.py"))]
    return hashlib.sha256("".join(sums).encode()).hexdigest()
