"""Martlet: fine-tune, align, run and serve language models with plugins.

``martlet.run("sft", model=..., dataset=[...])`` takes native values, raises Martlet's errors, works in a notebook.
"""

# ruff: noqa: I001
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .cli import load_plugins
from .config import Config, resolve
from .external_plugins import remembered
from .errors import AmbiguousComponent, CheckpointError, ConfigError, DataError, MartletError
from .errors import PluginError, UnknownComponent, UsageError
from .hookspecs import hookimpl
from .manager import Plugin, PluginManager
from .run import Process, Run
from .sources import Origin
from .specs import KINDS, AgentTemplate, Arguments, Callback, Command, Dataset, DatasetSource, Engine, Hub
from .specs import Launcher, Loss, LossScale, Model, ModelPatch, Preprocessor, Reward, Spec, Template, Trainer, Tuner

__all__ = [
    "KINDS", "AgentTemplate", "AmbiguousComponent", "Arguments", "Callback", "CheckpointError", "Command", "Config",
    "ConfigError", "DataError", "Dataset", "DatasetSource", "Engine", "Hub", "Launcher", "Loss", "LossScale",
    "MartletError", "Model", "ModelPatch", "Origin", "Plugin", "PluginError", "PluginManager", "Preprocessor",
    "Process", "Reward", "Run", "Spec", "Template", "Trainer", "Tuner", "UnknownComponent", "UsageError", "arguments",
    "get", "hookimpl", "prepare", "run",
]  # fmt: skip


def run(command: Any, /, **settings: Any) -> Any:
    """Run a command by name (or an object of ``arguments``) and return what it returns.

    ``sft`` and the other training commands return a ``protocols.TrainResult``. Raises ``MartletError``.
    """
    if dataclasses.is_dataclass(command) and not isinstance(command, type):
        given = {f.name: getattr(command, f.name) for f in dataclasses.fields(command)}
        settings = {name: value for name, value in given.items() if value is not UNSET} | settings
        command = getattr(command, "command", "")
    with remembered():
        return prepare(command, **settings).execute()


def prepare(command: str = "", /, *, roles: Sequence[str] = (), **settings: Any) -> Run:
    """Resolve settings without running anything, for a command or for argument groups by their roles."""
    manager, files = load_plugins(settings)
    spec = manager.find(Command, command)[1] if command else Command("session", print, roles=tuple(roles))
    return Run(resolve(spec, manager, files, {name: (value, Origin("code")) for name, value in settings.items()}))


def get(kind: str, name: str, /, **settings: Any) -> Any:
    """Return a component by name, outside any run: ``martlet.get("engines", "transformers")``."""
    return prepare(**settings).get(kind, name)


def arguments(command: str, /, **settings: Any) -> type:
    """Return a dataclass with every flag of a command as a typed, documented field; ``run`` takes its objects."""
    with remembered():
        config = prepare(command, **settings).config
    fields = {flag.name: flag.field for flag in config.flags}
    shape = [(f.name, f.type, dataclasses.field(default=UNSET, kw_only=True)) for f in fields.values()]
    text = "\n".join(f"{f.name}: {f.help}" for f in fields.values())
    name = f"{command.title().replace(' ', '').replace('-', '')}Arguments"
    return dataclasses.make_dataclass(name, shape, namespace={"command": command, "__doc__": text})


UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET"})()  # not given: as if not typed
