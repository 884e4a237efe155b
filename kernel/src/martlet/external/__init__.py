"""Home of ``--external_plugins``: ``my_reward.py`` is importable as ``martlet.external.my_reward``.

The list of files travels in an environment variable, so any child process (torchrun rank, spawned data
worker, inference engine) can unpickle an object defined in one of them: importing this package is all it takes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

from ..errors import UsageError

VARIABLE = "MARTLET_EXTERNAL_PLUGINS"
_loaded: dict[str, str] = {}


def references() -> list[str]:
    """Return what the environment lists: absolute paths and dotted module names."""
    return [entry for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]


def module_name(reference: str) -> str:
    """Return the name under which a file, folder or dotted module is imported."""
    return f"{__name__}.{_stem(reference)}" if _is_path(reference) else reference


def _is_path(reference: str) -> bool:
    return reference.endswith(".py") or os.sep in reference or Path(reference).is_dir()


def _stem(reference: str) -> str:
    return Path(reference).stem.replace("-", "_")


class _Finder:
    """Resolve ``martlet.external.NAME`` to a listed file or folder."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != __name__:
            return None
        for entry in references():
            if not _is_path(entry) or _stem(entry) != name:
                continue
            if os.path.isdir(entry):
                init = os.path.join(entry, "__init__.py")
                return spec_from_file_location(fullname, init, submodule_search_locations=[entry])
            return spec_from_file_location(fullname, entry)
        return None


sys.meta_path.append(_Finder)  # type: ignore[arg-type]


def add(reference: str) -> str:
    """List a file, package folder or dotted module for every child process; return its module name."""
    if _is_path(reference):
        file = Path(reference).expanduser().resolve()
        if not file.exists() or (file.is_dir() and not (file / "__init__.py").is_file()):
            what = "has no __init__.py" if file.is_dir() else "does not exist"
            raise UsageError(f"--external_plugins {reference}: {file} {what}. Give a .py file, a package folder or a module.")
        if not _stem(str(file)).isidentifier():
            raise UsageError(f"--external_plugins {reference}: {file.stem!r} is not a Python name; rename the file.")
        twin = [e for e in references() if _is_path(e) and _stem(e) == _stem(str(file)) and e != str(file)]
        if twin:
            raise UsageError(f"--external_plugins: {twin[0]} and {file} have the same module name; rename one of them.")
        reference = str(file)
        name, seen = module_name(reference), digest(reference)
        if _loaded.get(name, seen) != seen:
            for stale in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
                del sys.modules[stale]
        _loaded[name] = seen
    if reference not in references():
        os.environ[VARIABLE] = os.pathsep.join([*references(), reference])
    return module_name(reference)


def remove(reference: str) -> None:
    """Take back ``add``, for a plugin that did not load."""
    gone = {reference, str(Path(reference).expanduser().resolve())}
    os.environ[VARIABLE] = os.pathsep.join(e for e in references() if e not in gone)


def digest(path: str) -> str:
    """Return the SHA-256 of a file, or of the ``.py`` files of a folder and their paths."""
    root = Path(path)
    total = hashlib.sha256()
    for file in [root] if root.is_file() else sorted(root.rglob("*.py")):
        total.update(str(file.relative_to(root.parent)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()
