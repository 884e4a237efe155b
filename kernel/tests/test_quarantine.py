"""A plugin that breaks never stops the rest, unless the user named it or asked for strictness."""

from __future__ import annotations

import pytest

from martlet import Loss, PluginError, PluginManager, Tuner, UnknownComponent, hookimpl

GOOD = """
from martlet import Loss, hookimpl

@hookimpl
def provide_losses():
    yield Loss("good", len)
"""

BROKEN = {
    "raises on import": ("raise RuntimeError('no driver')", "no driver"),
    "has a syntax error": ("def provide(:", "SyntaxError"),
    "exits on import": ("import sys; sys.exit(3)", "SystemExit"),
    "misspells a hook": (
        "from martlet import hookimpl\n@hookimpl\ndef provide_lossess():\n    yield",
        "Did you mean provide_losses",
    ),
    "asks for arguments": ("from martlet import hookimpl\n@hookimpl\ndef provide_losses(run):\n    yield", "run"),
    "raises half-way": (GOOD.replace('"good"', '"half"') + "    raise RuntimeError('half-way')\n", "half-way"),
    "raises at once": (GOOD.replace('yield Loss("good", len)', "raise RuntimeError('at once')"), "at once"),
    "exits half-way": (GOOD.replace('"good"', '"half"') + "    raise SystemExit(4)\n", "SystemExit"),
    "yields a wrong type": (GOOD.replace('Loss("good", len)', "('good', len)"), "not a Loss"),
    "yields another kind": (GOOD.replace("Loss", "Tuner"), "not a Loss"),
    "returns no list": (GOOD.replace('yield Loss("good", len)', "return 5"), "int"),
    "yields a name twice": (GOOD + '    yield Loss("good", min)\n', "'good' twice"),
    "yields a name that is no text": (GOOD.replace('"good"', "None"), "None"),
    "needs a missing library": ("import a_library_that_is_not_here", "a_library_that_is_not_here"),
}


@pytest.fixture
def broken(site, request):
    source, said = BROKEN[request.param]
    site.install("broken", source)
    site.install("fine", GOOD)
    return said


@pytest.mark.parametrize("broken", BROKEN, indirect=True)
def test_the_rest_works_and_the_fault_is_kept_with_its_plugin(broken, capsys):
    manager = PluginManager()
    manager.load_installed()
    assert [(plugin, spec.name) for plugin, spec in manager.specs(Loss)] == [("fine", "good")]
    assert broken in str(manager.plugins["broken"].error)
    assert manager.plugins["fine"].error is None
    said = capsys.readouterr().err
    assert said.count("warning: plugin 'broken' failed") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize("broken", BROKEN, indirect=True)
def test_a_broken_plugin_is_named_where_it_may_be_why_a_name_is_unknown(broken):
    manager = PluginManager()
    manager.load_installed()
    with pytest.raises(UnknownComponent) as caught:
        manager.find(Loss, "half")
    assert "'broken'" in str(caught.value) and broken in str(caught.value)


@pytest.mark.parametrize("fault", BROKEN)
def test_the_same_faults_are_fatal_in_a_plugin_that_the_user_named(fault, plugin):
    source, said = BROKEN[fault]
    manager = PluginManager()
    with pytest.raises(PluginError) as caught:
        manager.load_external(plugin("broken", source))
        manager.specs(Loss)
    assert said in str(caught.value)
    assert (caught.value.plugin, caught.value.exit_code) == ("broken", 2)


@pytest.mark.parametrize("fault", ["raises on import", "raises half-way", "misspells a hook"])
def test_the_same_faults_are_fatal_when_strict(fault, site):
    site.install("broken", BROKEN[fault][0])
    manager = PluginManager(strict=True)
    with pytest.raises(PluginError, match="'broken'"):
        manager.load_installed()
        manager.specs(Loss)


def test_half_of_a_broken_generator_is_not_kept(site):
    site.install("broken", BROKEN["raises half-way"][0])
    manager = PluginManager()
    manager.load_installed()
    assert manager.specs(Loss) == []


def test_one_broken_hook_does_not_take_the_others_of_its_plugin_along(site):
    more = '\n@hookimpl\ndef provide_tuners():\n    yield Tuner("kept", len)\n'
    site.install("broken", BROKEN["raises half-way"][0].replace("import Loss", "import Loss, Tuner") + more)
    manager = PluginManager()
    manager.load_installed()
    manager.specs(Loss)
    assert manager.find(Tuner, "kept")[0] == "broken"


def test_control_c_while_loading_is_not_swallowed(site):
    site.install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        PluginManager().load_installed()


def test_a_misspelt_hook_of_an_object_is_refused_too():
    class Plugin:
        @hookimpl
        def provide_lossess(self):
            yield Loss("x", len)

    with pytest.raises(PluginError, match="provide_losses"):
        PluginManager().add("typed", Plugin())


def test_a_command_with_a_broken_group_says_which_plugin_is_at_fault(site, refused):
    site.install("broken", COMMAND.format(target="acme_missing.args:Missing", role="pour"))
    assert "'broken'" in refused("pour")


def test_a_group_without_a_default_names_plugin_and_field(site, refused):
    source = COMMAND.format(target="acme_broken:Group", role="pour")
    source += "\nfrom dataclasses import dataclass\n@dataclass\nclass Group:\n    depth: int\n"
    site.install("broken", source)
    said = refused("pour")
    assert "'broken'" in said and "depth" in said


def test_a_flag_that_selects_from_no_kind_is_the_fault_of_its_plugin(site, refused):
    source = COMMAND.format(target="acme_broken:Group", role="pour")
    source += "\nfrom dataclasses import dataclass, field\n@dataclass\nclass Group:\n"
    site.install("broken", source + '    way: str = field(default="x", metadata={"component": "zorps"})\n')
    said = refused("pour")
    assert "'broken'" in said and "'zorps'" in said


def test_a_broken_group_for_every_command_stops_no_command(site, cli):
    site.install("broken", COMMAND.format(target="acme_missing.args:Missing", role="base"))
    site.install("fine", COMMAND.replace('"pour"', '"fill"').format(target="builtins:object", role="none"))
    assert cli("fill").code == 0


COMMAND = """
from martlet import Arguments, Command, hookimpl

@hookimpl
def provide_arguments():
    yield Arguments("pour", "{target}", roles=("{role}",))

@hookimpl
def provide_commands():
    yield Command("pour", print, roles=("pour",))
"""
