"""``martlet plugin list|show|doctor``, ``schema`` and ``plan``: questions about plugins and settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from .args import PluginArguments, SchemaArguments, ShowArguments
from .cli import find_command, make_run, start
from .config import flags_of
from .errors import UsageError, suggest
from .fields import json_schema
from .manager import PluginManager, kinds
from .run import Run
from .specs import KINDS, Arguments, Command, Spec


def list_plugins(run: Run) -> int:
    """Print one line a plugin, or one a component with ``--kind``."""
    chosen = run.config[PluginArguments]
    rows = _components(run.manager, [kinds(chosen.kind)] if chosen.kind else list(KINDS.values()))
    if chosen.json:
        plugins = [
            {"name": p.name, "origin": p.origin, "version": p.version, "seconds": round(p.seconds, 4), "error": str(p.error or "")}
            for p in run.manager.plugins.values()
        ]
        print(json.dumps({"plugins": plugins, "components": rows}, indent=2))
        return 0
    if chosen.kind:
        for row in rows:
            mark = " (replaces)" if row["replace"] else ""
            print(f"{row['name']:<24} {row['plugin']:<20} {row['summary']}{mark}")
        return 0
    for name, plugin in sorted(run.manager.plugins.items()):
        adds = [f"{row['kind']}: {row['name']}" for row in rows if row["plugin"] == name and row["kind"] != "arguments"]
        replaced = [row["name"] for row in rows if row["plugin"] == name and row["replace"]]
        print(f"{name:<20} {plugin.version or '-':<10} {plugin.error or ', '.join(adds)}")
        if replaced:
            print(f"{'':<31} replaces: {', '.join(replaced)}")
    return 0


def _components(manager: PluginManager, wanted: list[type[Spec]]) -> list[dict[str, Any]]:
    return [
        {"kind": kind.kind, "name": spec.name, "plugin": plugin, "summary": spec.summary, "replace": spec.replace}
        for kind in wanted
        for plugin, spec in manager.specs(kind)
    ]


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
        hits += [(p, s) for p, s in everything if p == bare]
    elif not hits:
        known = [*run.manager.plugins, *(s.name for _, s in everything)]
        raise UsageError(f"There is no plugin or component {words[0]!r}. {suggest(bare, known)}")
    for plugin_name, spec in hits:
        print(f"{spec.label} {plugin_name}::{spec.name}")
        for key, value in vars(spec).items():
            if key != "name" and value != type(spec).__dataclass_fields__[key].default and value not in ((), {}, ""):
                print(f"  {key}: {value}")
    return 0


def doctor(run: Run) -> int:
    """Check every plugin, name clashes and a child process; exit status 1 if anything is wrong."""
    problems = [str(row.error) for row in run.manager.plugins.values() if row.error]
    for kind in KINDS.values():
        try:
            specs = run.manager.specs(kind)
        except Exception as error:
            problems.append(str(error))
            continue
        problems += [str(row.error) for row in run.manager.plugins.values() if row.error and str(row.error) not in problems]
        names = [spec.name for _, spec in specs if not spec.replace]
        for name in sorted({name for name in names if names.count(name) > 1}):
            who = ", ".join(f"{plugin}::{name}" for plugin, spec in specs if spec.name == name)
            problems.append(f"{kind.label} {name!r} is provided more than once: {who}")
    for _, command in run.manager.specs(Command):
        problems += _flag_clashes(run.manager, command, problems)
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], capture_output=True, text=True, timeout=120, env=os.environ, check=False
    )
    if child.returncode:
        problems.append(f"a child process cannot load the plugins: {child.stderr.strip().splitlines()[-1]}")
    for text in problems:
        print(f"problem: {text}")
    print(f"{len(run.manager.plugins)} plugins, {len(problems)} problems")
    return 1 if problems else 0


_CHILD = """
import martlet
from martlet import external
manager = martlet.PluginManager()
manager.load_installed()
manager.load_external(*external.references())
"""


def _flag_clashes(manager: PluginManager, command: Command, known: list[str]) -> list[str]:
    owners: dict[str, set[str]] = {}
    try:
        for flag in flags_of(command, manager):
            owners.setdefault(flag.name, set()).add(flag.plugin)
    except Exception as error:
        return [text for text in (f"flags of {command.name}: {error}",) if text not in known]
    clashes = (f"--{name} is claimed by {' and '.join(sorted(who))}" for name, who in owners.items() if len(who) > 1)
    return [text for text in clashes if text not in known]


def schema(run: Run) -> int:
    """Print the JSON Schema of a command's flags."""
    command = run.manager.find(Command, " ".join(run.config[SchemaArguments].of))[1]
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


def plan(run: Run) -> int:
    """Resolve a whole command line and print it, with origins; run nothing."""
    words = [word for word in run.words if word not in ("--json", "--all")]
    if not words:
        raise UsageError("plan takes a command line: martlet plan sft --model ... --dataset ...")
    manager, _, layer = start(words)
    command, rest = find_command(manager, words)
    planned = make_run(command, manager, rest, layer)
    planned.emit("on_config", config=planned.config)
    from .specs import load

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


__all__ = ["Arguments", "command_schema", "doctor", "list_plugins", "plan", "schema", "show"]
