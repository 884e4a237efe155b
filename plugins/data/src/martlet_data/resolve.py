"""Refuse dataset flags that cannot work, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from martlet.errors import UsageError, suggest
from martlet.specs import Dataset, DatasetSource, Hub

from .args import DataArguments
from .references import HUB_ID, Reference, missing, parse

if TYPE_CHECKING:
    from martlet.config import Config
    from martlet.manager import PluginManager

PLUGIN = "data"
"""This plugin's own name: its entry point."""


def check(config: Config) -> None:
    """Implement ``on_config``: every dataset must be a file, a folder, a known name, or look like a hub id."""
    if DataArguments not in config:
        return
    data = config[DataArguments]
    for flag, texts in (("--dataset", data.dataset), ("--val_dataset", data.val_dataset)):
        for text in texts:
            check_one(parse(text, flag), flag, config)


def check_one(reference: Reference, flag: str, config: Config) -> None:
    """Raise ``UsageError`` for a reference that can lead nowhere."""
    manager = config.manager
    if reference.path is not None:
        if reference.path.is_file() and not reference.scheme:
            reader_of(reference.path, manager, f"{flag} {reference.text}")
        return
    names = [spec.name for _, spec in manager.specs(Dataset)]
    if reference.scheme:
        schemes = {spec.name for _, spec in [*manager.specs(Hub), *manager.specs(DatasetSource)]}
        owners = {plugin for plugin, _ in manager.specs(Dataset)}
        if reference.scheme not in schemes | owners:
            near = suggest(reference.scheme, schemes | owners, listed="Hubs, sources and plugins")
            raise UsageError(f"{flag} {reference.text}: nothing is called {reference.scheme!r}. {near}")
        files = [spec.name for _, spec in manager.specs(DatasetSource) if spec.suffixes]
        if reference.scheme in files and not Path(reference.name).expanduser().exists():
            raise UsageError(missing(reference, flag))
        if reference.scheme not in schemes:
            manager.find(Dataset, f"{reference.scheme}::{reference.name}")
        return
    if reference.name in names:
        return
    if reference.path_like:
        raise UsageError(missing(reference, flag))
    if "/" in reference.name and Path(reference.name).parent.is_dir():
        raise UsageError(f"{missing(reference, flag)} For a hub's dataset write HUB::{reference.name}.")
    if not HUB_ID.fullmatch(reference.name):
        near = suggest(reference.name, names, listed="Named datasets")
        raise UsageError(f"{missing(reference, flag)} Nor is it a named dataset, nor a hub id (owner/name). {near}")


def suffixes_of(manager: PluginManager) -> tuple[str, ...]:
    """Return every file ending that some source reads."""
    return tuple(sorted({suffix for _, spec in manager.specs(DatasetSource) for suffix in spec.suffixes}))


def reader_of(path: Path, manager: PluginManager, where: str = "") -> tuple[str, DatasetSource]:
    """Return plugin and spec of the source that reads a file: the user's own, else ours, else another installed one."""
    found = [pair for pair in manager.specs(DatasetSource) if path.suffix.lower() in pair[1].suffixes]
    if not found:
        known = ", ".join(suffixes_of(manager))
        raise UsageError(
            f"{where or path}: no source reads {path.suffix or 'files without an ending'!r}. Known endings: {known}. "
            f"Rename the file, or say how to read it: csv::{path}, say."
        )
    return min(found, key=lambda pair: (not manager.plugins[pair[0]].external, pair[0] != PLUGIN, pair[0]))
