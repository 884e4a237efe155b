"""The kernel's own plugin: base flags, and commands that answer questions about plugins and settings."""

from __future__ import annotations

from collections.abc import Iterator

from .hookspecs import hookimpl
from .specs import Arguments, Command


@hookimpl
def provide_arguments() -> Iterator[Arguments]:
    yield Arguments("base", "martlet.args:BaseArguments", roles=("base",))
    yield Arguments("plugin", "martlet.args:PluginArguments", roles=("plugin",))
    yield Arguments("show", "martlet.args:ShowArguments", roles=("show",))
    yield Arguments("schema", "martlet.args:SchemaArguments", roles=("schema",))


@hookimpl
def provide_commands() -> Iterator[Command]:
    yield Command("plugin list", "martlet.inspection:list_plugins", roles=("plugin",), summary="List plugins and what they add.")
    yield Command(
        "plugin show", "martlet.inspection:show", roles=("show",), positional="name", summary="Show one plugin or component."
    )
    yield Command("plugin doctor", "martlet.inspection:doctor", summary="Find out why a plugin does not work.")
    yield Command(
        "schema", "martlet.inspection:schema", roles=("schema",), positional="of", summary="Print a command's JSON Schema."
    )
    yield Command("plan", "martlet.inspection:plan", raw=True, summary="Show what a command would do, without doing it.")
