"""A plugin manager for tests."""

from __future__ import annotations

from martlet.manager import PluginManager


class LonelyManager(PluginManager):
    """A manager that sees only what it is handed: ``add`` and ``load_external`` work, discovery raises.

    A test that uses it cannot come to depend on what happens to be installed.
    """

    def load_installed(self) -> None:
        raise RuntimeError("This manager refuses to discover installed plugins; use load_external() or add().")
