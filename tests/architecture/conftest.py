"""The distributions of this repository, read from disk: ``distribution`` makes a test run once for each of them."""

from __future__ import annotations

import ast
import os
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "martlet-kernel"
SDK = "martlet-sdk"


@dataclass(frozen=True)
class Import:
    """One import statement of a source file."""

    module: str
    names: tuple[str, ...]
    line: int
    typing_only: bool
    """It stands under ``if TYPE_CHECKING``."""

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


@dataclass(eq=False)
class Distribution:
    """A folder with a ``pyproject.toml``."""

    folder: Path

    @cached_property
    def project(self) -> dict[str, Any]:
        found: dict[str, Any] = tomllib.loads(self.folder.joinpath("pyproject.toml").read_text(encoding="utf-8"))[
            "project"
        ]
        return found

    @cached_property
    def name(self) -> str:
        return canonicalize_name(self.project["name"])

    @property
    def contrib(self) -> bool:
        return "plugins-contrib" in self.folder.parts

    @property
    def plugin(self) -> str:
        """Its entry-point name."""
        return self.name.removeprefix("martlet-")

    @property
    def package(self) -> Path:
        """The folder that is imported."""
        return self.folder / "src" / ("martlet" if self.name == KERNEL else self.name.replace("-", "_"))

    @cached_property
    def requirements(self) -> list[Requirement]:
        return [Requirement(line) for line in self.project.get("dependencies", ())]

    @property
    def declared(self) -> set[str]:
        return {canonicalize_name(item.name) for item in self.requirements}

    @cached_property
    def sources(self) -> dict[Path, ast.Module]:
        """Every Python file that is installed, parsed. Templates for new plugins are text, not source."""
        files = (file for file in sorted((self.folder / "src").rglob("*.py")) if "scaffolds" not in file.parts)
        return {file: ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in files}

    def place(self, file: Path, node: ast.AST | None = None) -> str:
        """Return ``path:line`` for a message."""
        line = f":{node.lineno}" if node is not None and hasattr(node, "lineno") else ""
        return f"{file.relative_to(ROOT)}{line}"

    def imports(self, file: Path) -> list[Import]:
        """List absolute imports of a file, at any depth."""
        tree = self.sources[file]
        guarded = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for statement in node.body
            for inner in ast.walk(statement)
        }
        found = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [Import(alias.name, (), node.lineno, id(node) in guarded) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = tuple(alias.name for alias in node.names)
                found.append(Import(node.module, names, node.lineno, id(node) in guarded))
        return found


@dataclass(eq=False)
class Repository:
    """All distributions together."""

    distributions: dict[str, Distribution]

    @cached_property
    def owners(self) -> dict[str, str]:
        """Import name -> distribution."""
        return {item.package.name: item.name for item in self.distributions.values()}

    def siblings(self, distribution: Distribution, *, run_time_only: bool = True) -> set[str]:
        """Return the distributions that the source of one imports."""
        return {
            self.owners[found.root]
            for file in distribution.sources
            for found in distribution.imports(file)
            if found.root in self.owners and not (run_time_only and found.typing_only)
        } - {distribution.name}

    @cached_property
    def specs(self) -> list[tuple[str, Any]]:
        """``(distribution, spec)`` of every component that the repository provides."""
        from martlet import KINDS, PluginManager

        names = {item.plugin: item.name for item in self.distributions.values()}
        manager = PluginManager()
        manager.load_installed()
        return [
            (names[plugin], spec) for kind in KINDS.values() for plugin, spec in manager.specs(kind) if plugin in names
        ]


def _distributions() -> Iterator[Distribution]:
    files = [ROOT / "kernel/pyproject.toml", ROOT / "sdk/pyproject.toml", *ROOT.glob("plugins*/*/pyproject.toml")]
    for file in sorted(files):
        if file.is_file():
            yield Distribution(file.parent)


REPOSITORY = Repository({item.name: item for item in _distributions()})


@pytest.fixture(scope="session")
def repository() -> Repository:
    return REPOSITORY


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "distribution" in metafunc.fixturenames:
        metafunc.parametrize("distribution", list(REPOSITORY.distributions.values()), ids=lambda item: item.name)


@pytest.fixture(autouse=True)
def _every_installed_plugin_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MARTLET_"):
            monkeypatch.delenv(name)
    assert sys.version_info >= (3, 11)
