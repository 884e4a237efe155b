"""From a command line to a run: ``martlet COMMAND --flag value ...``."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .builtin import BaseArguments
from .config import flags_of, resolve
from .errors import MartletError, UnknownComponent, UsageError, suggest
from .fields import fields_of, parse
from .manager import PluginManager, open_manager
from .run import Run
from .sources import Origin, Raw, read_words, read_yaml, relative_to
from .specs import Command

FIRST = ("external_plugins", "disable_plugins", "strict_plugins", "config")
"""Flags that decide what there is to parse; read before the others."""


def entry() -> None:
    """Console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run a command line; return its exit status: 0, 1 for a failed run, 2 for a wrong command."""
    words = list(argv)
    try:
        if words and words[0] not in ("-h", "--help", "--version"):
            result = run_words(words)
            return result if isinstance(result, int) and not isinstance(result, bool) else 0
        print_overview(words)
        return 0
    except MartletError as error:
        if "--debug" in words or os.environ.get("MARTLET_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def print_overview(words: list[str]) -> None:
    """Print what needs no command: the list of commands, or the versions."""
    from . import help as pages

    print(pages.versions() if words[:1] == ["--version"] else pages.overview(start(words)[0]))


def start(words: Sequence[str]) -> tuple[PluginManager, Raw]:
    """Load plugins as the command line says; return the manager and what the configuration files hold."""
    fields = {field.name: field for field in fields_of(BaseArguments) if field.name in FIRST}
    first = {name: parse(fields[name], value, f"--{name}") for name, value in read_words(words, fields)[0].items()}
    layer: Raw = {}
    for path in (Path(name).expanduser() for name in first.get("config", ())):
        for key, (value, line) in read_yaml(path).items():
            key = key.replace("-", "_")
            if key in FIRST:
                value = parse(fields[key], value, f"{path}:{line}")
                if key == "external_plugins":
                    value = [str(path.parent / item) if (path.parent / item).exists() else item for item in value]
                first.setdefault(key, value)
            layer[key] = (value, Origin("config", f"{path}:{line}"))
    disabled, named = first.get("disable_plugins", ()), first.get("external_plugins", ())
    return open_manager(disabled, bool(first.get("strict_plugins")), named), layer


def run_words(words: list[str]) -> Any:
    """Find the command, resolve its configuration, and run it."""
    if words[0].endswith((".yaml", ".yml")):
        words = [*_command_of(Path(words[0])), "--config", *words]
    manager, layer = start(words)
    command, rest = find_command(manager, words)
    if not command.raw and {"--help", "-h"} & set(rest):
        from .help import usage

        print(usage(command, manager, everything="all" in rest))
        return 0
    return make_run(command, manager, rest, layer).execute()


def make_run(command: Command, manager: PluginManager, rest: list[str], layer: Raw) -> Run:
    """Resolve the words behind a command."""
    if command.raw:
        return Run(resolve(command, manager, {}, {}), words=rest)
    fields = {flag.name: flag.field for flag in flags_of(command, manager)}
    given, unknown = read_words(rest, fields, command.positional)
    if unknown:
        _refuse_words(command, unknown, list(fields), str(given.get("ignore_args_error", "false")).lower() == "true")
    layer.pop("command", None)
    for name, (value, origin) in layer.items():
        if name not in fields:
            hint = suggest(name, fields, listed="Flags")
            raise UsageError(f"{origin.detail}: {command.name} has no flag {name!r}. {hint}")
        base = Path(origin.detail.rpartition(":")[0]).parent
        layer[name] = (relative_to(base, fields[name], value), origin)
    line = {name: (value, Origin("command line", f"--{name}")) for name, value in given.items() if name != "set"}
    config = resolve(command, manager, layer, line, given.get("set", ()))
    log = logging.getLogger("martlet")
    log.setLevel(str(config.value("log_level")).upper())
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        log.addHandler(handler)
        log.propagate = False
    return Run(config)


def find_command(manager: PluginManager, words: Sequence[str]) -> tuple[Command, list[str]]:
    """Match the longest command name at the start of ``words``."""
    names = {spec.name for _, spec in manager.specs(Command)}
    for count in (2, 1):
        if " ".join(words[:count]) in names:
            return manager.find(Command, " ".join(words[:count]))[1], list(words[count:])
    if family := sorted(name for name in names if name.split()[0] == words[0]):
        raise UnknownComponent(f"{words[0]!r} needs one of its commands: {', '.join(family)}.")
    broken = [str(row.error) for row in manager.plugins.values() if row.error]
    hint = f" These plugins did not load: {'; '.join(broken)}" if broken else ""
    raise UnknownComponent(f"There is no command {words[0]!r}. {suggest(words[0], names, listed='Commands')}{hint}")


def _command_of(path: Path) -> list[str]:
    found = read_yaml(path).get("command", (None, 0))[0]
    if not isinstance(found, str):
        raise UsageError(f"{path}: it has no `command:` line; add one, such as `command: sft`.")
    return found.split()


def _refuse_words(command: Command, unknown: list[str], known: list[str], lenient: bool) -> None:
    from .help import owner_of

    flag = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
    if flag:
        name = flag.lstrip("-").replace("-", "_")
        hint = owner_of(name) or suggest(f"--{name}", (f"--{item}" for item in known), listed="Flags")
        text = f"{flag}: {command.name} has no such flag. {hint}"
    else:
        text = f"{command.name} takes no word {unknown[0]!r} here; flags begin with --. See `{command.name} --help`."
    if not lenient:
        raise UsageError(text)
    print(f"warning: ignored: {text}", file=sys.stderr)
