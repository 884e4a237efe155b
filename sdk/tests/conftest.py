"""Plugins on the bench: as they stand, and with one line changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest

from martlet_sdk.contract import Result, Samples
from martlet_sdk.contract.base import check_name, location, run_check
from martlet_sdk.contract.general import CHECKS
from martlet_sdk.contract.kit import Kit
from martlet_sdk.contract.runner import component_checks

HERE = Path(__file__).parent / "plugins"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test depend on which other plugins are installed."""
    monkeypatch.setenv("MARTLET_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("MARTLET_EXTERNAL_PLUGINS", raising=False)


@pytest.fixture(scope="session")
def source() -> Callable[[str], str]:
    """Return the text of a plugin that keeps its contract: one of ``plugins/``, or the scaffold of a kind."""

    def read(name: str) -> str:
        file = HERE / f"{name}_plugin.py"
        scaffold = files("martlet_sdk") / "scaffolds" / "files" / f"{name}.py"
        return (file if file.exists() else scaffold).read_text(encoding="utf-8")

    return read


Verdict = Callable[..., dict[str, Result]]


@pytest.fixture
def verdict(source: Callable[[str], str], tmp_path: Path) -> Verdict:
    """Return a function that checks a plugin with ``old`` replaced by ``new``: check -> result."""

    def check(
        name: str,
        old: str = "",
        new: str = "",
        *,
        samples: Samples | None = None,
        general: bool = False,
        only: str = "",
    ) -> dict[str, Result]:
        text = source(name)
        if old:
            assert old in text, f"{name}: {old!r} is not in the plugin"
            text = text.replace(old, new)
        file = tmp_path / f"{name}_bench.py"
        file.write_text(text, encoding="utf-8")
        if name == "dataset":
            rows = files("martlet_sdk") / "scaffolds" / "files" / "dataset.jsonl"
            (tmp_path / "my_name.jsonl").write_text(rows.read_text("utf-8"), encoding="utf-8")
        with Kit(str(file), samples) as kit:
            if general:
                checks = {check_name(one): partial(one, kit) for one in CHECKS}
            else:
                checks = {id: partial(one, kit, spec) for id, spec, one in component_checks(kit.specs)}
            assert not only or only in checks, f"no check {only}; there are {list(checks)}"
            where = {id: location(spec) for id, spec, _ in component_checks(kit.specs)} if not general else {}
            return {
                id: run_check(id, one, where=where.get(id, ""), skip=kit.samples.skip)
                for id, one in checks.items()
                if only in ("", id)
            }

    return check


@pytest.fixture
def fails(verdict: Verdict) -> Callable[..., None]:
    """Return a function that asserts which check a changed plugin fails, and what it is told."""

    def fail(name: str, old: str, new: str, check: str, said: str, **more: object) -> None:
        result = verdict(name, old, new, only=check, **more)[check]
        assert result.outcome == "failed", f"{check} {result.outcome}: {result.message}"
        assert said in result.message, result.message

    return fail
