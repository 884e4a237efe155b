"""The checkpoint index: size and SHA-256 of every file of a checkpoint, written last and compared on resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from martlet.errors import CheckpointError

INDEX = "checkpoint.json"
"""A folder without one is no checkpoint."""
FORMAT = "martlet-checkpoint"
VERSION = 2
"""Raised with every change of what a checkpoint holds, the state of the loop included."""

_NAME = re.compile(r"checkpoint-(\d+)")
_THREADS = 8


class Known(NamedTuple):
    """A folder ``checkpoint-N`` with a readable index; sorts in the order of writing."""

    sequence: int
    step: int
    folder: Path
    files: dict[str, dict[str, Any]]

    @property
    def size(self) -> int:
        return sum(entry["size"] for entry in self.files.values())

    @property
    def written(self) -> float:
        """Seconds since 1970."""
        return (self.folder / INDEX).stat().st_mtime

    def complete(self) -> bool:
        """Every file is there and has its size; nothing is read."""
        return not _problems(self.folder, self.files, sums=False)


class _Unusable(Exception):
    """Why an index cannot be used, as a sentence."""


# Writing


def seal(folder: Path, facts: dict[str, Any], sequence: int) -> None:
    """Flush everything in ``folder`` to the disk and write its index, flushed as well."""
    paths: list[Path] = []
    folders: list[Path] = []
    for parent, directories, names in os.walk(folder):
        folders += [Path(parent, name) for name in directories]
        paths += [Path(parent, name) for name in names]
    paths = sorted(path for path in paths if path != folder / INDEX)
    files = {}
    with ThreadPoolExecutor(_THREADS) as pool:  # hashing and flushing both release the interpreter lock
        jobs = [(pool.submit(_digest, path), pool.submit(flush, path)) for path in paths]
        for path, (digest, flushed) in zip(paths, jobs, strict=True):
            flushed.result()
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest.result()}
    for directory in reversed(folders):
        flush(directory)
    index = {"format": FORMAT, "version": VERSION, "sequence": sequence, "facts": facts, "files": files}
    write_text(folder / INDEX, json.dumps(index, indent=1) + "\n")
    flush(folder)


def flush(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    if os.name != "posix" and path.is_dir():
        return  # only POSIX lets a folder be opened
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a new file and flush it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        data = memoryview(text.encode("utf-8"))
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Reading


def check(folder: Path) -> dict[str, Any]:
    """Compare every file with the index and return the index; ``CheckpointError`` names what differs."""
    try:
        index = _read(folder)
        if problems := _problems(folder, index["files"], sums=True):
            raise _Unusable(f"The checkpoint {folder} is not as it was written: {'; '.join(problems)}.")
    except _Unusable as error:
        raise CheckpointError(f"{error} {_advice(folder)}") from error.__cause__
    return index


def known_checkpoints(output_dir: Path) -> list[Known]:
    """Return the folders ``checkpoint-N`` that have a readable index, in the order of writing."""
    found = []
    with contextlib.suppress(OSError):
        for path in output_dir.iterdir():
            if (match := _NAME.fullmatch(path.name)) and path.is_dir():
                with contextlib.suppress(_Unusable):
                    index = _read(path)
                    found.append(Known(index["sequence"], int(match[1]), path, index["files"]))
    return sorted(found, key=lambda known: known[:2])


def has_index(folder: Path) -> bool:
    """Tell whether ``folder`` got as far as a readable index."""
    try:
        _read(folder)
    except _Unusable:
        return False
    return True


def _read(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise _Unusable(f"There is no checkpoint folder {folder}.") from error
        raise _Unusable(
            f"{folder} has no {INDEX}, so it is a part of a checkpoint or was not written by Martlet; training cannot "
            "continue from it."
        ) from error
    except (OSError, ValueError) as error:
        raise _Unusable(f"{path} cannot be read: {error}.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise _Unusable(f"{path} is not a checkpoint index that Martlet wrote.")
    if index.get("version") != VERSION:
        raise _Unusable(
            f"{path} has format version {index.get('version')}, and this martlet-train reads version {VERSION}: the "
            "checkpoint was made by another version. To continue, install the martlet-train that wrote it."
        )
    if not _well_formed(index):
        raise _Unusable(f"{path} was altered: it is no longer a well-formed checkpoint index.")
    return index


def _well_formed(index: dict[str, Any]) -> bool:
    files = index.get("files")
    if not isinstance(files, dict) or not isinstance(index.get("facts"), dict):
        return False
    # A name that leads out of the folder would have us read other files of this machine.
    inside = not any(os.path.isabs(name) or ".." in Path(name).parts for name in files)
    typed = all(
        isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)
        for entry in files.values()
    )
    return inside and typed and isinstance(index.get("sequence"), int)


def _problems(folder: Path, files: dict[str, dict[str, Any]], *, sums: bool) -> list[str]:
    """Return what is wrong as ``"missing: a, b"``, ``"altered: c"`` ...; empty when nothing is."""
    found: dict[str, list[str]] = {"missing": [], "shorter than written": [], "altered": [], "unreadable": []}
    same_size = []
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            found["missing"].append(name)
        elif (size := path.stat().st_size) < entry["size"]:
            found["shorter than written"].append(f"{name} ({size:,} of {entry['size']:,} bytes)")
        elif size > entry["size"]:
            found["altered"].append(f"{name} ({size:,} instead of {entry['size']:,} bytes)")
        else:
            same_size.append(name)
    if sums:
        with ThreadPoolExecutor(_THREADS) as pool:
            jobs = {name: pool.submit(_digest, folder / name) for name in same_size}
        for name, job in jobs.items():
            if error := job.exception():
                found["unreadable"].append(f"{name} ({getattr(error, 'strerror', None) or error})")
            elif job.result() != files[name]["sha256"]:
                found["altered"].append(name)
    return [f"{what}: {', '.join(sorted(names))}" for what, names in found.items() if names]


def _advice(folder: Path) -> str:
    itself = os.path.realpath(folder)
    for known in reversed(known_checkpoints(Path(itself).parent)):
        if os.path.realpath(known.folder) != itself and known.complete():
            return f"Use {known.folder} instead, or start anew without --resume_from_checkpoint."
    return "Use another copy of it, or start anew without --resume_from_checkpoint."
