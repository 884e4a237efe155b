"""Fixtures of the kernel's tests: installed distributions made of text, a command line in this process, a plugin."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from martlet import cli as command_line

HERE = Path(__file__).parent


@pytest.fixture
def demo() -> str:
    """A plugin file with a command ``demo`` that takes every type of flag and prints its values with origins."""
    return str(HERE / "plugins" / "demo.py")


@pytest.fixture(autouse=True)
def clean_process(tmp_path: Path) -> Iterator[None]:
    """Give each test an environment without Martlet's variables, and forget what it loaded."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("MARTLET_", "SWIFT_", "DEMO_")) or name in (
            "LOG_LEVEL",
            "RANK",
            "LOCAL_RANK",
            "WORLD_SIZE",
        ):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.startswith("martlet.external.") or file.startswith(str(tmp_path)):
            del sys.modules[name]
    log = logging.getLogger("martlet")
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.visible: set[str] = set()
        """Names of distributions of this environment that this test may see."""

    def install(
        self,
        name: str,
        source: str,
        *,
        version: str = "1.0",
        requires: tuple[str, ...] = (),
        entry: str = "",
        module: str = "",
    ) -> str:
        """Install ``acme-NAME`` with one module and one entry point; return the module's name."""
        module = module or f"acme_{name.replace('-', '_')}"
        self.folder.joinpath(f"{module}.py").write_text(textwrap.dedent(source))
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        lines = [
            f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: {version}",
            *(f"Requires-Dist: {r}" for r in requires),
        ]
        info.joinpath("METADATA").write_text("\n".join(lines) + "\n")
        info.joinpath("entry_points.txt").write_text(f"[martlet]\n{entry or name} = {module}\n")
        importlib.invalidate_caches()
        return module


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The only plugins installed for this test: what ``site.install`` writes."""
    folder = tmp_path / "site"
    folder.mkdir()
    here = Site(folder)
    monkeypatch.syspath_prepend(str(folder))
    search = metadata.MetadataPathFinder.find_distributions

    def found(*arguments: Any, **named: Any) -> Iterator[metadata.Distribution]:
        for dist in search(*arguments, **named):
            own = str(dist.locate_file("")).startswith(str(folder))
            if own or not _adds_a_plugin(dist) or dist.name in here.visible:
                yield dist

    monkeypatch.setattr(metadata.MetadataPathFinder, "find_distributions", found)
    return here


@pytest.fixture
def sdk(site: Site) -> None:
    """Let the commands that inspect plugins and settings be found; they live in the SDK."""
    pytest.importorskip("martlet_sdk", reason="plugin list, show, doctor, schema and plan are commands of martlet-sdk")
    site.visible.add("martlet-sdk")


_known: dict[str, bool] = {}


def _adds_a_plugin(dist: metadata.Distribution) -> bool:
    place = str(getattr(dist, "_path", id(dist)))
    if place not in _known:
        _known[place] = "[martlet]" in (dist.read_text("entry_points.txt") or "")
    return _known[place]


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., str]:
    """Write a plugin file and return its path: ``plugin("short", "from martlet import ...")``."""

    def write(name: str, source: str, folder: str = "files") -> str:
        path = tmp_path / folder / (name if "." in name else f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return str(path)

    return write


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command line in this process: ``cli("plugin", "list")``."""

    def call(*words: Any) -> Result:
        capsys.readouterr()
        logging.getLogger("martlet").handlers.clear()
        code = command_line.main([str(word) for word in words])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(cli: Callable[..., Result]) -> Callable[..., str]:
    """Run a command line that is wrong; return what it says after checking that it is one sentence and exits 2."""

    def call(*words: Any, code: int = 2) -> str:
        result = cli(*words)
        assert result.code == code, result
        last = result.err.strip().splitlines()[-1]
        assert last.startswith("error: "), result.err
        assert "Traceback" not in result.err
        return last

    return call


@pytest.fixture
def settings(cli: Callable[..., Result], demo: str) -> Callable[..., dict[str, Any]]:
    """Run ``martlet demo`` with these words; return flag -> {value, source, detail}."""

    def call(*words: Any) -> dict[str, Any]:
        result = cli("demo", *words, "--external_plugins", demo)
        assert result.code == 0, result.err
        found: dict[str, Any] = json.loads(result.out.splitlines()[-1])
        return found

    return call


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a fresh interpreter, without the plugins that happen to be installed here."""

    def call(source: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "program.py"
        script.write_text(textwrap.dedent(source))
        everything = {**os.environ, "MARTLET_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
        command = [sys.executable, str(script), *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=everything, timeout=60, cwd=tmp_path, check=False
        )

    return call
