"""The contract as a pytest class."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pytest

from martlet.specs import Spec

from . import general
from .base import Check, Result, Samples, check_name, location, run_check
from .kit import Kit
from .runner import component_checks

if TYPE_CHECKING:
    from _pytest.python import Metafunc


class PluginContract:
    """Subclass it in a test module, name the plugin, and run pytest: every check is a test.

        class TestBrevity(PluginContract):
            plugin = "martlet_brevity.plugin"

    ``plugin`` is the name of an installed plugin, a module, or the path of a file or package folder. ``samples`` tells
    the kit what it cannot know: rows for a preprocessor, flags for a run, checks that do not apply and why.
    """

    plugin: ClassVar[str] = ""
    samples: ClassVar[Samples] = Samples()

    @classmethod
    def pytest_generate_tests(cls, metafunc: Metafunc) -> None:
        """Make one test of every check of every component."""
        if "component" in metafunc.fixturenames:
            found: list[tuple[str, Spec, Check]] = []
            contract = metafunc.cls or cls
            try:
                with Kit(contract.plugin, contract.samples) as kit:
                    found = list(component_checks(kit.specs))
            except Exception:  # test_plugin[loads] says what it is
                found = []
            ids = [id for id, _, _ in found]
            metafunc.parametrize("component", ids)

    @pytest.fixture(scope="class")
    @classmethod
    def kit(cls) -> Iterator[Kit]:
        """The plugin on the bench."""
        with Kit(cls.plugin, cls.samples) as kit:
            yield kit

    @pytest.mark.parametrize("check", general.CHECKS, ids=check_name)
    def test_plugin(self, kit: Kit, check: Check) -> None:
        """Check what holds for any plugin."""
        _report(run_check(f"plugin:{check_name(check)}", partial(check, kit), skip=self.samples.skip))

    def test_component(self, kit: Kit, component: str) -> None:
        """Check what holds for components of a kind."""
        spec, check = next((spec, check) for id, spec, check in component_checks(kit.specs) if id == component)
        _report(run_check(component, partial(check, kit, spec), where=location(spec), skip=self.samples.skip))


def _report(result: Result) -> None:
    __tracebackhide__ = True
    if result.outcome == "skipped":
        pytest.skip(result.message)
    if result.outcome == "failed":
        where = f" [{result.where}]" if result.where else ""
        pytest.fail(f"{result.id}: {result.message}{where}\n{result.trace}".rstrip(), pytrace=False)
