"""The Python API: ``martlet.run("sft", model=..., dataset=[...])``, and components by name.

It takes native values, raises Martlet's errors, never reads ``sys.argv`` and works in a notebook.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import external
from .config import flags_of, resolve
from .hookspecs import hookimpl
from .manager import PluginManager, open_manager
from .run import Run
from .sources import Origin
from .specs import Command


def run(command: Any, **settings: Any) -> Any:
    """Run a command by name (or an object of ``arguments``) and return what it returns.

    ``sft`` and the other training commands return a ``protocols.TrainResult``. Raises ``MartletError``.
    """
    if not isinstance(command, str):
        given = {f.name: getattr(command, f.name) for f in dataclasses.fields(command)}
        settings = {name: value for name, value in given.items() if value is not UNSET} | settings
        command = type(command).command
    with _environment():
        return prepare(command, **settings).execute()


def prepare(command: str = "", *, roles: Sequence[str] = (), **settings: Any) -> Run:
    """Resolve settings without running anything, for a command or for argument groups by their roles."""
    manager = _manager(settings)
    if command:
        spec = manager.find(Command, command)[1]
    else:
        spec = Command("session", print, roles=tuple(roles))
        manager.add("session", _Session(spec))
    layer = {name: (value, Origin("code")) for name, value in settings.items() if name != "set"}
    return Run(resolve(spec, manager, {}, layer, settings.get("set", ())))


def get(kind: str, name: str, **settings: Any) -> Any:
    """Return a component by name, outside any run: ``martlet.get("engines", "transformers")``."""
    return prepare(**settings).get(kind, name)


def arguments(command: str, **settings: Any) -> type:
    """Return a dataclass with every flag of a command as a typed, documented field; ``run`` takes its objects."""
    manager = _manager(settings)
    fields = {flag.name: flag.field for flag in flags_of(manager.find(Command, command)[1], manager)}
    shape = [(f.name, f.type, dataclasses.field(default=UNSET, kw_only=True)) for f in fields.values()]
    text = "\n".join(f"{f.name}: {f.help}" for f in fields.values())
    name = f"{command.title().replace(' ', '').replace('-', '')}Arguments"
    return dataclasses.make_dataclass(name, shape, namespace={"command": command, "__doc__": text})


UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET"})()
"""A field of ``arguments`` that was not given: its default is resolved as on the command line."""


class _Session:
    def __init__(self, spec: Command) -> None:
        self.spec = spec

    @hookimpl
    def provide_commands(self) -> Iterator[Command]:
        yield self.spec


def _manager(given: dict[str, Any]) -> PluginManager:
    disabled, named = given.get("disable_plugins", ()), given.get("external_plugins", ())
    return open_manager(disabled, bool(given.get("strict_plugins")), named)


@contextmanager
def _environment() -> Iterator[None]:
    before = os.environ.get(external.VARIABLE, "")
    try:
        yield
    finally:
        os.environ[external.VARIABLE] = before
