"""From a command line to a run: ``martlet COMMAND --flag value ...``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from . import external_plugins as external
from .builtin import BaseArguments
from .config import Flag, environment, flags_of, owner_of, resolve
from .errors import ConfigError, MartletError, UnknownComponent, UsageError, suggest, told
from .fields import describe, fields_of, parse
from .hookspecs import PROJECT
from .manager import KERNEL, PluginManager
from .run import Run
from .sources import Origin, Raw, read_words, read_yaml
from .specs import Command

_FIRST = ("external_plugins", "disable_plugins", "strict_plugins", "config", "debug")
FIRST = {field.name: field for field in fields_of(BaseArguments) if field.name in _FIRST}  # read before the others


def entry() -> None:
    signal.signal(signal.SIGTERM, partial(_terminate, os.getpid()))
    sys.exit(main(sys.argv[1:]))


def _terminate(main: int, number: int, frame: object) -> None:
    """End like Ctrl-C, so that the run record is closed. Forked children just go."""
    if os.getpid() != main:
        os._exit(128 + number)
    raise KeyboardInterrupt("SIGTERM")


def main(argv: Sequence[str]) -> int:
    """Run a command line; return its exit status: 0, 1 for a failed run, 2 for a wrong command."""
    words = list(argv)
    try:
        if words and words[0] not in ("-h", "--help", "--version"):
            result = run_words(words)
            print(end="", flush=True)
            return result if isinstance(result, int) and not isinstance(result, bool) else 0
        print(versions() if words[:1] == ["--version"] else overview(load_plugins(first_flags(words))[0]))
        return 0
    except KeyboardInterrupt as error:
        print(f"interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 143 if str(error) == "SIGTERM" else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if _debugging(words):
            traceback.print_exc()
        print(f"error: {told(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, MartletError) else 1


def first_flags(words: Sequence[str]) -> dict[str, Any]:
    """Read those flags that say which plugins to load, before the rest can be read."""
    names = [word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else _FIRST[0] for word in words]
    return read_words([w if n in FIRST else "--other" for w, n in zip(words, names, strict=True)], FIRST)[0]


def _debugging(words: Sequence[str]) -> bool:
    with suppress(UsageError):
        given = first_flags(words).get("debug") or (environment(FIRST["debug"]) or (False,))[0]
        return bool(parse(FIRST["debug"], given, "--debug"))
    return False


def load_plugins(given: Mapping[str, Any]) -> tuple[PluginManager, Raw]:
    """Load what is installed and what ``FIRST`` flags name; return the manager and what configuration files hold."""
    first = {name: parse(FIRST[name], value, f"--{name}") for name, value in given.items() if name in FIRST}
    layer: Raw = {}
    for path in (Path(name).expanduser() for name in first.get("config", ())):
        for key, (value, line) in read_yaml(path).items():
            if key in ("config", "debug"):
                raise ConfigError(f"{path}:{line}: {key!r} belongs on the command line.")
            if key in FIRST:
                value = parse(FIRST[key], value, f"{path}:{line}")
                if key == "external_plugins":
                    value = [str(path.parent / item) if (path.parent / item).exists() else item for item in value]
                first.setdefault(key, value)
            layer[key] = (value, Origin("config", f"{path}:{line}"))
    manager = PluginManager(disabled=first.get("disable_plugins", ()), strict=bool(first.get("strict_plugins")))
    manager.load_installed()
    manager.load_external(*first.get("external_plugins", ()), *external.references())
    return manager, layer


def run_words(words: list[str]) -> Any:
    """Find the command, resolve its configuration, and run it."""
    words = expand(words)
    manager, layer = load_plugins(first_flags(words))
    command, rest = find_command(manager, words)
    if not command.raw and {"--help", "-h"} & set(rest):
        print(usage(command, manager, everything="all" in rest))
        return 0
    return make_run(command, manager, rest, layer).execute()


def make_run(command: Command, manager: PluginManager, rest: list[str], layer: Raw) -> Run:
    """Resolve the words behind a command."""
    if command.raw:
        return Run(resolve(command, manager, {}, {}), words=rest)
    flags = flags_of(command, manager)
    mine = [flag for flag in flags if flag.plugin == owner_of(command, manager)]
    fields = {flag.name: flag.field for flag in [*flags, *mine]}
    given, unknown = read_words(rest, fields, command.positional)
    lenient = given.get("ignore_args_error", layer.get("ignore_args_error", (False,))[0])
    while unknown:
        _refuse_words(command, unknown, list(fields), lenient in (True, "true"))
    line = {name: (value, Origin("command line", f"--{name}")) for name, value in given.items()}
    return Run(resolve(command, manager, layer, line), words=[*command.name.split(), *rest])


def find_command(manager: PluginManager, words: Sequence[str]) -> tuple[Command, list[str]]:
    """Match the longest command name at the start of ``words``."""
    names = {spec.name for _, spec in manager.specs(Command)}
    family = sorted(name for name in names if name.split()[0] == words[0])
    count = 2 if " ".join(words[:2]) in names else 1
    if count == 1 and family and words[0] not in names:
        raise UnknownComponent(f"{words[0]!r} needs one of its commands: {', '.join(family)}.")
    return manager.find(Command, " ".join(words[:count]))[1], list(words[count:])


def expand(words: list[str]) -> list[str]:
    """Turn ``run.yaml ...`` into ``COMMAND --config run.yaml ...``."""
    if not words[0].endswith((".yaml", ".yml")):
        return words
    found = read_yaml(Path(words[0])).get("command", ("", 0))[0]
    if found and isinstance(found, str):
        return [*found.split(), "--config", *words]
    raise UsageError(f"{words[0]}: it has no `command:` line; add one, such as `command: sft`.")


def _refuse_words(command: Command, unknown: list[str], known: list[str], lenient: bool) -> None:
    flag = unknown.pop(0).partition("=")[0]
    if flag.startswith("-"):
        name = flag.lstrip("-").replace("-", "_")
        hint = distribution_of(name) or suggest(f"--{name}", (f"--{item}" for item in known), listed="Flags")
        text = f"{flag}: {command.name} has no such flag. {hint}"
    else:
        text = f"{command.name} takes no word {flag!r} here; flags begin with --. See `{command.name} --help`."
    if not lenient:
        raise UsageError(text)
    print("warning: ignored:", text, file=sys.stderr)


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
    order = {role: number for number, role in enumerate(command.roles)}
    flags = sorted(flags_of(command, manager), key=lambda flag: min(order.get(r, 99) for r in flag.group.roles))
    flags.sort(key=lambda flag: not flag.field.metadata.get("important"))
    shown = [f for f in flags if everything or f.field.metadata.get("important") or f.name == command.positional]
    groups: dict[str, Any] = {}
    for flag in shown:
        if flag.plugin not in groups:
            groups[flag.plugin] = parser.add_argument_group(manager.plugins[flag.plugin].title)
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
    about += [f"default: {default}"] if default not in (None, "", []) else []
    return f"{flag.field.help} [{'; '.join(about)}]"


def versions() -> str:
    """Return the kernel's version and that of every distribution that adds a plugin."""
    found = {f"{entry.dist.name} {entry.dist.version}" for entry in metadata.entry_points(group=PROJECT) if entry.dist}
    return "\n".join([f"{KERNEL} {metadata.version(KERNEL)}", *sorted(found)])


def distribution_of(flag: str) -> str:
    """Name the first-party distribution to install for a flag that nothing installed owns, if one is known."""
    owner = json.loads((resources.files("martlet") / "known_flags.json").read_text("utf-8")).get(flag, "")
    missing = owner and not any(dist.name == owner for dist in metadata.distributions())
    return f"It belongs to {owner}: pip install {owner}" if missing else ""
