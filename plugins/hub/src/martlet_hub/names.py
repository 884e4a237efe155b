"""Ids and file names: which are sound, and which files of a repository are worth downloading."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath, PureWindowsPath

from martlet import MartletError, UsageError

PART = r"[A-Za-z0-9_](?:[\w.\-]*[\w\-])?"
ID = re.compile(rf"(?:{PART}/)?{PART}")
OTHER_FORMATS = (
    *("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.gguf", "*.tflite", "*.mlmodel", "*.pth", "*.ckpt"),
    *("onnx/*", "openvino/*", "coreml/*", "original/*", "metal/*", "consolidated*.safetensors"),
)
"""Files of a model repository that hold its weights once more, for other programs."""
TORCH_WEIGHTS = ("pytorch_model*.bin", "pytorch_model*.bin.index.json", "adapter_model.bin", "model*.bin")


def check_id(hub: str, id: str, *, owner: bool) -> None:
    """Refuse what is no id, before any request. ``owner``: the hub knows no ids without one."""
    if not ID.fullmatch(id) or ".." in id or (owner and "/" not in id):
        form = "owner/name" if owner else "owner/name or name"
        raise UsageError(f"{id!r} is no id of {hub}, which looks like {form}.")


def check_revision(revision: str | None) -> None:
    """Refuse a revision that is no branch, tag or commit: it becomes part of a path in the cache."""
    if revision is not None and not is_safe(revision):
        raise UsageError(f"--model_revision {revision}: not the name of a branch, a tag or a commit.")


def check_files(hub: str, id: str, names: Iterable[str]) -> None:
    """Refuse a repository with a file name that leads out of its folder."""
    for name in names:
        if not is_safe(name):
            raise MartletError(
                f"{hub}: {id} has a file named {name!r}, which leads out of its folder; nothing was saved."
            )


def is_safe(name: str) -> bool:
    """Tell whether a name stays below the folder it is joined to, on any system."""
    if not name or "\\" in name or "\0" in name or PureWindowsPath(name).drive:
        return False
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and str(path) == name


def superfluous(names: Iterable[str]) -> list[str]:
    """Return the files of a model repository that need not be downloaded: its weights in other formats."""
    known = list(names)
    formats = [*OTHER_FORMATS]
    if any(name.endswith(".safetensors") for name in known if not matches(name, OTHER_FORMATS)):
        formats += TORCH_WEIGHTS
    return [name for name in known if matches(name, formats)]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a name fits one of the patterns, as both hubs' clients understand them."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
