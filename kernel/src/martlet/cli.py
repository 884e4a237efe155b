"""From a command line to a run: ``martlet COMMAND --flag value ...``."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import external
from .config import Config, flags_of, resolve
from .errors import MartletError, UnknownComponent, UsageError, suggest
from .manager import PluginManager
from .run import Run
from .sources import Origin, Raw, read_words, read_yaml, relative_to
from .specs import Command

FIRST = ("external_plugins", "disable_plugins", "strict_plugins", "config", "debug")
"""Flags that decide what there is to parse; read before the others."""


def entry() -> None:
    """Console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run a command line; return its exit status: 0, 1 for a failed run, 2 for a wrong command."""
    words = list(argv)
    debug = "--debug" in words or os.environ.get("MARTLET_DEBUG", "0") not in ("", "0")
    try:
        if not words or words[0] in ("--help", "-h", "help"):
            from .help import overview

            print(overview(start(words[1:])[0]))
            return 0
        if words[0] == "--version":
            from .help import versions

            print(versions())
            return 0
        result = run_words(words)
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except MartletError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def start(words: Sequence[str]) -> tuple[PluginManager, dict[str, Any], Raw]:
    """Load plugins as the command line says; return the manager, the first flags and the configuration files."""
    first = first_flags(words)
    layer: Raw = {}
    for name in first.get("config", ()):
        path = Path(name).expanduser()
        for key, (value, line) in read_yaml(path).items():
            layer[key.replace("-", "_")] = (value, Origin("config", f"{path}:{line}"))
    for key in ("external_plugins", "disable_plugins"):
        if key in layer and key not in first:
            value, origin = layer[key]
            base = Path(origin.detail.rpartition(":")[0]).parent
            listed = value if isinstance(value, list) else [value]
            first[key] = [str(base / item) if (base / item).exists() else str(item) for item in listed]
    manager = PluginManager(disabled=first.get("disable_plugins", ()), strict=bool(first.get("strict_plugins")))
    manager.load_installed()
    manager.load_external(*first.get("external_plugins", ()), *external.references())
    return manager, first, layer


def first_flags(words: Sequence[str]) -> dict[str, Any]:
    """Read the flags that come first; the rest is left for the command."""
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].replace("-", "_").partition("=") if "=" in word else (word[2:].replace("-", "_"), "", "")
            if name in FIRST:
                found.setdefault(name, [])
                if equals:
                    found[name].append(value)
        elif name in FIRST:
            found[name].append(word)
    for switch in ("strict_plugins", "debug"):
        if switch in found:
            found[switch] = found[switch] != ["false"]
    return found


def run_words(words: list[str]) -> Any:
    """Find the command, resolve its configuration, and run it."""
    if words[0].endswith((".yaml", ".yml")):
        words = [*_command_of(Path(words[0])), "--config", *words]
    manager, _, layer = start(words)
    command, rest = find_command(manager, words)
    if "--help" in rest or "-h" in rest:
        from .help import usage

        print(usage(command, manager, everything="all" in rest))
        return 0
    return make_run(command, manager, rest, layer).execute()


def make_run(command: Command, manager: PluginManager, rest: list[str], layer: Raw) -> Run:
    """Resolve the words behind a command."""
    if command.raw:
        return Run(resolve(command, manager, []), words=rest)
    fields = {flag.name: flag.field for flag in flags_of(command, manager)}
    given, unknown = read_words(rest, fields, command.positional)
    lenient = str(given.get("ignore_args_error", "false")).lower() == "true"
    if unknown:
        _unknown_words(command, unknown, list(fields), lenient)
    layer.pop("command", None)
    based: Raw = {}
    for name, (value, origin) in layer.items():
        if name not in fields:
            raise UsageError(f"{origin.detail}: {command.name} has no flag {name!r}. {suggest(name, fields, listed='Flags')}")
        base = Path(origin.detail.rpartition(":")[0]).parent
        based[name] = (relative_to(base, fields[name], value), origin)
    line: Raw = {name: (value, Origin("command line", f"--{name}")) for name, value in given.items() if name != "set"}
    config = resolve(command, manager, [based, line], given.get("set", ()))
    _configure_logging(config)
    return Run(config)


def find_command(manager: PluginManager, words: Sequence[str]) -> tuple[Command, list[str]]:
    """Match the longest command name at the start of ``words``."""
    names = {spec.name for _, spec in manager.specs(Command)}
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in names and len(words) >= count:
            return manager.find(Command, name)[1], list(words[count:])
    said = " ".join(word for word in words[:2] if not word.startswith("-"))
    family = [name for name in names if name.split()[0] == words[0]]
    if family:
        raise UnknownComponent(f"{words[0]!r} needs one of its commands: {', '.join(sorted(family))}.")
    broken = [str(row.error) for row in manager.plugins.values() if row.error]
    hint = f" These plugins did not load: {'; '.join(broken)}" if broken else ""
    raise UnknownComponent(f"There is no command {said.split()[0] if said else words[0]!r}. {suggest(words[0], names, listed='Commands')}{hint}")


def _command_of(path: Path) -> list[str]:
    found = read_yaml(path)
    if not isinstance(found.get("command", (None,))[0], str):
        raise UsageError(f"{path}: it has no `command:` line; add one such as `command: sft`, or use martlet COMMAND --config.")
    return str(found["command"][0]).split()


def _unknown_words(command: Command, unknown: list[str], known: list[str], lenient: bool) -> None:
    from .help import owner_of

    flags = [word for word in unknown if word.startswith("-")]
    if not flags:
        text = f"{command.name} takes no word {unknown[0]!r} here; flags begin with --. See martlet {command.name} --help."
    else:
        name = flags[0].lstrip("-").partition("=")[0].replace("-", "_")
        text = f"{flags[0].partition('=')[0]}: {command.name} has no such flag. {owner_of(name) or suggest(name, known, listed='Flags')}"
    if not lenient:
        raise UsageError(text)
    print(f"warning: ignored ({text})", file=sys.stderr)


def _configure_logging(config: Config) -> None:
    log = logging.getLogger("martlet")
    log.setLevel(str(config.value("log_level")).upper())
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        log.addHandler(handler)
        log.propagate = False
