"""``martlet plugin doctor``: works when everything is broken, and says what is."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("sdk")

GOOD = "from martlet import Loss, hookimpl\n@hookimpl\ndef provide_losses():\n    yield Loss('steep', len)\n"


def test_a_healthy_environment_exits_zero(site, cli, monkeypatch):
    monkeypatch.setenv("MARTLET_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = cli("plugin", "doctor", "--external_plugins", "martlet_sdk.plugin")
    assert result.code == 0, result.out
    assert "0 problems" in result.out


def test_every_broken_plugin_is_named_with_its_fault(site, cli):
    site.install("one", "raise RuntimeError('no driver')")
    site.install("two", GOOD + "    raise RuntimeError('half-way')\n")
    site.install("three", GOOD.replace("provide_losses", "provide_loss"))
    site.install("four", GOOD, requires=("martlet-kernel>=9",))
    result = cli("plugin", "doctor")
    assert result.code == 1
    for part in ("'one'", "no driver", "'two'", "half-way", "'three'", "provide_losses", "'four'", ">=9"):
        assert part in result.out


def test_name_clashes_are_reported(site, cli):
    site.install("one", GOOD)
    site.install("two", GOOD)
    assert "one::steep" in cli("plugin", "doctor").out


def test_a_replacement_is_no_clash(site, cli):
    site.install("one", GOOD)
    site.install("two", GOOD.replace("len", "len, replace=True"))
    assert "steep" not in cli("plugin", "doctor").out


GROUP = """
from dataclasses import dataclass
from martlet import Arguments, Command, hookimpl

@dataclass
class Group:
    depth: int = 1

@hookimpl
def provide_arguments():
    yield Arguments("{name}", {target}, roles=("{role}",))

@hookimpl
def provide_commands():
    yield Command("pour {name}", print, roles=("pour",))
"""


def test_flag_clashes_are_reported(site, cli):
    site.install("one", GROUP.format(name="one", target="Group", role="pour"))
    site.install("two", GROUP.format(name="two", target="Group", role="pour"))
    out = cli("plugin", "doctor").out
    assert "--depth" in out and "one" in out and "two" in out


@pytest.mark.parametrize("role", ["pour", "base"])
def test_a_group_that_cannot_be_imported_is_reported(site, cli, role):
    site.install("lost", GROUP.format(name="one", target="'no_such_module:Group'", role=role))
    result = cli("plugin", "doctor")
    assert result.code == 1, result
    assert "no_such_module" in result.out


def test_child_processes_are_checked(plugin, cli):
    """A plugin that loads here and not in a child would fail a training run's workers."""
    source = "import os\nif os.getppid() == {pid}:\n    raise RuntimeError('not in a child')\n" + GOOD
    path = plugin("homebound", source.format(pid=__import__("os").getpid()))
    result = cli("plugin", "doctor", "--external_plugins", path)
    assert result.code == 1
    assert "child process" in result.out and "not in a child" in result.out
