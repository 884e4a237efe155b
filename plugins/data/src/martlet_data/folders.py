"""Which files of a folder are a dataset: by its README's ``configs``, else by the names of folders and files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from martlet.errors import DataError, suggest

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_NOT_DATA = re.compile(r"(dataset_infos?|dataset_dict|state|config|package|.*\.index)\.json")


@dataclass(frozen=True)
class Found:
    """The files of one subset."""

    files: list[Path]
    split: str
    left: list[Path] = field(default_factory=list)
    """Files of the same split in another format, which are not read."""


def data_files(folder: Path, suffixes: Sequence[str], subset: str, splits: Sequence[str]) -> Found:
    """Find the files of a subset in the first of ``splits`` that there is.

    ``DataError`` names what there is when subset, split or files are missing.
    """
    files = sorted(p for p in folder.rglob("*") if _is_data(p, folder, suffixes))
    if not files:
        raise DataError(f"{folder}: no data file in it. Known endings: {', '.join(sorted(suffixes))}.")
    declared = _declared(folder, files)
    if declared:
        name = subset if subset != "default" or "default" in declared else _only(folder, declared)
        if name not in declared:
            raise DataError(f"{folder}: there is no subset {name!r}. {suggest(name, declared, listed='Subsets')}")
        return _choose(folder, declared[name], splits)
    by_split: dict[str, list[Path]] = {}
    for file in files if subset == "default" else _inside(folder, files, subset):
        by_split.setdefault(_split_of(file.relative_to(folder).as_posix()) or "", []).append(file)
    unnamed = by_split.pop("", [])
    if unnamed and "train" not in by_split:
        by_split["train" if by_split else splits[0]] = unnamed
        unnamed = []
    return _choose(folder, by_split, splits, unnamed)


def subsets(folder: Path, suffixes: Sequence[str]) -> tuple[str, ...]:
    """Name the subsets of a folder, for ``:all``."""
    files = sorted(p for p in folder.rglob("*") if _is_data(p, folder, suffixes))
    return tuple(_declared(folder, files)) or ("default",)


def _inside(folder: Path, files: list[Path], subset: str) -> list[Path]:
    found = [p for p in files if subset in p.relative_to(folder).parts[:-1] or p.stem == subset]
    if not found:
        there = {part for p in files for part in p.relative_to(folder).parts[:-1] if not _split_of(part)}
        raise DataError(f"{folder}: there is no subset {subset!r}. {suggest(subset, there, listed='Subsets')}")
    return found


def _is_data(path: Path, folder: Path, suffixes: Sequence[str]) -> bool:
    hidden = any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
    return path.suffix.lower() in suffixes and not hidden and not _NOT_DATA.fullmatch(path.name) and path.is_file()


def _split_of(name: str) -> str:
    """Return the split that a folder or file name tells: ``data/train-00000.parquet`` -> ``train``."""
    words = re.split(r"[/._\-\s]+|(?<=[a-z])(?=\d)", name.lower())
    return next((split for split, spellings in SPLITS.items() if set(words) & set(spellings)), "")


def _choose(
    folder: Path, by_split: dict[str, list[Path]], splits: Sequence[str], unnamed: Sequence[Path] = ()
) -> Found:
    for split in splits:
        if by_split.get(split):
            files = by_split[split]
            counts = Counter(p.suffix.lower() for p in files)
            most = max(counts, key=lambda suffix: (counts[suffix], suffix == ".parquet", suffix))
            chosen = [p for p in files if p.suffix.lower() == most]
            return Found(chosen, split, [*(p for p in files if p not in chosen), *unnamed])
    there = ", ".join(sorted(by_split)) or "none"
    raise DataError(f"{folder}: there is no split {' or '.join(splits)}. Splits: {there}.")


def _only(folder: Path, declared: dict[str, Any]) -> str:
    if len(declared) == 1:
        return next(iter(declared))
    raise DataError(f"{folder}: it has several subsets; name one: {', '.join(f'…:{name}' for name in declared)}.")


def _declared(folder: Path, files: list[Path]) -> dict[str, dict[str, list[Path]]]:
    """Read subset -> split -> files from the front matter of README.md."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    match = re.match(r"---\r?\n(.*?)\n---", readme.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    if not match:
        return {}
    import yaml

    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return {}
    configs = front.get("configs") if isinstance(front, dict) else None
    found: dict[str, dict[str, list[Path]]] = {}
    for config in configs if isinstance(configs, list) else []:
        if isinstance(config, dict) and config.get("data_files"):
            splits = _patterns(folder, config["data_files"], files)
            if any(splits.values()):
                found[str(config.get("config_name", "default"))] = splits
    return found


def _patterns(folder: Path, declared: Any, files: list[Path]) -> dict[str, list[Path]]:
    """Resolve ``data_files``: a pattern, a list of them, or [{split, path}]. Only files inside the folder count."""
    items = declared if isinstance(declared, list) else [declared]
    found: dict[str, list[Path]] = {}
    for item in items:
        split = str(item.get("split", "train")) if isinstance(item, dict) else "train"
        paths = item.get("path", []) if isinstance(item, dict) else item
        for pattern in paths if isinstance(paths, list) else [paths]:
            wanted = re.sub(r"\*\*/?", "*", str(pattern).removeprefix("./"))
            matched = [p for p in files if _fits(p.relative_to(folder).as_posix(), wanted)]
            found.setdefault(split, []).extend(p for p in matched if p not in found.get(split, []))
    return found


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or name.startswith(pattern.rstrip("/") + "/")
