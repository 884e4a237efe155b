"""From what the user wrote to tables of rows: files, folders, named datasets, hubs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet.errors import DataError, MartletError, UsageError
from martlet.specs import Dataset, DatasetSource, Hub

from .convert import Converter, layouts_of
from .folders import data_files, subsets
from .references import Reference, parse
from .resolve import check_one, reader_of, suffixes_of
from .rows import LINE, Held, Joined, RowTable

if TYPE_CHECKING:
    from martlet.run import Run

_PEEK = 64
"""Rows whose columns decide which plugins' layouts are loaded."""
_LARGE = 1 << 28
"""Bytes of a file that is worth a word in the log."""


@dataclass
class Opened:
    """A dataset whose rows can be read."""

    label: str
    """As the user wrote it."""
    count: int | None
    """How many rows to draw; None for all of them."""
    table: Joined
    files: list[str]
    """One for each table of ``table``."""
    converter: Converter


def open_dataset(run: Run, text: str, flag: str, columns: dict[str, str] | None) -> Opened:
    """Open what one entry of --dataset or --val_dataset names.

    ``UsageError`` when there is nothing of that name, ``DataError`` when a file cannot be read at all.
    """
    reference = parse(text, flag)
    check_one(reference, flag, run.config)
    splits = ("train",) if flag == "--dataset" else ("validation", "test", "train")
    spec = _named(run, reference)
    if spec is not None:
        parts, target = _open_named(run, reference, flag, spec)
    else:
        parts, target = _open_unnamed(run, reference, flag, splits), None
    table = Joined([table for _, table in parts])
    if not len(table):
        raise DataError(f"{flag} {text}: it holds no rows.")
    converter = Converter([], columns or {}, target, label=reference.name)
    converter.layouts = layouts_of(run, _peek(table, columns or {}))
    return Opened(text, reference.count, table, [file for file, _ in parts], converter)


Parts = list[tuple[str, RowTable]]


def _named(run: Run, reference: Reference) -> Dataset | None:
    if reference.path is not None:
        return None
    name = f"{reference.scheme}::{reference.name}" if reference.scheme else reference.name
    specs = run.manager.specs(Dataset)
    if any(name in (spec.name, f"{plugin}::{spec.name}") for plugin, spec in specs):
        return run.manager.find(Dataset, name)[1]
    return None


def _open_named(run: Run, reference: Reference, flag: str, spec: Dataset) -> tuple[Parts, Any]:
    target = None
    if spec.target is not None:
        name = f"{reference.scheme}::{reference.name}" if reference.scheme else reference.name
        target = run.get(Dataset, name)
    names = reference.subsets or (("default",) if "default" in spec.subsets else spec.subsets[:1])
    if names == ("all",):
        names = spec.subsets
    if unknown := [name for name in names if name not in (*spec.subsets, "default")]:
        known = ", ".join(spec.subsets)
        raise UsageError(f"{flag} {reference.text}: there is no subset {unknown[0]!r}. Subsets: {known}.")
    if "file" in spec.source:
        path = Path(spec.source["file"]).expanduser()
        if not path.exists():
            raise DataError(
                f"{flag} {reference.text}: dataset {spec.name!r} is said to be at {path}, which is not there."
            )
        return _open_path(run, path, names, (spec.split,)), target
    for _, source in run.manager.specs(DatasetSource):
        if source.name in spec.source:
            place = spec.source[source.name]
            return _open_source(run, source.name, place, names, spec.split), target
    scheme = next((s.name for s in run.selected(Hub) if s.name in spec.source), "")
    if not scheme:
        there = " or ".join(f"--hub {name}" for name in spec.source) or "no hub at all"
        raise UsageError(f"{flag} {reference.text}: dataset {spec.name!r} is not on the chosen hub; it is on: {there}.")
    folder = _download(run, run.get(Hub, scheme), spec.source[scheme], f"{flag} {reference.text}: ")
    return _open_path(run, folder, names, (spec.split,)), target


def _open_unnamed(run: Run, reference: Reference, flag: str, splits: Sequence[str]) -> Parts:
    if reference.path is not None:
        if reference.path.is_file() and reference.subsets:
            raise UsageError(
                f"{flag} {reference.text}: a file has no subsets; write {reference.name} "
                "(':subset' is for folders and hub datasets)."
            )
        return _open_path(run, reference.path, reference.subsets, splits)
    hubs = {spec.name for _, spec in run.manager.specs(Hub)}
    if reference.scheme and reference.scheme not in hubs:
        return _open_source(run, reference.scheme, reference.name, reference.subsets, splits[0])
    hub = run.get(Hub, reference.scheme) if reference.scheme else run.one(Hub)
    where = f"{flag} {reference.text}: "
    if not reference.scheme:
        where += "there is no such file or folder here (check the path), and "
    return _open_path(run, _download(run, hub, reference.name, where), reference.subsets, splits)


def _download(run: Run, hub: Any, id: str, where: str) -> Path:
    """Return the folder of a hub's dataset; ``where`` goes before what the hub says of a failure."""
    try:
        return Path(hub.download(id, "dataset", None, run))
    except MartletError as error:
        raise type(error)(f"{where}{error}") from error


def _open_source(run: Run, scheme: str, place: str, names: Sequence[str], split: str) -> Parts:
    """Open ``scheme::place`` with the source of that name."""
    source = run.get(DatasetSource, scheme)
    return [(place, _read(run, source, scheme, place, name, split)) for name in names or ("default",)]


def _open_path(run: Run, path: Path, names: Sequence[str], splits: Sequence[str]) -> Parts:
    if path.is_file():
        return [(str(path), _open_file(run, path, "default", splits[0]))]
    endings = suffixes_of(run.manager)
    if tuple(names) == ("all",):
        names = subsets(path, endings)
    parts: Parts = []
    for name in names or ("default",):
        found = data_files(path, endings, name, splits)
        if found.left:
            run.warn(
                f"{path}: {len(found.files)} {found.files[0].suffix} files are read. Not read, because of their name "
                f"or format: {', '.join(p.name for p in found.left[:5])}. Name the files themselves to read them."
            )
        run.logger.info("%s: split %s, %d files", path, found.split, len(found.files))
        parts += [(str(file), _open_file(run, file, name, found.split)) for file in found.files]
    return parts


def _open_file(run: Run, path: Path, subset: str, split: str) -> RowTable:
    plugin, spec = reader_of(path, run.manager)
    if (size := path.stat().st_size) > _LARGE:
        run.logger.info("Reading %s (%.1f GiB)", path, size / 2**30)
    return _read(run, run.get(DatasetSource, f"{plugin}::{spec.name}"), spec.name, str(path), subset, split)


def _read(run: Run, source: Any, name: str, path: str, subset: str, split: str) -> RowTable:
    try:
        found = source(path, subset=subset, split=split, run=run)
        if hasattr(found, "take") and hasattr(found, "__len__"):
            return found  # type: ignore[no-any-return]
        rows = _checked(found, name, path)
    except MartletError:
        raise
    except Exception as error:
        raise DataError(f"{path}: dataset source {name!r} failed: {type(error).__name__}: {error}") from error
    return Held(rows)


def _checked(rows: Iterable[Any], name: str, path: str) -> list[dict[str, Any]]:
    found = list(rows)
    for place, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: dataset source {name!r} gave {type(row).__name__} as row {place}, not a dict.")
    return found


def _peek(table: Joined, columns: dict[str, str]) -> list[frozenset[str]]:
    """Return the sets of columns of the first rows, renamed."""
    rows = table.take(range(min(_PEEK, len(table))))
    return list({frozenset(columns.get(name, name) for name in row if name != LINE) for row in rows})
