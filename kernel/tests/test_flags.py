"""Names of flags: never guessed, suggested when misspelt, shared by two plugins, secret."""

from __future__ import annotations

import json

import pytest

import martlet
from martlet import UsageError


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("--stesp", "steps"),
        ("--step", "steps"),
        ("--colour", "color"),
        ("--log_lvl", "log_level"),
        ("--titel", "title"),
    ],
)
def test_a_misspelt_flag_suggests_the_right_one(refused, demo, word, nearest):
    said = refused("demo", "--external_plugins", demo, word, "1")
    assert word in said and nearest in said and "Did you mean" in said


@pytest.mark.parametrize("word", ["--step=3", "--st", "--rat", "--bol", "--external_plugin", "--confi"])
def test_a_prefix_is_never_taken_for_a_flag(refused, demo, word):
    assert "no such flag" in refused("demo", "--external_plugins", demo, word, "x")


def test_a_flag_that_is_like_nothing_lists_what_there_is(refused, demo):
    said = refused("demo", "--external_plugins", demo, "--zzzzzz")
    assert "--zzzzzz" in said and "steps" in said


def test_a_flag_is_not_negated_by_a_prefix(refused, demo):
    assert "--no_bold" in refused("demo", "--external_plugins", demo, "--no_bold")


def test_a_single_dash_is_no_flag(refused, demo):
    assert "-steps" in refused("demo", "--external_plugins", demo, "--bold", "-steps", "3")


def test_a_stray_word_is_named(refused, demo):
    said = refused("demo", "stray", "--external_plugins", demo)
    assert "'stray'" in said and "--help" in said


def test_lenience_turns_unknown_flags_into_a_warning(cli, demo):
    result = cli("demo", "--external_plugins", demo, "--stesp", "3", "--steps", "4", "--ignore_args_error", "true")
    assert (result.code, result.json["steps"]["value"]) == (0, 4)
    assert "warning" in result.err and "--stesp" in result.err


def test_lenience_names_every_flag_it_ignored(cli, demo):
    result = cli("demo", "--external_plugins", demo, "--stesp", "3", "--colour", "red", "--ignore_args_error")
    assert "--stesp" in result.err and "--colour" in result.err


def test_lenience_forgives_no_wrong_value(refused, demo):
    assert "--steps" in refused("demo", "--external_plugins", demo, "--steps", "x", "--ignore_args_error")


def test_a_flag_of_another_command_is_unknown(refused, plugin, demo):
    other = plugin("other", TWO.replace("pour", "fill"))
    assert "--rate" in refused("fill", "--external_plugins", demo, other, "--rate", "1")


def test_hyphens_mean_underscores(cli, demo):
    assert cli("demo", "--external-plugins", demo, "--log-level", "error").code == 0


# Two plugins, one flag

TWO = """
from dataclasses import dataclass, field
from martlet import Arguments, Command, hookimpl

@dataclass
class Mine:
    depth: int = 1
    width: int = 2

@hookimpl
def provide_arguments():
    yield Arguments("pour", Mine, roles=("pour", "shared"))

@hookimpl
def provide_commands():
    yield Command("pour", lambda run: print(vars(run.config[Mine])) or vars(run.config[Mine]), roles=("pour",))
    yield Command("both", lambda run: {}, roles=("pour",))
"""

STRANGER = """
from dataclasses import dataclass, field
from martlet import Arguments, Command, hookimpl

@dataclass
class Theirs:
    depth: {type} = {default}

@hookimpl
def provide_arguments():
    yield Arguments("stranger", Theirs, roles=("pour",))

@hookimpl
def provide_commands():
    yield Command("ask", lambda run: run.config[Theirs].depth, roles=("pour",))
"""

THIRD = """
from martlet import Command, hookimpl

@hookimpl
def provide_commands():
    yield Command("third", lambda run: {f"{f.plugin}.{f.name}": v for f, v, _ in run.config}, roles=("pour",))
"""


@pytest.fixture
def shared(plugin):
    """Paths of plugins: ``mine`` owns the command pour and the flag depth; ``stranger`` claims depth as well."""

    def write(kind: str = "int", default: str = "9") -> list[str]:
        stranger = STRANGER.format(type=kind, default=default)
        return [plugin("mine", TWO), plugin("stranger", stranger), plugin("third", THIRD)]

    return write


def test_the_commands_own_plugin_keeps_the_bare_name(shared):
    assert martlet.run("pour", external_plugins=shared(), depth=5) == {"depth": 5, "width": 2}
    assert martlet.run("ask", external_plugins=shared(), depth=5) == 5


def test_the_stranger_is_reached_by_its_group(shared):
    run = martlet.prepare("pour", external_plugins=shared(), depth=5, set=["stranger.depth=6"])
    values = {flag.key: value for flag, value, _ in run.config}
    assert (values["pour.depth"], values["stranger.depth"]) == (5, 6)
    assert str(run.config.origin("stranger.depth")) == "code (--set stranger.depth)"


def test_an_own_switch_stays_a_switch_whatever_the_stranger_made_of_it(cli, plugin):
    mine = plugin("mine", TWO.replace("depth: int = 1", "depth: bool = False"))
    stranger = plugin("stranger", STRANGER.format(type="list[str]", default="field(default_factory=list)"))
    result = cli("pour", "--external_plugins", mine, stranger, "--depth", "--width", "3")
    assert result.out == "{'depth': True, 'width': 3}\n", result.err


def test_a_clash_is_no_error_while_the_flag_is_not_used(shared):
    assert martlet.run("third", external_plugins=shared(), width=7)["mine.width"] == 7


@pytest.mark.parametrize("words", [["--depth", "5"], ["--depth=5"]])
def test_a_clash_of_two_strangers_is_an_error_where_the_bare_flag_is_used(refused, shared, words):
    said = refused("third", "--external_plugins", *shared(), *words)
    assert "'mine'" in said and "'stranger'" in said
    assert "--set pour.depth" in said and "--set stranger.depth" in said


def test_a_clash_is_an_error_in_a_file_too(refused, shared, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("width: 3\ndepth: 5\n")
    said = refused("third", "--external_plugins", *shared(), "--config", file)
    assert "--set pour.depth" in said and "--set stranger.depth" in said


def test_both_values_of_a_clash_are_recorded(shared, tmp_path):
    run = martlet.prepare("third", external_plugins=shared(), set=["stranger.depth=6", "pour.depth=5"])
    run.open(tmp_path / "out")
    recorded = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert sorted(row["value"] for name, row in recorded.items() if name.endswith("depth")) == [5, 6]


def test_set_checks_types_and_ranges_like_the_flag(refused, demo):
    assert "greater than 0" in refused("demo", "--external_plugins", demo, "--set", "demo.steps=0")
    assert "a whole number" in refused("demo", "--external_plugins", demo, "--set", "demo.steps=x")


def test_a_misspelt_field_of_a_group_is_refused(refused, demo):
    said = refused("demo", "--external_plugins", demo, "--set", "demo.stesp=3")
    assert "steps" in said


# Secrets


def test_a_secret_stands_in_no_file_of_the_run(cli, demo, tmp_path):
    result = cli("demo", "--external_plugins", demo, "--key", "hunter2", "--folder", tmp_path / "out")
    assert result.json["key"]["value"] == "hunter2"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"args.json", "run.json"}
    assert all("hunter2" not in path.read_text() for path in files)


def test_the_record_says_that_a_secret_was_given_and_by_whom(cli, demo, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_KEY", "hunter2")
    cli("demo", "--external_plugins", demo, "--folder", tmp_path / "out")
    row = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["key"]
    assert row == {"value": "***", "origin": "environment (DEMO_KEY)"}


def test_an_unknown_name_from_code_suggests_the_nearest(demo):
    with pytest.raises(UsageError, match=r"stesp.*Did you mean steps"):
        martlet.prepare("demo", external_plugins=[demo], stesp=3)
