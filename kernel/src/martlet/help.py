"""Help pages: flags grouped by the plugin that owns them, important ones first."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

from .config import Flag, flags_of
from .fields import describe
from .manager import PluginManager
from .specs import Command


def overview(manager: PluginManager) -> str:
    """List every command."""
    rows = [(spec.name, spec.summary) for _, spec in manager.specs(Command)]
    lines = ["usage: martlet COMMAND [--flag value ...]", "       martlet run.yaml", "", "commands:"]
    lines += _columns(rows)
    lines += ["", "martlet COMMAND --help lists its flags; --help all lists every one of them."]
    return "\n".join(lines)


def usage(command: Command, manager: PluginManager, *, everything: bool) -> str:
    """List the flags of a command."""
    lines = [f"usage: martlet {command.name} {f'[{command.positional} ...] ' if command.positional else ''}[--flag value ...]"]
    lines += ["", *textwrap.wrap(command.summary, _width())] if command.summary else []
    hidden = 0
    groups: dict[str, list[Flag]] = {}
    for flag in flags_of(command, manager):
        if everything or flag.field.metadata.get("important") or flag.name == command.positional:
            groups.setdefault(flag.plugin, []).append(flag)
        else:
            hidden += 1
    for plugin, flags in groups.items():
        row = manager.plugins[plugin]
        lines += ["", f"{plugin} {row.version}".strip()]
        ordered = sorted(flags, key=lambda flag: not flag.field.metadata.get("important"))
        lines += _columns([(_form(flag, command), _text(flag, command)) for flag in ordered])
    if hidden:
        lines += ["", f"{hidden} more flags: martlet {command.name} --help all"]
    return "\n".join(lines)


def _form(flag: Flag, command: Command) -> str:
    return flag.name.upper() if flag.name == command.positional else f"--{flag.name}"


def _text(flag: Flag, command: Command) -> str:
    default: Any = command.defaults.get(flag.name, flag.field.default)
    about = [f"default: {default}"] if default not in (None, "", []) else []
    if choices := flag.field.metadata.get("choices"):
        about.append("one of " + ", ".join(map(str, choices)))
    elif flag.field.type is not bool:
        about.append(describe(flag.field))
    return f"{' '.join(flag.field.help.split())} [{'; '.join(about)}]" if about else flag.field.help


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    left = min(max((len(name) for name, _ in rows), default=0), 30)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(_width() - left - 4, 20)) or [""]
        if len(name) > left:
            lines.append(f"  {name}")
            wrapped.insert(0, "")
        head = name if len(name) <= left else ""
        lines += [f"  {head:<{left}}  {wrapped[0]}".rstrip()] if len(name) <= left else []
        lines += [f"  {'':<{left}}  {line}" for line in wrapped[1:]]
    return lines


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def versions() -> str:
    """Return the kernel's version and that of every distribution that adds a plugin."""
    from importlib import metadata

    from .manager import GROUP, KERNEL

    found = {entry.dist.name: entry.dist.version for entry in metadata.entry_points(group=GROUP) if entry.dist}
    return "\n".join(f"{name} {version}" for name, version in [(KERNEL, metadata.version(KERNEL)), *sorted(found.items())])


def owner_of(flag: str) -> str:
    """Name the first-party distribution to install for a flag that nothing installed owns, if one is known."""
    import json
    from importlib import metadata, resources

    known = json.loads(resources.files("martlet").joinpath("known_flags.json").read_text(encoding="utf-8"))
    owner = known.get(flag, "")
    try:
        return "" if not owner or metadata.version(owner) else ""
    except metadata.PackageNotFoundError:
        return f"It belongs to {owner}: pip install {owner}"
