"""``martlet plugin show``, ``schema`` and ``plan``: what is known of a component, a command, a command line."""

from __future__ import annotations

import json
import types
from typing import Any

from martlet import Command, PluginManager, Run, UsageError
from martlet.cli import expand, find_command, first_flags, load_plugins, make_run
from martlet.config import flags_of
from martlet.errors import suggest
from martlet.fields import BOUNDS, Field, adapter
from martlet.manager import kinds
from martlet.specs import KINDS, load

from .inspection_args import SchemaArguments, ShowArguments


def show(run: Run) -> int:
    """Print what is known of a plugin or of the components of a name."""
    words = run.config[ShowArguments].name
    if len(words) != 1:
        raise UsageError("plugin show takes one name: a plugin, a component or plugin::component.")
    owner, _, bare = words[0].rpartition("::")
    everything = [(p, s) for kind in KINDS.values() for p, s in run.manager.specs(kind)]
    hits = [(p, s) for p, s in everything if s.name == bare and owner in ("", p)]
    if not owner and bare in run.manager.plugins:
        plugin = run.manager.plugins[bare]
        print(f"plugin {plugin.name} {plugin.version}\n  from: {plugin.origin}\n  hooks: {', '.join(plugin.hooks)}")
        print(f"  error: {plugin.error}" if plugin.error else f"  loaded in {plugin.seconds * 1000:.1f} ms")
        hits += [hit for hit in everything if hit[0] == bare and hit not in hits]
    elif not hits:
        known = [*run.manager.plugins, *(s.name for _, s in everything)]
        raise UsageError(f"There is no plugin or component {words[0]!r}. {suggest(bare, known)}")
    for plugin_name, spec in hits:
        print(f"{spec.label} {plugin_name}::{spec.name}")
        for key, value in vars(spec).items():
            if key != "name" and value != type(spec).__dataclass_fields__[key].default and value not in ((), {}, ""):
                print(f"  {key}: {value}")
    return 0


def schema(run: Run) -> int:
    """Print the JSON Schema of a command's flags."""
    words = run.config[SchemaArguments].of
    if not words:
        raise UsageError("schema takes a command: martlet schema sft")
    command = run.manager.find(Command, " ".join(words))[1]
    print(json.dumps(command_schema(command, run.manager), indent=2, ensure_ascii=False))
    return 0


def command_schema(command: Command, manager: PluginManager) -> dict[str, Any]:
    """Return a JSON Schema whose properties also say which group and plugin they belong to."""
    properties: dict[str, Any] = {}
    for flag in flags_of(command, manager):
        entry = json_schema(flag.field) | {"x-group": flag.group.name, "x-plugin": flag.plugin}
        if flag.name in command.defaults:
            entry["default"] = command.defaults[flag.name]
        if flag.field.kind:
            kind = kinds(flag.field.kind)
            entry |= {"x-component": kind.kind, "x-names": [spec.name for _, spec in manager.specs(kind)]}
        if flag.field.metadata.get("important"):
            entry["x-important"] = True
        properties[flag.name if flag.name not in properties else flag.key] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": command.name,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def json_schema(field: Field) -> dict[str, Any]:
    """Return the JSON Schema of one flag, ``default`` and ``description`` included."""
    schema: dict[str, Any] = dict(adapter(field.type).json_schema())
    schema["default"] = field.default
    schema["description"] = field.help
    for key, (_, name) in BOUNDS.items():
        if key in field.metadata:
            schema[name] = field.metadata[key]
    if "choices" in field.metadata:
        values = [*field.metadata["choices"]]
        if field.admits(list):
            schema["items"] = {**schema.get("items", {}), "enum": values}
        else:
            schema["enum"] = [*values, *([None] if field.admits(types.NoneType) else [])]
    return schema


PLAN_HELP = """\
usage: martlet plan COMMAND [--flag value ...] [--all] [--json]

Show what a command would do, without doing it: settings that are not defaults and where they come from, components,
plugins, steps, files. COMMAND and its flags are written as they would be run.

  --all    show every setting, defaults included
  --json   print JSON"""


def plan(run: Run) -> int:
    """Resolve a whole command line and print it, with origins; run nothing."""
    words = [word for word in run.words if word not in ("--json", "--all")]
    if {"--help", "-h"} & set(words):
        print(PLAN_HELP)
        return 0
    if not words:
        raise UsageError("plan takes a command line: martlet plan sft --model ... --dataset ...")
    words = expand(words)
    manager, layer = load_plugins(first_flags(words))
    command, rest = find_command(manager, words)
    planned = make_run(command, manager, rest, layer)
    planned.emit("on_config", config=planned.config)
    facts = load(command.plan)(planned) if command.plan else {}
    record = planned.record.facts()
    settings = {
        flag.name: record["settings"][flag.name]
        for flag, _, origin in planned.config
        if "--all" in run.words or origin.source != "default"
    }
    components = [
        {"kind": kind, "name": item.spec.name, "plugin": item.plugin}
        for kind, many in sorted(planned.config.selections.items())
        for item in many
    ]
    found = {"command": command.name, "settings": settings, "components": components, "plugins": record["plugins"]}
    found |= {"facts": facts, "warnings": record["warnings"]}
    if "--json" in run.words:
        print(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    else:
        _print_plan(found)
    return 0


def _print_plan(found: dict[str, Any]) -> None:
    print(f"martlet {found['command']} would run with")
    for name, row in found["settings"].items():
        print(f"  {name} = {row['value']}    <- {row['origin']}")
    print("components")
    for row in found["components"]:
        print(f"  {row['kind']}: {row['plugin']}::{row['name']}")
    print("plugins")
    for row in found["plugins"]:
        print(f"  {row['name']} {row['version']} ({row['origin']})")
    for key, value in found["facts"].items():
        if isinstance(value, dict) and set(value) == {"unknown"}:
            value = f"unknown: {value['unknown']}"
        if isinstance(value, list):
            print(key.replace("_", " "))
            print("\n".join(f"  {item}" for item in value))
        else:
            print(f"{key.replace('_', ' ')}: {value}")
    for text in found["warnings"]:
        print(f"warning: {text}")
