"""Every value has an origin, and the origins have an order."""

from __future__ import annotations

import json

import pytest

import martlet
from martlet import ConfigError, UsageError


@pytest.fixture
def written(tmp_path):
    """Write a file below the test's folder and return its path."""

    def write(name: str, text: str):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def checkpoint(written):
    """Write a checkpoint folder with these settings recorded."""

    def write(where: str = "output/checkpoint-1/args.json", **values):
        written("output/checkpoint-1/adapter_config.json", "{}")
        written(where, json.dumps(values))
        return written("output/checkpoint-1/adapter_config.json", "{}").parent

    return write


def origin(row) -> str:
    return row["source"]


def test_a_field_default_names_plugin_and_version(settings):
    found = settings()
    assert found["steps"] == {"value": 10, "source": "default", "detail": "demo"}


def test_the_default_of_an_installed_plugin_names_its_version(site):
    site.install("demo", COMMAND, version="1.4")
    assert str(martlet.prepare("pour").config.origin("depth")) == "default (demo 1.4)"


COMMAND = """
from dataclasses import dataclass
from martlet import Arguments, Command, hookimpl

@dataclass
class Group:
    depth: int = 1

@hookimpl
def provide_arguments():
    yield Arguments("pour", Group, roles=("pour",))

@hookimpl
def provide_commands():
    yield Command("pour", print, roles=("pour",))
"""


def test_a_command_default_beats_the_fields(settings):
    assert settings()["label"] == {"value": "from the command", "source": "command", "detail": "demo"}


def test_a_component_default_beats_the_commands(settings):
    found = settings("--loss", "steep")["label"]
    assert found == {"value": "from the loss", "source": "component", "detail": "loss steep"}


def test_a_checkpoint_beats_a_component_default(settings, checkpoint):
    folder = checkpoint(label="from the checkpoint", loss="steep")
    found = settings("--checkpoint", folder, "--load_args")
    assert found["label"] == {"value": "from the checkpoint", "source": "args.json", "detail": str(folder)}
    assert found["rate"]["source"] == "component"


def test_a_file_beats_a_checkpoint(settings, checkpoint, written):
    folder, file = checkpoint(label="from the checkpoint"), written("run.yaml", "# a comment\nlabel: from the file\n")
    found = settings("--checkpoint", folder, "--load_args", "--config", file)
    assert found["label"] == {"value": "from the file", "source": "config", "detail": f"{file}:2"}


def test_the_environment_beats_a_file(settings, written, monkeypatch):
    monkeypatch.setenv("DEMO_LOUD", "true")
    found = settings("--config", written("run.yaml", "loud: false\n"))
    assert found["loud"] == {"value": True, "source": "environment", "detail": "DEMO_LOUD"}


def test_the_command_line_beats_everything(settings, checkpoint, written, monkeypatch):
    monkeypatch.setenv("DEMO_LOUD", "true")
    folder, file = checkpoint(loud=True, label="a"), written("run.yaml", "loud: true\nlabel: b\n")
    words = ["--loud", "false", "--label", "mine", "--loss", "steep"]
    found = settings("--checkpoint", folder, "--load_args", "--config", file, *words)
    assert found["label"] == {"value": "mine", "source": "command line", "detail": "--label"}
    assert (found["loud"]["value"], found["loud"]["source"]) == (False, "command line")


def test_code_beats_the_environment(demo, monkeypatch):
    monkeypatch.setenv("DEMO_LOUD", "true")
    run = martlet.prepare("demo", external_plugins=[demo], loud=False)
    assert run.config.value("loud") is False
    assert str(run.config.origin("loud")) == "code"


def test_what_is_chosen_keeps_its_reason(settings):
    assert settings("--steps", "4")["picked"] == {"value": 8, "source": "chosen", "detail": "twice the steps"}
    assert origin(settings("--picked", "3")["picked"]) == "command line"


def test_a_group_may_only_choose_for_its_own_flags(plugin):
    source = COMMAND.replace(
        'roles=("pour",))\n\n', 'roles=("pour",), resolve=lambda config: [("seed", 1, "why not")])\n\n', 1
    )
    with pytest.raises(UsageError, match=r"'pour'.*--seed"):
        martlet.prepare("pour", external_plugins=[plugin("greedy", source)])


def test_a_choice_that_fails_names_its_plugin(refused, plugin):
    source = COMMAND.replace('roles=("pour",))\n\n', 'roles=("pour",), resolve=lambda config: 1 / 0)\n\n', 1)
    said = refused("pour", "--external_plugins", plugin("greedy", source))
    assert "plugin 'greedy' failed while choosing settings of group 'pour': ZeroDivisionError" in said


def test_is_set_tells_what_the_user_gave(demo, checkpoint):
    folder = str(checkpoint(steps=3))
    run = martlet.prepare("demo", external_plugins=[demo], loss="steep", checkpoint=folder, load_args=True)
    given = {name: run.config.is_set(name) for name in ("loss", "steps", "rate", "label", "picked", "bold")}
    assert given == {"loss": True, "steps": True, "rate": False, "label": False, "picked": False, "bold": False}


# Environment


@pytest.mark.parametrize(("text", "value"), [("1", True), ("0", False), ("true", True), ("False", False)])
def test_a_switch_in_the_environment(settings, monkeypatch, text, value):
    monkeypatch.setenv("DEMO_LOUD", text)
    assert settings()["loud"]["value"] is value


def test_an_empty_variable_counts_as_not_set(settings, monkeypatch):
    monkeypatch.setenv("DEMO_LOUD", "")
    assert origin(settings()["loud"]) == "default"


def test_a_wrong_value_names_its_variable(refused, demo, monkeypatch):
    monkeypatch.setenv("DEMO_LOUD", "loudly")
    assert "DEMO_LOUD" in refused("demo", "--external_plugins", demo)


def test_an_older_variable_still_counts_and_says_its_new_name(settings, monkeypatch):
    monkeypatch.setenv("DEMO_TOKEN", "secret")
    found = settings()["key"]
    assert (found["value"], found["source"]) == ("secret", "environment")
    assert "DEMO_TOKEN" in found["detail"] and "DEMO_KEY" in found["detail"]


def test_the_newer_variable_wins(settings, monkeypatch):
    monkeypatch.setenv("DEMO_TOKEN", "old")
    monkeypatch.setenv("DEMO_KEY", "new")
    assert settings()["key"]["value"] == "new"


# args.json of a checkpoint


def test_a_checkpoint_is_not_read_unless_asked(settings, checkpoint):
    assert settings("--checkpoint", checkpoint(steps=3))["steps"]["value"] == 10


def test_settings_may_stand_in_the_run_folder_above(settings, checkpoint):
    folder = checkpoint("output/args.json", steps=3)
    assert settings("--checkpoint", folder, "--load_args")["steps"]["value"] == 3


def test_a_setting_that_must_not_be_restored_is_not(settings, checkpoint):
    folder = checkpoint(checkpoint="/elsewhere", seed=7, steps=3)
    found = settings("--checkpoint", folder, "--load_args")
    assert found["checkpoint"]["value"] == str(folder)
    assert found["steps"]["value"] == 3


def test_groups_that_are_not_restored_keep_their_values(demo, checkpoint):
    run = martlet.prepare("demo", external_plugins=[demo], checkpoint=str(checkpoint(seed=7)), load_args=True)
    assert run.seed == 42


@pytest.mark.parametrize("name", ["lr=1e-4", "a=b=c"])
def test_a_checkpoint_folder_may_have_an_equals_sign(settings, written, name):
    folder = written(f"{name}/checkpoint-1/args.json", '{"steps": 3}').parent
    assert settings("--checkpoint", folder, "--load_args")["steps"]["value"] == 3


def test_a_named_checkpoint_is_read_as_well(settings, checkpoint):
    assert settings("--checkpoint", f"mine={checkpoint(steps=3)}", "--load_args")["steps"]["value"] == 3


@pytest.mark.parametrize("text", ["{", "[1]", "5"])
def test_a_damaged_args_json_is_named(refused, demo, written, text):
    file = written("checkpoint-1/args.json", text)
    said = refused("demo", "--external_plugins", demo, "--checkpoint", file.parent, "--load_args")
    assert str(file) in said and "--load_args false" in said


def test_a_recorded_value_that_no_longer_fits_is_named(refused, demo, checkpoint):
    folder = checkpoint(steps="many")
    said = refused("demo", "--external_plugins", demo, "--checkpoint", folder, "--load_args")
    assert str(folder / "args.json") in said and "steps" in said


def test_recorded_settings_of_flags_that_no_longer_exist_are_left_alone(settings, checkpoint):
    folder = checkpoint(steps=3, gone=1)
    assert settings("--checkpoint", folder, "--load_args")["steps"]["value"] == 3


def test_a_recorded_component_that_is_not_installed_is_named(refused, demo, checkpoint):
    said = refused("demo", "--external_plugins", demo, "--checkpoint", checkpoint(loss="curved"), "--load_args")
    assert "curved" in said and "loss" in said


# Several origins at once


def test_a_later_file_wins(settings, written):
    one, two = written("one.yaml", "steps: 1\nlabel: one\n"), written("two.yaml", "label: two\n")
    found = settings("--config", one, two)
    assert (found["steps"]["value"], found["label"]["value"]) == (1, "two")
    assert found["label"]["detail"] == f"{two}:1"


def test_files_may_be_given_one_by_one(settings, written):
    one, two = written("one.yaml", "steps: 1\nlabel: one\n"), written("two.yaml", "label: two\n")
    found = settings("--config", one, "--config", two)
    assert (found["steps"]["value"], found["label"]["value"]) == (1, "two")


def test_settings_from_code_may_name_files(demo, written):
    file = written("run.yaml", "steps: 3\nlabel: from the file\n")
    run = martlet.prepare("demo", external_plugins=[demo], config=[str(file)], label="mine")
    assert (run.config.value("steps"), str(run.config.origin("steps"))) == (3, f"config ({file}:1)")
    assert run.config.value("label") == "mine"


def test_a_missing_file_is_refused_from_code_as_well(demo, tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        martlet.prepare("demo", external_plugins=[demo], config=[str(tmp_path / "gone.yaml")])
