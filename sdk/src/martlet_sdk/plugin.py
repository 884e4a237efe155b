"""Commands about plugins and settings, and for writing plugins."""

from __future__ import annotations

from collections.abc import Iterator

from martlet import Arguments, Command, hookimpl


@hookimpl
def provide_arguments() -> Iterator[Arguments]:
    yield Arguments("plugin-list", "martlet_sdk.inspection_args:PluginListArguments", roles=("plugin-list",))
    yield Arguments("plugin-show", "martlet_sdk.inspection_args:ShowArguments", roles=("plugin-show",))
    yield Arguments("plugin-new", "martlet_sdk.args:NewArguments", roles=("plugin-new",))
    yield Arguments("plugin-check", "martlet_sdk.args:CheckArguments", roles=("plugin-check",))
    yield Arguments("schema", "martlet_sdk.inspection_args:SchemaArguments", roles=("schema",))


@hookimpl
def provide_commands() -> Iterator[Command]:
    yield Command(
        "plugin list",
        "martlet_sdk.diagnosis:list_plugins",
        roles=("plugin-list",),
        summary="List plugins and what they add.",
    )
    yield Command(
        "plugin show",
        "martlet_sdk.inspection:show",
        roles=("plugin-show",),
        positional="name",
        summary="Show one plugin or component.",
    )
    yield Command(
        "plugin new",
        "martlet_sdk.commands:new",
        roles=("plugin-new",),
        positional="what",
        summary="Write a new plugin: one file, or a package.",
    )
    yield Command(
        "plugin check",
        "martlet_sdk.commands:check",
        roles=("plugin-check",),
        positional="plugins",
        summary="Check that a plugin keeps its contract.",
    )
    yield Command("plugin doctor", "martlet_sdk.diagnosis:doctor", summary="Find out why a plugin does not work.")
    yield Command(
        "schema",
        "martlet_sdk.inspection:schema",
        roles=("schema",),
        positional="of",
        summary="Print the JSON Schema of a command's flags.",
    )
    yield Command(
        "plan", "martlet_sdk.inspection:plan", raw=True, summary="Show what a command would do, without doing it."
    )
