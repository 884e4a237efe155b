"""The ``Run`` that a component is handed; its record: ``run.json`` (what was used, with origins), ``args.json``."""

from __future__ import annotations

import json
import logging
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from .config import Config, Selected
from .errors import MartletError, UsageError, blame
from .manager import PluginManager, kinds
from .sources import Origin, relative_to
from .specs import KINDS, Spec

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Process:
    """Which of a run's processes this is."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    kind: str = "main"  # or "rank", "data worker", "engine worker"

    @classmethod
    def current(cls) -> Process:
        """Read the variables that torchrun sets."""
        rank, local, world = (int(os.environ.get(name) or 0) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        return cls(rank, local, world, "rank") if world > 1 else cls()


class Record:
    """Facts of one run. Written once the run has a folder, and again whenever a fact is added."""

    def __init__(self, config: Config, process: Process) -> None:
        self.config, self.process = config, process
        self.components: list[dict[str, str]] = []
        self.notes: dict[str, Any] = {}
        self.libraries: dict[str, str] = {}
        self.warnings: list[str] = []
        self.folder: Path | None = None
        self.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self.ended: dict[str, str] | None = None

    def values(self) -> dict[str, Any]:
        """Return every setting but secrets: what ``args.json`` holds."""
        secret = {flag.name for flag in self.config.flags if flag.field.metadata.get("secret")}
        return {name: value for name, value, _ in self._named() if name not in secret}

    def _named(self) -> list[tuple[str, Any, Origin]]:
        names = [flag.name for flag in self.config.flags]
        # A path that exists is recorded whole, so that it is found from any folder.
        rows = [(f, relative_to(Path(), f.field, value), origin) for f, value, origin in self.config]
        return [(f.name if names.count(f.name) == 1 else f.key, value, origin) for f, value, origin in rows]

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` holds."""
        names = self.config.participants() | {row["plugin"] for row in self.components}
        rows = [row for name, row in sorted(self.config.manager.plugins.items()) if name in names]
        shown = self.values()
        settings = {name: {"value": shown.get(name, "***"), "origin": str(o)} for name, _, o in self._named()}
        given = self.config.options.items()
        options = {f"{KINDS[kind].label}.{name}.{key}": v for (kind, name), many in given for key, v in many.items()}
        plugins = [{"name": r.name, "origin": r.origin, "version": r.version, "sha256": r.sha256} for r in rows]
        used = sorted(self.components, key=lambda row: (row["kind"], row["name"]))
        return {
            "format": 1, "command": self.config.command.name, "started": self.started, "ended": self.ended,
            "plugins": plugins, "components": used, "settings": settings, "options": options,
            "libraries": self.libraries, "python": platform.python_version(), "platform": platform.platform(),
            "world_size": self.process.world_size, "notes": self.notes, "warnings": self.warnings,
        }  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write both files for the first time."""
        self.folder = folder
        self.libraries = {name: dist.version for name in LIBRARIES for dist in metadata.distributions(name=name)}
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
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
    try:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file name may hold any byte
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise MartletError(f"{path}: cannot be written ({error.strerror or error}).") from error


def notify(hooks: list[Callable[..., None]], facts: Mapping[str, Any], worker_id: int = 0) -> None:
    """Call hooks with those facts that they declare. Pickles, so it starts data workers as well."""
    for hook in hooks:
        wanted = hook.__code__.co_varnames[: hook.__code__.co_argcount]
        hook(**{name: value for name, value in facts.items() if name in wanted})


class _StandardError(logging.StreamHandler[Any]):
    stream = property(lambda self: sys.stderr, lambda self, value: None)


class Run:
    """One execution of a command. There is no global state beside it."""

    def __init__(self, config: Config, words: list[str] | None = None, process: Process | None = None) -> None:
        self.config = config
        self.words = words or []  # of the command line: all, or what followed a command with ``raw=True``
        self.process = process or Process.current()
        self.manager: PluginManager = config.manager
        self.command: str = config.command.name
        self.seed: int = config.value("seed")
        self.logger = logging.getLogger("martlet")
        rank = self.process.rank  # of several processes the first one speaks; the others warn
        self.logger.setLevel("WARNING" if rank else str(config.value("log_level")).upper())
        if not self.logger.handlers:
            self.logger.addHandler(_StandardError())
        shown = f"[rank {rank}] " * bool(rank) + "%(levelname)s: %(message)s"
        self.logger.handlers[0].setFormatter(logging.Formatter(shown))
        self.folder: Path | None = None  # the output folder, once ``open`` was called
        self.record = Record(config, self.process)
        self._built: dict[tuple[str, str, str], Any] = {}
        for text in config.warnings:
            self.warn(text)

    def get(self, kind: str | type[Spec], name: str) -> Any:
        """Return a component by ``name`` or ``plugin::name``, built once a run, and record its use."""
        return self._build(*self.manager.find(kinds(kind), name))

    def spec(self, kind: str | type[Spec], name: str) -> Spec:
        """Return the facts of a component without building it."""
        return self.manager.find(kinds(kind), name)[1]

    def selected(self, kind: str | type[Spec]) -> list[Spec]:
        """Return the specs that the user's flags chose, in the user's order."""
        return [item.spec for item in self._selected(kind)]

    def one(self, kind: str | type[Spec]) -> Any:
        """Return the one component that a flag chose; ``UsageError`` if there is none, or more."""
        found = self._selected(kind)
        if len(found) == 1:
            return self._build(found[0].plugin, found[0].spec)
        flags = " and ".join(f"--{item.flag} ({item.spec.name})" for item in found)
        why = f"{flags} chose several" if found else "no flag chose one"
        raise UsageError(f"{self.command} needs a {kinds(kind).label}: {why}.")

    def all(self, kind: str | type[Spec]) -> list[Any]:
        """Return every component that the user's flags chose, in the user's order."""
        return [self._build(item.plugin, item.spec) for item in self._selected(kind)]

    def _selected(self, kind: str | type[Spec]) -> list[Selected]:
        if fault := self.config.missing.get(kinds(kind).kind):
            raise fault
        return self.config.selections.get(kinds(kind).kind, [])

    def _build(self, plugin: str, spec: Spec) -> Any:
        key = (spec.kind, plugin, spec.name)
        if key not in self._built:
            with blame(plugin, f"making {spec.label} {spec.name!r}"):
                self._built[key] = self.manager.build(spec, self.config.options.get((spec.kind, spec.name)))
            self.record.components.append({"kind": spec.kind, "name": spec.name, "plugin": plugin})
            self.record.save()
        return self._built[key]

    def open(self, folder: Path) -> None:
        """Create the output folder and write ``args.json`` and ``run.json`` into it."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.folder = folder.resolve()
            if self.process.rank == 0:
                self.record.write(self.folder)
        except OSError as error:
            raise UsageError(f"--output_dir {folder}: cannot be written ({error.strerror or error}).") from error

    def note(self, key: str, value: Any) -> None:
        """Add a fact to ``run.json``."""
        self.record.notes[key] = value
        self.record.save()

    def warn(self, text: str) -> None:
        """Tell the user once, and keep it in ``run.json``. For what all processes find; else ``logger.warning``."""
        if text not in self.record.warnings and self.process.rank == 0:
            self.logger.warning("%s", text)
            self.record.warnings.append(text)
            self.record.save()

    @property
    def worker_init(self) -> Callable[[int], None]:
        """A picklable ``worker_init_fn`` for data loaders."""
        hooks = [hook for _, hook in self.manager.implementations("on_process_start", self.config.participants())]
        return partial(notify, hooks, {"process": replace(self.process, kind="data worker")})

    def emit(self, event: str, **facts: Any) -> None:
        """Tell the participating plugins of an event. Their errors name them."""
        for plugin, hook in self.manager.implementations(event, self.config.participants()):
            with blame(plugin, f"running {event}()"):
                notify([hook], facts)

    def execute(self) -> Any:
        """Run the command's target between the events, and close the record with what ended it."""
        if self.config.command.raw:
            return self.manager.build(self.config.command)(self)
        random.seed(self.seed)
        self.emit("on_process_start", process=self.process)
        self.emit("on_config", config=self.config)  # may refuse, so it comes before anything heavy is imported
        if self.words and self.process.kind == "main" and self.selected("launchers"):
            return self.one("launchers")(self)
        target = self.manager.build(self.config.command)
        error: BaseException | None = None
        try:
            self.emit("on_run_start", run=self)
            return target(self)
        except BaseException as caught:
            error = caught
            raise
        finally:
            try:
                self.record.end(error)
                self.emit("on_run_end", run=self, error=error)
            except MartletError as late:
                if error is None:
                    raise
                print(f"warning: {late}", file=sys.stderr)
