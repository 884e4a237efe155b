"""Compare weight files with the checkpoint index that Martlet's training leaves beside them. Without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from martlet import CheckpointError

INDEX = "checkpoint.json"
FORMAT = "martlet-checkpoint"
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")


def check_as_written(folder: Path, files: Iterable[Path], *, sums: bool) -> None:
    """Refuse ``files`` of a checkpoint whose size, or with ``sums`` whose content, is not what its index says.

    Sizes cost nothing, so they are compared whenever a model is loaded. Sums mean reading a file once more: for an
    adapter that is little, for a whole model tens of GiB, so whole models are summed only where their content goes into
    a new model (``merge-lora``). A folder without an index of ours, and a file that it does not name, pass.
    """
    known = _files(folder / INDEX)
    for file in files:
        entry = known.get(file.name)
        if not isinstance(entry, dict) or not file.is_file():
            continue
        size = file.stat().st_size
        if size != entry.get("size"):
            raise _altered(file, f"it has {size:,} bytes, and {INDEX} beside it says {entry.get('size')}")
        if sums and _sum(file) != entry.get("sha256"):
            raise _altered(file, f"its content is not what {INDEX} beside it says (SHA-256)")


def check_adapter(folder: Path) -> None:
    """Refuse the weights of an adapter that are not as training wrote them: size and content."""
    check_as_written(folder, [folder / name for name in ADAPTER], sums=True)


def _files(index: Path) -> dict[str, Any]:
    if not index.is_file():
        return {}
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{index}: not a readable checkpoint index ({error}); use another copy of the checkpoint."
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return {}
    files = found.get("files")
    if not isinstance(files, dict):
        raise CheckpointError(f"{index}: it names no files, so it was altered; use another copy of the checkpoint.")
    return files


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _altered(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file}: altered since training wrote it: {why}. Use another copy or another checkpoint; if you changed it on "
        f"purpose, copy the folder without {INDEX}."
    )
