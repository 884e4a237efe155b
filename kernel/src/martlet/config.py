"""Resolve every flag of a command to a value, and remember where it came from.

In rising priority: field default, command default, default of a selected component, a checkpoint's ``args.json``,
configuration files, environment, command line (or code). What is still None may then be chosen by its owner.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from copy import copy
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from .errors import AmbiguousComponent, UnknownComponent, UsageError, blame, suggest
from .fields import Field, fields_of, parse
from .manager import PluginManager, kinds
from .sources import Origin, Raw, read_args_json, relative_to
from .specs import KINDS, Arguments, Command, Spec, load

G = TypeVar("G")
Given = tuple[Any, Origin]


class Flag(NamedTuple):
    """A field of a group, and the plugin that owns it. ``key`` is unique even where two plugins claim one flag."""

    name: str
    key: str
    field: Field
    group: Arguments
    plugin: str


class Selected(NamedTuple):
    """A component that a flag chose."""

    plugin: str
    spec: Spec
    flag: str


class Config:
    """The settings of one run. ``config[Group]`` is an instance of that dataclass; nobody changes it."""

    def __init__(self, command: Command, manager: PluginManager, flags: list[Flag]) -> None:
        self.command, self.manager, self.flags = command, manager, flags
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.options: dict[tuple[str, str], dict[str, Any]] = {}
        self.selections: dict[str, list[Selected]] = {}
        self.missing: dict[str, UsageError] = {}
        self.warnings: list[str] = []
        self._groups: dict[type, Any] = {}
        names: dict[str, list[Flag]] = {}
        for flag in flags:
            names.setdefault(flag.name, []).append(flag)
        owner = owner_of(command, manager)  # its flags keep a name that others claim as well
        self._bare = {name: [f for f in many if f.plugin == owner] or many for name, many in names.items()}

    def __getitem__(self, group: type[G]) -> G:
        if group not in self._groups:
            mine = {f.name: self.values[f.key] for f in self.flags if f.field.owner is group}
            if not mine:
                raise KeyError(f"command {self.command.name!r} takes no group {group.__name__}")
            self._groups[group] = group(**mine)
        return cast(G, self._groups[group])

    def __contains__(self, group: object) -> bool:
        return any(f.field.owner is group for f in self.flags)

    def flag(self, name: str, where: str = "") -> Flag:
        """Return the flag of a bare name or a ``group.name``; ``UsageError`` with the nearest names."""
        owners, where = self._bare.get(name) or [f for f in self.flags if f.key == name], where or f"--{name}"
        if len(owners) == 1:
            return owners[0]
        if owners:
            who = " and ".join(f"plugin {f.plugin!r}" for f in owners)
            ways = " or ".join(f"--set {f.key}=VALUE" for f in owners)
            raise UsageError(f"{where}: this flag is claimed by {who}; write {ways}.")
        raise UsageError(f"{where}: {self.command.name} has no such flag. {suggest(name, self._bare, listed='Flags')}")

    def value(self, name: str) -> Any:
        return self.values[self.flag(name).key]

    def origin(self, name: str) -> Origin:
        """Say who gave a flag its value."""
        return self.origins[self.flag(name).key]

    def is_set(self, name: str) -> bool:
        """Tell whether the user gave the value, here or when the checkpoint was made."""
        return name in self._bare and self.origin(name).given

    def __iter__(self) -> Iterator[tuple[Flag, Any, Origin]]:
        for flag in self.flags:
            yield flag, self.values[flag.key], self.origins[flag.key]

    def participants(self) -> set[str]:
        """Plugins that own the command, a selected component or a set flag, or that the user named."""
        found = {owner_of(self.command, self.manager)} | {n for n, row in self.manager.plugins.items() if row.external}
        found |= {flag.plugin for flag, _, origin in self if origin.given}
        return found | {chosen.plugin for many in self.selections.values() for chosen in many}


def owner_of(command: Command, manager: PluginManager) -> str:
    """Return the plugin that provides a command."""
    return next((plugin for plugin, spec in manager.specs(Command) if spec is command), "")


def flags_of(command: Command, manager: PluginManager) -> list[Flag]:
    """List the flags that a command takes."""
    if command.roles not in manager.flags:
        found: list[Flag] = []
        for plugin, spec in manager.specs(Arguments):
            if {"base", *command.roles} & set(spec.roles):
                mine = plugin == owner_of(command, manager)
                with manager.guard(manager.plugins[plugin], f"reading its group {spec.name!r}", fatal=mine):
                    fields = [f for f in fields_of(load(manager.target(spec))) if not f.kind or kinds(f.kind)]
                    found += [Flag(f.name, f"{spec.name}.{f.name}", f, spec, plugin) for f in fields]
        manager.flags[command.roles] = found
    return list(manager.flags[command.roles])


def resolve(command: Command, manager: PluginManager, files: Raw, line: Raw) -> Config:
    """Build the configuration from what configuration files and the command line (or code) give."""
    config = Config(command, manager, flags_of(command, manager))
    given = _parsed(config, files)
    given |= {f.key: v for f in config.flags if (v := environment(f.field))}
    given |= _parsed(config, line)
    defaults = _defaults(config)
    restored = _restored(config, {**defaults, **given})
    for item in (item for many in _selected(config, {**defaults, **restored, **given}).values() for item in many):
        defaults |= _spec_defaults(config, item.spec, Origin("component", f"{item.spec.label} {item.spec.name}"))
    for key, (value, origin) in {**defaults, **restored, **given}.items():
        config.values[key], config.origins[key] = value, origin
    _choose(config)
    config.selections = _selected(config, {key: (value, config.origins[key]) for key, value in config.values.items()})
    for one, other in (pair for many in config.selections.values() for pair in permutations(many, 2)):
        if other.spec.name in one.spec.conflicts:
            both = f"--{one.flag} ({one.spec.name}) and --{other.flag} ({other.spec.name})"
            raise UsageError(f"{both} cannot be used together.")
    _warn_about_ignored(config)
    return config


def _parsed(config: Config, raw: Raw) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for name, (value, origin) in sorted(raw.items(), key=lambda item: item[0] == "set"):
        if name == "command" and origin.source == "config":
            if value != config.command.name:
                raise UsageError(f"{origin.detail}: this file is for {value}, not for {config.command.name}.")
            continue
        shown = name if name.isprintable() else repr(name)
        where = f"{origin.detail}: {shown}" if origin.source == "config" else origin.detail or f"--{shown}"
        flag = config.flag(name, where)
        if origin.source == "config":
            value = relative_to(Path(origin.detail.rpartition(":")[0]).parent, flag.field, value)
        found[flag.key] = (parse(flag.field, value, where), origin)
        for text in found[flag.key][0] if name == "set" else ():
            _apply_set(config, text, found, origin)
    return found


def environment(field: Field) -> Given | None:
    """Read the variables that a field names; the first is the current name, the others are older ones."""
    names = field.metadata.get("env", ())
    for name in (names,) if isinstance(names, str) else names:
        if raw := os.environ.get(name, ""):
            note = name if name == names or name == names[0] else f"{name}; its name is now {names[0]}"
            value = raw == "1" if field.admits(bool) and raw in ("0", "1") else raw
            return parse(field, value, f"environment variable {name}"), Origin("environment", note)
    return None


def _defaults(config: Config) -> dict[str, Given]:
    rows, command = config.manager.plugins, config.command
    found = {f.key: (copy(f.field.default), Origin("default", rows[f.plugin].title)) for f in config.flags}
    return found | _spec_defaults(config, command, Origin("command", command.name))


def _spec_defaults(config: Config, spec: Spec, origin: Origin) -> dict[str, Given]:
    return {flag.key: (value, origin) for name, value in spec.defaults.items() for flag in config._bare.get(name, ())}


def _restored(config: Config, known: Mapping[str, Given]) -> dict[str, Given]:
    folders: list[str] = []
    for flag in config.flags:
        value = known[flag.key][0] if flag.field.metadata.get("checkpoint") else None
        folders += [str(item) for item in reversed(value if isinstance(value, list) else [value or ""])]
    paths = [Path(text) if Path(text).is_dir() else Path(text.partition("=")[2]) for text in folders if text]
    found: dict[str, Given] = {}
    for folder in (path for path in paths if path.name and path.is_dir()):  # an adapter knows more than its model
        recorded = read_args_json(folder)
        here = {os.path.abspath(item) for item in known["base.external_plugins"][0]}
        named = recorded.get("external_plugins")
        more = [str(n) for n in (named if isinstance(named, list) else ()) if os.path.abspath(str(n)) not in here]
        if more:
            text = f"{folder} was made with more plugins; to use them add --external_plugins {shlex.join(more)}"
            config.warnings.append(text)
        for flag in config.flags:
            switch = config._bare.get(flag.group.restored_by)
            wanted = switch and known[switch[0].key][0] and flag.field.metadata.get("restore", True)
            if wanted and flag.name in recorded:
                where = f"{folder / 'args.json'}: {flag.name}"
                found[flag.key] = (parse(flag.field, recorded[flag.name], where), Origin("args.json", str(folder)))
    return found


def _choose(config: Config) -> None:
    """Let owners of flags that are still None choose, and keep their reason."""
    for spec, plugin in dict.fromkeys((flag.group, flag.plugin) for flag in config.flags):
        with blame(plugin, f"choosing settings of group {spec.name!r}"):
            for name, value, reason in load(spec.resolve)(config) if spec.resolve else ():
                flag = config.flag(name)
                if flag.group is not spec:
                    raise UsageError(f"group {spec.name!r} chose --{name}, which it does not own.")
                config.values[flag.key], config.origins[flag.key] = value, Origin("chosen", reason)
                config._groups.pop(flag.field.owner, None)


def _selected(config: Config, known: Mapping[str, Given]) -> dict[str, list[Selected]]:
    """Find the components of each kind that selector flags name, and those that a flag switches on."""
    found: dict[str, list[Selected]] = {flag.field.kind: [] for flag in config.flags if flag.field.kind}
    for flag in (flag for flag in config.flags if flag.field.kind):
        owner = None if known[flag.key][1].given else flag.field.metadata.get("owner", flag.plugin)
        for name in flag.field.names(known[flag.key][0]):
            try:
                hit = config.manager.find(kinds(flag.field.kind), name, default_of=owner)
            except (UnknownComponent, AmbiguousComponent) as error:
                fault = type(error)(" ".join([f"--{flag.name} {name}: {error}", *config.warnings]))
                if owner is None and not flag.field.metadata.get("late"):
                    raise fault from error
                config.missing[flag.field.kind] = fault  # a default is wrong only where it is needed
                continue
            found[flag.field.kind].append(Selected(*hit, flag.name))
    for kind, many in found.items():
        for plugin, spec in config.manager.specs(KINDS[kind]):
            owners = config._bare.get(spec.enabled_by, ()) if spec.enabled_by else ()
            if any(known[f.key][0] != f.field.default for f in owners) and spec not in [s.spec for s in many]:
                many.append(Selected(plugin, spec, spec.enabled_by))
    return found


def _warn_about_ignored(config: Config) -> None:
    chosen = {(kind, item.spec.name) for kind, many in config.selections.items() for item in many}
    for flag, _, origin in config:
        needed = flag.group.only_for
        if origin.given and origin.source != "args.json" and needed and not chosen & set(needed):
            who = " or ".join(f"{kinds(kind).label} {name}" for kind, name in needed)
            config.warnings.append(f"--{flag.name} has no effect here: only {who} reads it.")
    for kind, name in config.options.keys() - chosen:
        config.warnings.append(f"--set {kinds(kind).label}.{name}: no flag chose it; its options may have no effect.")


def _apply_set(config: Config, text: str, given: dict[str, Given], origin: Origin) -> None:
    """``--set GROUP.FLAG=value``, or ``--set KIND.NAME.OPTION=value`` for a component's options."""
    path, equals, raw = text.partition("=")
    head, _, rest = path.partition(".")
    name, dot, option = rest.rpartition(".")
    flags = {flag.name: flag for flag in config.flags if flag.group.name == head}
    labels = {kind.label: kind for kind in KINDS.values()}
    if not equals or not rest or (head in labels and not dot):
        raise UsageError(f"--set {text}: write --set GROUP.FLAG=value or --set KIND.NAME.OPTION=value.")
    if rest in flags:
        given[path] = (parse(flags[rest].field, raw, f"--set {path}"), Origin(origin.source, f"--set {path}"))
    elif head in labels:
        spec = config.manager.find(labels[head], name)[1]
        config.options.setdefault((spec.kind, spec.name), {})[option] = raw
    elif flags:
        hint = suggest(rest, flags, listed="Flags")
        raise UsageError(f"--set {text}: group {head!r} has no flag {rest!r}. {hint}")
    else:
        known = [*labels, *(flag.group.name for flag in config.flags)]
        raise UsageError(f"--set {text}: {head!r} is neither a group nor a kind. {suggest(head, known)}")
