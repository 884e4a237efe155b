"""Discover plugins, keep the broken ones out, and answer questions about the rest."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

import pluggy

from . import external_plugins as external
from . import hookspecs
from .errors import AmbiguousComponent, PluginError, UnknownComponent, UsageError, suggest
from .hookspecs import PROJECT
from .specs import KINDS, Ref, Spec

KERNEL = "martlet-kernel"
S = TypeVar("S", bound=Spec)


@dataclass
class Plugin:
    """One row of ``plugin list``. ``origin``: the distribution, or the file or module that the user named."""

    name: str
    origin: str
    version: str = ""
    external: bool = False
    sha256: str = ""
    error: PluginError | None = None
    seconds: float = 0.0
    hooks: list[str] = field(default_factory=list)
    title = property(lambda self: f"{self.name} {self.version}".strip())


class PluginManager:
    def __init__(self, *, disabled: Iterable[str] = (), strict: bool = False) -> None:
        self.pm = pluggy.PluginManager(PROJECT)
        self.pm.add_hookspecs(hookspecs)
        self.strict = strict
        self.disabled = set(disabled)
        self.plugins: dict[str, Plugin] = {}
        self.flags: dict[tuple[str, ...], Any] = {}  # what ``config.flags_of`` found, by roles
        self._specs: dict[str, list[tuple[str, Spec]]] = {}

    def load_installed(self) -> None:
        """Load every entry point, in name order; quarantine the ones that raise."""
        self.add("kernel", importlib.import_module("martlet.builtin"), KERNEL, metadata.version(KERNEL))
        if os.environ.get("MARTLET_DISABLE_PLUGIN_AUTOLOAD", "") not in ("", "0"):
            return
        entries = sorted(metadata.entry_points(group=PROJECT), key=lambda entry: entry.name)
        owners = {one.name: {e.dist.name for e in entries if e.dist and e.name == one.name} for one in entries}
        for entry in entries:
            if entry.name in self.disabled or entry.name in self.plugins or entry.dist is None:
                continue
            row = Plugin(entry.name, entry.dist.name, entry.dist.version)
            with self.guard(row, "loading", fatal=False):
                if len(owners[entry.name]) > 1:
                    both = " and ".join(sorted(owners[entry.name]))
                    raise UsageError(f"{both} both install a plugin of this name; uninstall one of them.")
                for line in entry.dist.requires or ():
                    if line.lower().replace("_", "-").startswith(KERNEL):  # the version handshake
                        _check_requirement(line, "it", f"--upgrade {entry.dist.name}")
                self._register(row, entry.load())
        for name in self.disabled - owners.keys():
            raise UsageError(f"--disable_plugins {name}: no such plugin. {suggest(name, owners)}")

    def load_external(self, *references: str) -> None:
        """Load files, folders or dotted modules that the user named: errors are fatal."""
        for reference in references:
            before = external.references()
            module = external.add(reference)
            name = module.rpartition(".")[2] if module.startswith(external.PACKAGE + ".") else module
            if name in self.plugins and self.plugins[name].error is None:
                if self.plugins[name].external:
                    continue
                raise UsageError(f"--external_plugins {reference}: plugin {name!r} is installed; rename the file.")
            row = Plugin(name, reference, external=True, sha256=external.loaded.get(module, ""))
            try:
                with self.guard(row, "loading", fatal=True):
                    self._register(row, importlib.import_module(module))
                    if not row.hooks:
                        raise UsageError("it implements no hook; is @hookimpl missing?")
            except PluginError:
                os.environ[external.VARIABLE] = os.pathsep.join(before)
                raise

    def add(self, name: str, plugin: object, origin: str = "code", version: str = "") -> None:
        """Register a module or object that is at hand; errors are fatal."""
        with self.guard(row := Plugin(name, origin, version), "loading", fatal=True):
            self._register(row, plugin)

    def _register(self, row: Plugin, plugin: object) -> None:
        try:
            self.pm.register(plugin, name=row.name)
            self._check_hook_names(plugin)
        except (pluggy.PluginValidationError, UsageError):
            if self.pm.has_plugin(row.name):
                self.pm.unregister(plugin)
            raise
        row.hooks = sorted(caller.name for caller in self.pm.get_hookcallers(plugin) or ())
        self._specs.clear()
        self.flags.clear()

    def _check_hook_names(self, plugin: object) -> None:
        known = [name for name in vars(hookspecs) if name.startswith(("provide_", "on_"))]
        for name in dir(plugin):
            if name not in known and self.pm.parse_hookimpl_opts(plugin, name) is not None:
                raise UsageError(f"there is no hook {name!r}. {suggest(name, known, listed='Hooks')}")

    @contextmanager
    def guard(self, row: Plugin, phase: str, *, fatal: bool) -> Iterator[None]:
        """Time a phase, attribute its error to a plugin, and quarantine or re-raise."""
        self.plugins[row.name] = row
        start = time.perf_counter()
        try:
            yield
        except (Exception, SystemExit) as error:
            row.error = PluginError(row.name, phase, error)
            if fatal or self.strict or row.external:
                raise row.error from error
            print(f"warning: {row.error} (see `martlet plugin doctor`)", file=sys.stderr)
        finally:
            row.seconds += time.perf_counter() - start

    def specs(self, kind: type[S]) -> list[tuple[str, S]]:
        """Return ``(plugin name, spec)`` of one kind; each implementation is called on its own, once."""
        if kind.kind not in self._specs:
            hook = f"provide_{kind.kind}"
            found: list[tuple[str, Spec]] = []
            for impl in getattr(self.pm.hook, hook).get_hookimpls():
                row = self.plugins[impl.plugin_name]
                with self.guard(row, f"running {hook}()", fatal=False):
                    found += [(row.name, spec) for spec in _checked(impl.function(), kind)]
            self._specs[kind.kind] = sorted(found, key=lambda pair: (pair[1].name, pair[0]))
        return self._specs[kind.kind]  # type: ignore[return-value]

    def find(self, kind: type[S], name: str, *, default_of: str | None = None) -> tuple[str, S]:
        """Resolve ``name`` or ``plugin::name`` to ``(plugin, spec)``.

        A name that nobody wrote means the component of plugin ``default_of``: others of this name change nothing. Only
        where the user wrote the name, or named the plugin itself, does a spec with ``replace=True`` win.
        """
        owner, _, bare = str(name).rpartition("::")
        hits = [pair for pair in self.specs(kind) if pair[1].name == bare and owner in ("", pair[0])]
        if len(hits) > 1:
            winners = [p for p in hits if p[1].replace and (default_of is None or self.plugins[p[0]].external)]
            plain = [p for p in hits if not p[1].replace] or hits
            hits = winners or [p for p in plain if p[0] == default_of] or plain
        if len(hits) == 1:
            return hits[0]
        if hits:
            choices = " or ".join(f"{plugin}::{bare}" for plugin, _ in hits)
            raise AmbiguousComponent(f"{kind.label} {bare!r} is provided by more than one plugin; write {choices}.")
        raise UnknownComponent(self._unknown(kind, name))

    def target(self, spec: Spec) -> Ref:
        """Return the spec's target or, where it has none, that of its kind's ``default``."""
        if spec.target is not None:
            return spec.target
        found = self.find(type(spec), "default", default_of="")[1].target
        if found is None:
            raise UsageError(f"{spec.label} {spec.name!r} has no target, and neither has the kind's default.")
        return found

    def build(self, spec: Spec, options: dict[str, Any] | None = None) -> Any:
        """Check ``requires`` and make the component."""
        for line in spec.requires:
            _check_requirement(line, f"{spec.label} {spec.name!r}")
        return spec.build(self.target(spec), options)

    def implementations(self, hook: str, plugins: set[str]) -> list[tuple[str, Any]]:
        """Return ``(plugin, function)`` of those plugins that implement an event hook, in name order."""
        found = getattr(self.pm.hook, hook).get_hookimpls()
        return sorted(((i.plugin_name, i.function) for i in found if i.plugin_name in plugins), key=lambda p: str(p[0]))

    def _unknown(self, kind: type[Spec], name: str) -> str:
        lines = [f"No plugin provides {kind.label} {name!r}.", suggest(name, [s.name for _, s in self.specs(kind)])]
        if broken := [str(row.error) for row in self.plugins.values() if row.error]:
            lines.append("These plugins did not load, and may be why: " + "; ".join(broken))
        return " ".join(lines)


def _checked(specs: Iterable[Any] | None, kind: type[Spec]) -> list[Any]:
    found = list(specs or ())
    for spec in found:
        if not isinstance(spec, kind) or not isinstance(spec.name, str) or not spec.name:
            raise UsageError(f"it yields {spec!r}, which is not a {kind.__name__} with a name.")
    names = [spec.name for spec in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"it yields {kind.label} {twice[0]!r} twice; rename one of them.")
    return found


def _check_requirement(line: str, who: str, remedy: str = "") -> None:
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate():
        return
    have = next((found.version for found in metadata.distributions(name=requirement.name)), "")
    if not have or not requirement.specifier.contains(have, prereleases=True):
        state = f"{have} is installed" if have else "it is not installed"
        raise UsageError(f"{who} needs {line}, but {state}: pip install " + (remedy or f"'{line}'"))


def kinds(name: str | type[S]) -> type[Spec]:
    """Return a kind by its plural or singular name."""
    found = KINDS | {kind.label: kind for kind in KINDS.values()}
    if isinstance(name, type) or name in found:
        return name if isinstance(name, type) else found[name]
    raise UnknownComponent(f"There is no kind {name!r}. {suggest(name, KINDS, listed='Kinds')}")
