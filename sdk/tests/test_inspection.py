"""``martlet plan``, ``plugin show`` and ``plugin doctor``, as a person types them."""

from __future__ import annotations

import pytest

from martlet.cli import main


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.delenv("MARTLET_DISABLE_PLUGIN_AUTOLOAD")


@pytest.fixture
def owl(tmp_path):
    """Return a plugin whose one component has the plugin's name."""
    file = tmp_path / "owl.py"
    main(["plugin", "new", "reward", "owl", "--folder", str(tmp_path)])
    return str(file)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["plan", "--help"]])
def test_plan_explains_itself(words, capsys):
    assert main(["plan", *words]) == 0
    said = capsys.readouterr().out
    assert "martlet plan COMMAND" in said and "--json" in said and "--all" in said


def test_a_component_named_like_its_plugin_is_shown_once(owl, capsys):
    capsys.readouterr()
    assert main(["plugin", "show", "owl", "--external_plugins", owl]) == 0
    said = capsys.readouterr().out
    assert said.startswith("plugin owl")
    assert said.count("reward owl::owl") == 1


def test_doctor_counts_in_words(owl, tmp_path, capsys):
    second = tmp_path / "second.py"
    second.write_text((tmp_path / "owl.py").read_text())
    capsys.readouterr()
    assert main(["plugin", "doctor", "--external_plugins", owl, str(second)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "problem: reward 'owl' is provided more than once: owl::owl, second::owl"
    assert said[-1].endswith("plugins, 1 problem")
