"""Installed plugins: found through entry points, checked against the kernel's version, left out on demand."""

from __future__ import annotations

import pytest

from martlet import Loss, MartletError, PluginManager

LOSS = """
from martlet import Loss, hookimpl

@hookimpl
def provide_losses():
    yield Loss("{name}", len)
"""


def loaded(**settings) -> PluginManager:
    manager = PluginManager(**settings)
    manager.load_installed()
    return manager


def names(manager: PluginManager) -> list[str]:
    return [spec.name for _, spec in manager.specs(Loss)]


def test_an_installed_distribution_adds_its_components(site):
    site.install("steep", LOSS.format(name="steep"), version="1.4")
    manager = loaded()
    assert names(manager) == ["steep"]
    row = manager.plugins["steep"]
    assert (row.origin, row.version, row.external, row.error) == ("acme-steep", "1.4", False, None)
    assert row.hooks == ["provide_losses"]


def test_the_kernel_lists_itself_as_a_plugin():
    assert loaded().plugins["kernel"].origin == "martlet-kernel"


def test_a_plugin_is_not_imported_when_autoload_is_off(site, monkeypatch):
    site.install("steep", LOSS.format(name="steep"))
    monkeypatch.setenv("MARTLET_DISABLE_PLUGIN_AUTOLOAD", "1")
    manager = loaded()
    assert names(manager) == []
    assert "kernel" in manager.plugins


def test_autoload_stays_on_when_its_variable_says_zero(site, monkeypatch):
    site.install("steep", LOSS.format(name="steep"))
    monkeypatch.setenv("MARTLET_DISABLE_PLUGIN_AUTOLOAD", "0")
    assert names(loaded()) == ["steep"]


def test_a_disabled_plugin_is_not_even_imported(site):
    site.install("steep", LOSS.format(name="steep"))
    site.install("bomb", "raise RuntimeError('imported')")
    assert names(loaded(disabled=["bomb"], strict=True)) == ["steep"]


def test_disabling_an_unknown_plugin_suggests_the_right_name(site):
    site.install("steep", LOSS.format(name="steep"))
    with pytest.raises(MartletError, match=r"--disable_plugins steap.*Did you mean steep") as caught:
        loaded(disabled=["steap"])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("requirement", ["martlet-kernel>=9", "Martlet_Kernel >=9,<10", "martlet-kernel<0.1"])
def test_a_plugin_for_another_kernel_is_kept_out_without_importing_it(site, requirement, capsys):
    site.install("later", "raise RuntimeError('imported')", requires=("pluggy", requirement))
    site.install("steep", LOSS.format(name="steep"))
    manager = loaded()
    assert names(manager) == ["steep"]
    error = str(manager.plugins["later"].error)
    assert requirement in error and "is installed" in error and "imported" not in error
    assert "later" in capsys.readouterr().err


def test_a_fitting_requirement_lets_a_plugin_in(site):
    site.install("steep", LOSS.format(name="steep"), requires=("martlet-kernel>=0.1,<2",))
    assert names(loaded()) == ["steep"]


def test_a_kernel_requirement_under_another_marker_does_not_count(site):
    site.install("steep", LOSS.format(name="steep"), requires=("martlet-kernel>=9; python_version < '3'",))
    assert names(loaded()) == ["steep"]


def test_two_distributions_with_one_plugin_name_are_both_left_out_and_named(site):
    site.install("one", LOSS.format(name="steep"), entry="steep")
    site.install("two", LOSS.format(name="steep"), entry="steep")
    manager = loaded()
    assert names(manager) == []
    error = str(manager.plugins["steep"].error)
    assert "acme-one" in error and "acme-two" in error


def test_a_distribution_that_is_on_the_path_twice_counts_once(site):
    """An editable install beside a stale wheel: the first one on the path is the one that Python imports."""
    site.install("steep", LOSS.format(name="steep"), version="1.0")
    stale = site.folder / "acme_steep-0.9.dist-info"
    stale.mkdir()
    for file in (site.folder / "acme_steep-1.0.dist-info").iterdir():
        stale.joinpath(file.name).write_text(file.read_text().replace("1.0", "0.9"))
    assert names(loaded()) == ["steep"]


def test_strict_stops_at_the_first_plugin_that_does_not_load(site):
    site.install("broken", "raise RuntimeError('no driver')")
    with pytest.raises(MartletError, match=r"'broken'.*loading.*no driver"):
        loaded(strict=True)


def test_discovery_works_in_a_fresh_process(site, python):
    site.install("steep", LOSS.format(name="steep"))
    program = """
        import sys, martlet
        print("acme_steep" in sys.modules)
        manager = martlet.PluginManager()
        manager.load_installed()
        print(manager.find(martlet.Loss, "steep")[0])
    """
    result = python(program, PYTHONPATH=str(site.folder), MARTLET_DISABLE_PLUGIN_AUTOLOAD="0")
    assert result.stdout.split() == ["False", "steep"], result.stderr
