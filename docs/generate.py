"""Build the reference pages from specs, hook specs and command schemas while the site is built."""

from __future__ import annotations

import inspect
import json
from typing import Any

from mkdocs.structure.files import File, Files

from martlet import hookspecs
from martlet.fields import docstrings
from martlet.manager import PluginManager
from martlet.specs import KINDS, Command, Spec


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages (a mkdocs hook)."""
    manager = PluginManager(strict=True)
    manager.load_installed()
    for name, text in (("reference/kinds.md", kinds(manager)), ("reference/commands.md", commands(manager))):
        files.append(File.generated(config, name, content=text))
    return files


def kinds(manager: PluginManager) -> str:
    """Describe every kind: contract, facts, first-party components; then the events."""
    lines = ["# Kinds and hooks", "", inspect.cleandoc(hookspecs.__doc__ or ""), "", "## Facts that every spec has", ""]
    lines += _facts(Spec)
    for kind in KINDS.values():
        lines += [f"## `provide_{kind.kind}` yields `{kind.__name__}`", "", inspect.cleandoc(kind.__doc__ or ""), ""]
        lines += _facts(kind)
        rows = manager.specs(kind)
        if rows and kind.kind not in ("arguments", "commands"):
            lines += ["Installed with Martlet:", ""]
            lines += [f"- `{spec.name}` ({plugin}) {spec.summary}" for plugin, spec in rows] + [""]
    lines += ["## Events", ""]
    for name in ("on_process_start", "on_config", "on_run_start", "on_run_end"):
        hook = getattr(hookspecs, name)
        lines += [f"### `{name}{inspect.signature(hook)}`", "", inspect.cleandoc(hook.__doc__), ""]
    return "\n".join([*lines, *_targets()])


def _targets() -> list[str]:
    """Describe what the class targets must be able to do, from ``martlet_sdk.protocols``."""
    from martlet import protocols as data
    from martlet_sdk import protocols

    lines = ["## What targets must be able to do", ""]
    for owner in (data, protocols):
        for name, cls in vars(owner).items():
            if not (inspect.isclass(cls) and cls.__module__ == owner.__name__ and getattr(cls, "_is_protocol", False)):
                continue
            lines += [f"### `{name}`", "", inspect.cleandoc(cls.__doc__ or ""), ""]
            for method, function in vars(cls).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    text = " ".join((function.__doc__ or "").split())
                    lines.append(f"- `{method}{inspect.signature(function)}`: {text}")
            lines.append("")
    return lines


def _facts(kind: type[Spec]) -> list[str]:
    own = vars(kind).get("__annotations__", {})
    texts = docstrings(kind)
    shown = [name for name in own if name not in ("kind", "label", "_")]
    rows = [f"| `{name}` | {' '.join(texts.get(name, '').split())} |" for name in shown]
    return ["| fact | meaning |", "|---|---|", *rows, ""] if rows else []


def commands(manager: PluginManager) -> str:
    """Describe every flag of every command, from the same schema that `martlet schema` prints."""
    from martlet_sdk.inspection import command_schema

    lines = ["# Commands", "", f"Martlet {martlet_version()}. A flag marked ★ is shown by plain `--help`.", ""]
    for _, command in manager.specs(Command):
        lines += [f"## martlet {command.name}", "", command.summary, ""]
        properties = command_schema(command, manager)["properties"]
        lines += ["| flag | default | meaning |", "|---|---|---|"] if properties else []
        for name, entry in properties.items():
            star = " ★" if entry.get("x-important") else ""
            text = " ".join(entry["description"].split()).replace("|", "\\|")
            default = json.dumps(entry["default"], ensure_ascii=False).replace("|", "\\|")
            lines.append(f"| `--{name}`{star} | `{default}` | {text} ({entry['x-plugin']}) |")
        lines.append("")
    return "\n".join(lines)


def martlet_version() -> str:
    from importlib.metadata import version

    return version("martlet-kernel")
