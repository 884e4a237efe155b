"""A plugin on the bench: its specs, and the tiny model, tokenizer and runs that its components are tried with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from martlet import external_plugins as external
from martlet.errors import UsageError
from martlet.hookspecs import PROJECT as GROUP
from martlet.manager import PluginManager
from martlet.specs import KINDS, Arguments, Spec, load

from ..lonely import LonelyManager
from ..quiet import quiet
from .base import Broken, Samples, Skipped

if TYPE_CHECKING:
    from martlet.fields import Field
    from martlet.run import Run

CONVERSATION: tuple[dict[str, str], ...] = (
    {"role": "user", "content": "What is the colour of grass?"},
    {"role": "assistant", "content": "Grass is green."},
)


def installed(reference: str) -> metadata.EntryPoint | None:
    """Return the entry point that has this name or names this module."""
    found = metadata.entry_points(group=GROUP)
    return next((e for e in found if e.name == reference or e.value.partition(":")[0] == reference), None)


class Kit:
    """One plugin, opened for checking. Use it as a context manager: it lists external files and takes them back."""

    def __init__(self, plugin: str, samples: Samples | None = None) -> None:
        self.samples = samples or Samples()
        self._folder: str | None = None
        self.entry: metadata.EntryPoint | None = None
        self.reference = plugin
        if _is_path(plugin):
            path = Path(plugin).expanduser().resolve()
            project = path / "pyproject.toml"
            if not path.exists():
                raise UsageError(f"{plugin}: there is no such file or folder.")
            if project.is_file():
                self.reference = _project_plugin(project)
            else:
                self.reference = str(path)
                return
        self.entry = installed(self.reference)
        if self.entry is None and "." not in self.reference and not _importable(self.reference):
            names = ", ".join(sorted(e.name for e in metadata.entry_points(group=GROUP))) or "none"
            raise UsageError(f"{plugin}: neither a file, nor a module, nor an installed plugin. Installed: {names}.")

    def __enter__(self) -> Kit:
        self._listed = os.environ.get(external.VARIABLE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._listed is None:
            os.environ.pop(external.VARIABLE, None)
        else:
            os.environ[external.VARIABLE] = self._listed

    # The plugin

    @cached_property
    def alone(self) -> PluginManager:
        """A manager with nothing but this plugin; raises what loading it raises."""
        manager = LonelyManager(strict=True)
        if self.entry is not None:
            manager.add(self.entry.name, self.entry.load(), self.entry.dist.name if self.entry.dist else "?")
        else:
            manager.load_external(self.reference)
        return manager

    @property
    def name(self) -> str:
        """Its name as a plugin: what stands before ``::``."""
        return next(iter(self.alone.plugins))

    @cached_property
    def specs(self) -> list[Spec]:
        """All it provides, in the order of the kinds; raises what a hook raises."""
        return [spec for kind in KINDS.values() for _, spec in self.alone.specs(kind)]

    @cached_property
    def manager(self) -> PluginManager:
        """A manager with everything installed, and this plugin."""
        manager = PluginManager()
        manager.load_installed()
        if self.name not in manager.plugins:
            if self.entry is not None:
                manager.add(self.entry.name, self.entry.load())
            else:
                manager.load_external(self.reference)
        return manager

    @property
    def environment(self) -> dict[str, str]:
        """Environment for a fresh interpreter that finds what this one finds, without external plugins."""
        found = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
        found.pop(external.VARIABLE, None)
        return found

    @cached_property
    def listing(self) -> dict[str, Any]:
        """What listing the plugin does in a fresh interpreter, as ``probe`` reports it."""
        command = [sys.executable, "-B", "-m", f"{__package__}.probe", self.reference]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=120)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Broken(f"listing it in a fresh interpreter failed: {last}")
        report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return report

    def build(self, spec: Spec) -> Any:
        """Make the component, as a run would; ``Skipped`` where a requirement of it is not installed."""
        for line in spec.requires:
            self.require_installed(line, spec)
        return self.manager.build(spec)

    def require_installed(self, line: str, spec: Spec) -> None:
        from packaging.requirements import Requirement

        wanted = Requirement(line)
        try:
            fits = wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
        except metadata.PackageNotFoundError:
            fits = False
        if not fits:
            raise Skipped(f"{spec.label} {spec.name!r} needs {line}, which is not installed.")

    # Runs

    @cached_property
    def flags(self) -> dict[str, list[tuple[Field, tuple[str, ...]]]]:
        """Every flag of every installed plugin: name -> its fields, each with the roles of its group."""
        from martlet.fields import fields_of

        found: dict[str, list[tuple[Field, tuple[str, ...]]]] = {}
        for _, group in self.manager.specs(Arguments):
            for field in fields_of(load(self.manager.target(group))):
                found.setdefault(field.name, []).append((field, group.roles))
        return found

    def selector(self, kind: str, roles: tuple[str, ...]) -> str:
        """Name the flag of these roles that selects components of ``kind``; empty where there is none."""
        for name, many in self.flags.items():
            if any(field.kind == kind and set(roles) & set(of) for field, of in many):
                return name
        return ""

    def run(self, *roles: str, select: Spec | None = None, **flags: Any) -> Run:
        """Return a run that takes the groups of these roles.

        ``select``: the component that it selects, where a flag of these roles can. ``Skipped`` where a flag in
        ``flags`` has no installed owner.
        """
        import martlet

        known = {name for name, many in self.flags.items() if any(set(roles) & set(of) for _, of in many)}
        if missing := sorted(set(flags) - known):
            raise Skipped(f"no installed plugin has the flag --{missing[0]}; install the one that has, to check this.")
        given = {name: value for name, value in self.samples.flags.items() if name in known} | flags
        if select is not None and (flag := self.selector(select.kind, roles)):
            many = any(field.admits(list) for field, _ in self.flags[flag])
            given[flag] = [f"{self.name}::{select.name}"] if many else f"{self.name}::{select.name}"
        if self.entry is None:
            given["external_plugins"] = [self.reference]
        elif os.environ.get("MARTLET_DISABLE_PLUGIN_AUTOLOAD", "") not in ("", "0"):
            raise Skipped(
                "MARTLET_DISABLE_PLUGIN_AUTOLOAD keeps installed plugins out of runs; unset it to check this."
            )
        return martlet.prepare(roles=roles, **given)

    # Tiny fixtures

    @property
    def folder(self) -> Path:
        """A folder that is removed with the kit."""
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="martlet-check-")
        return Path(self._folder)

    @cached_property
    def model_folder(self) -> Path:
        """A checkpoint with random weights, as ``save_tiny_model`` makes it."""
        from ..tiny import save_tiny_model

        return save_tiny_model(self.folder / "model")

    @cached_property
    def tokenizer(self) -> Any:
        from ..tiny import tiny_tokenizer

        return tiny_tokenizer()

    def fresh_model(self) -> Any:
        """Load the tiny model anew, in evaluation mode."""
        from transformers import AutoModelForCausalLM

        with quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(self.model_folder)
        return model.eval()


def _is_path(reference: str) -> bool:
    return reference.endswith(".py") or os.sep in reference or Path(reference).is_dir()


def _project_plugin(project: Path) -> str:
    """Return the name of the plugin that a project defines; it has to be installed to be checked."""
    try:
        entries = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"][GROUP]
    except (KeyError, OSError, ValueError) as error:
        raise UsageError(f"{project}: it has no readable entry point in [project.entry-points.{GROUP}].") from error
    name = next(iter(entries))
    if installed(name) is None:
        raise UsageError(f"{project.parent}: plugin {name!r} is not installed; pip install -e {project.parent} first.")
    return str(name)


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
