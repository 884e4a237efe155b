"""Help pages: flags grouped by the plugin that owns them, important ones first."""

from __future__ import annotations

import argparse
import json
from functools import partial
from importlib import metadata, resources
from typing import Any

from .config import Flag, flags_of
from .fields import describe
from .manager import GROUP, KERNEL, PluginManager
from .specs import Command


def _parser(usage: str, description: str) -> argparse.ArgumentParser:
    shape = partial(argparse.HelpFormatter, max_help_position=30)
    return argparse.ArgumentParser("", usage, description, add_help=False, formatter_class=shape)


def overview(manager: PluginManager) -> str:
    """List every command."""
    parser = _parser("martlet COMMAND [--flag value ...]\n       martlet run.yaml", "")
    parser.epilog = "martlet COMMAND --help shows its important flags; --help all shows every one."
    group = parser.add_argument_group("commands")
    for _, spec in manager.specs(Command):
        group.add_argument(spec.name, help=spec.summary, nargs="?")
    return parser.format_help().rstrip()


def usage(command: Command, manager: PluginManager, *, everything: bool) -> str:
    """List the flags of a command: the important ones, or all."""
    words = f" {command.positional.upper()}" if command.positional else ""
    parser = _parser(f"martlet {command.name}{words} [--flag value ...]", command.summary)
    flags = sorted(flags_of(command, manager), key=lambda flag: not flag.field.metadata.get("important"))
    shown = [f for f in flags if everything or f.field.metadata.get("important") or f.name == command.positional]
    groups: dict[str, Any] = {}
    for flag in shown:
        if flag.plugin not in groups:
            title = f"{flag.plugin} {manager.plugins[flag.plugin].version}".strip()
            groups[flag.plugin] = parser.add_argument_group(title)
        name = flag.name if flag.name == command.positional else f"--{flag.name}"
        try:
            groups[flag.plugin].add_argument(name, help=_text(flag, command).replace("%", "%%"), metavar="")
        except argparse.ArgumentError:
            continue  # claimed by a second plugin: `plugin doctor` reports it
    if len(shown) < len(flags):
        parser.epilog = f"{len(flags) - len(shown)} more flags: martlet {command.name} --help all"
    return parser.format_help().rstrip()


def _text(flag: Flag, command: Command) -> str:
    default: Any = command.defaults.get(flag.name, flag.field.default)
    choices = flag.field.metadata.get("choices")
    about = [f"one of {', '.join(map(str, choices))}" if choices else describe(flag.field)]
    if default not in (None, "", []):
        about.append(f"default: {default}")
    return f"{flag.field.help} [{'; '.join(about)}]"


def versions() -> str:
    """Return the kernel's version and that of every distribution that adds a plugin."""
    found = {entry.dist.name: entry.dist.version for entry in metadata.entry_points(group=GROUP) if entry.dist}
    rows = [(KERNEL, metadata.version(KERNEL)), *sorted(found.items())]
    return "\n".join(f"{name} {version}" for name, version in rows)


def owner_of(flag: str) -> str:
    """Name the first-party distribution to install for a flag that nothing installed owns, if one is known."""
    known = json.loads(resources.files("martlet").joinpath("known_flags.json").read_text(encoding="utf-8"))
    owner = known.get(flag, "")
    if not owner or any(dist.name == owner for dist in metadata.distributions()):
        return ""
    return f"It belongs to {owner}: pip install {owner}"
