"""The run record: ``run.json`` says what was used and where each value came from; ``args.json`` the values alone."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config
    from .run import Process

FORMAT = 1
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy")


class Record:
    """Facts of one run. Written once the run has a folder, and again whenever a fact is added."""

    def __init__(self, config: Config, process: Process) -> None:
        self.config, self.process = config, process
        self.components: list[dict[str, str]] = []
        self.notes: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.folder: Path | None = None
        self.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self.ended: dict[str, str] | None = None

    def component(self, kind: str, name: str, plugin: str) -> None:
        """Note that a component was used."""
        self.components.append({"kind": kind, "name": name, "plugin": plugin})
        self.save()

    def values(self) -> dict[str, Any]:
        """Return every setting but secrets: what ``args.json`` holds."""
        return {flag.name: value for flag, value, _ in self.config if not flag.field.metadata.get("secret")}

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` holds."""
        names = self.config.participants() | {row["plugin"] for row in self.components}
        rows = [row for name, row in sorted(self.config.manager.plugins.items()) if name in names]
        shown = self.values()
        settings = {f.name: {"value": shown.get(f.name, "***"), "origin": str(origin)} for f, _, origin in self.config}
        plugins = [{"name": r.name, "origin": r.origin, "version": r.version, "sha256": r.sha256} for r in rows]
        return {
            "format": FORMAT,
            "command": self.config.command.name,
            "started": self.started,
            "ended": self.ended,
            "plugins": plugins,
            "components": sorted(self.components, key=lambda row: (row["kind"], row["name"])),
            "settings": settings,
            "libraries": _versions(LIBRARIES),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "world_size": self.process.world_size,
            "notes": self.notes,
            "warnings": self.warnings,
        }

    def write(self, folder: Path) -> None:
        """Write both files for the first time."""
        self.folder = folder
        write_json(folder / "args.json", self.values())
        self.save()

    def save(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "run.json", self.facts())

    def end(self, error: BaseException | None) -> None:
        """Note what ended the run."""
        outcome = "completed" if error is None else f"{type(error).__name__}: {error}"
        self.ended = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "outcome": outcome}
        self.save()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    os.replace(draft, path)


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    return {name: dist.version for name in names for dist in metadata.distributions(name=name)}
