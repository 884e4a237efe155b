"""``martlet plan COMMAND ...``: everything resolved, nothing run."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("sdk")

PLANNED = """
from dataclasses import dataclass, field
from pathlib import Path
from martlet import Arguments, Command, ConfigError, hookimpl

@dataclass
class Pour:
    depth: int = 1
    key: str | None = field(default=None, metadata={"secret": True})

def main(run):
    Path("ran").write_text("")

def plan(run):
    return {"steps": 12, "memory": {"unknown": "no device"}, "files": ["output/args.json", "output/run.json"]}

@hookimpl
def provide_arguments():
    yield Arguments("pour", Pour, roles=("pour",))

@hookimpl
def provide_commands():
    yield Command("pour", main, roles=("pour",), plan=plan)

@hookimpl
def on_config(config):
    if Pour in config and config[Pour].depth == 13:
        raise ConfigError("13 brings bad luck; use 14.")
"""


@pytest.fixture
def plan(cli, demo):
    """Return the plan of a command line of the demo plugin as JSON."""

    def call(*words) -> dict:
        result = cli("plan", "demo", "--external_plugins", demo, *words, "--json")
        assert result.code == 0, result.err
        return result.json

    return call


def test_settings_that_are_not_defaults_are_listed_with_value_and_origin(plan, demo):
    found = plan("--steps", 3, "--loss", "steep")["settings"]
    assert found["steps"] == {"value": 3, "origin": "command line (--steps)"}
    assert found["rate"] == {"value": 9.0, "origin": "component (loss steep)"}
    assert found["label"]["origin"] == "component (loss steep)"
    assert found["picked"] == {"value": 6, "origin": "chosen (twice the steps)"}
    assert "bold" not in found and "seed" not in found


def test_all_lists_the_defaults_as_well(plan):
    found = plan("--all")["settings"]
    assert found["bold"]["value"] is False and found["bold"]["origin"].startswith("default")


def test_a_file_is_an_origin_with_its_line(plan, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("\nsteps: 3\n")
    assert plan("--config", file)["settings"]["steps"]["origin"] == f"config ({file}:2)"


def test_components_and_plugins_are_listed(plan):
    found = plan("--loss", "steep", "--tuners", "matt")
    assert {"kind": "tuners", "name": "matt", "plugin": "demo"} in found["components"]
    assert "demo" in [row["name"] for row in found["plugins"]]


def test_warnings_are_listed(plan):
    assert any("--angle" in text for text in plan("--angle", 3)["warnings"])


@pytest.fixture
def pour(cli, plugin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = plugin("pours", PLANNED)
    return lambda *words: cli("plan", "pour", "--external_plugins", path, *words)


def test_the_command_adds_its_own_facts_and_nothing_runs(pour, tmp_path):
    facts = pour("--json").json["facts"]
    assert facts["steps"] == 12 and facts["memory"] == {"unknown": "no device"}
    assert not (tmp_path / "ran").exists()


def test_what_was_not_computed_says_why(pour):
    text = pour().out
    assert "memory: unknown: no device" in text
    assert "steps: 12" in text and "output/run.json" in text


def test_a_secret_is_not_shown(pour):
    result = pour("--key", "hunter2")
    assert "hunter2" not in result.out and "key" in result.out


def test_a_plugin_may_refuse_a_plan_like_a_run(pour):
    result = pour("--depth", "13")
    assert (result.code, "bad luck" in result.err) == (2, True)


def test_the_text_shows_value_and_origin_on_one_line(cli, demo):
    lines = cli("plan", "demo", "--external_plugins", demo, "--steps", 3).out.splitlines()
    assert any("steps" in line and "3" in line and "command line (--steps)" in line for line in lines)


@pytest.mark.parametrize("words", [["--stesp", "3"], ["--steps", "x"], ["--loss", "curved"]])
def test_a_wrong_command_line_is_refused_as_in_a_run(refused, demo, words):
    refused("plan", "demo", "--external_plugins", demo, *words)


def test_an_unknown_command_suggests_the_nearest(refused, demo):
    assert "Did you mean demo" in refused("plan", "dmeo", "--external_plugins", demo)


def test_it_asks_for_a_command_line(refused):
    assert "martlet plan" in refused("plan")
